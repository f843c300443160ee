"""A real headless browser for pages that a person will open."""

import shutil
import subprocess
from pathlib import Path

import pytest


def open_page(page: Path, folder: Path, until: str) -> str:
    """The document once its scripts have put ``until`` into it; skips where there is no Chromium.

    The browser's clock does not wait for its own threads, so on a busy machine it may be too early: it is asked again.
    """
    browser = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    if browser is None:
        pytest.skip("no chromium on this machine (Debian: apt-get install chromium)")
    flags = (
        "--headless --no-sandbox --disable-gpu --disable-quic --no-first-run --disable-background-networking "
        "--disable-component-update --disable-sync --window-size=1300,1200 --dump-dom"
    ).split()
    for seconds in (10, 60, 300, 1200):  # of its clock, not of ours
        command = [browser, *flags, f"--virtual-time-budget={seconds * 1000}", f"--user-data-dir={folder}"]
        done = subprocess.run(
            [*command, page.resolve().as_uri()], capture_output=True, text=True, timeout=120, check=True
        )
        if until in done.stdout:
            break
    return done.stdout
