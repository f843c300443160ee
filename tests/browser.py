"""A real headless browser for pages that a person will open."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest


def open_page(page: Path, folder: Path, size: str = "1300,1200", picture: Path | None = None) -> str:
    """The document after its scripts ran; skips where there is no Chromium."""
    browser = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    if browser is None:
        pytest.skip("no chromium on this machine (Debian: apt-get install chromium)")
    flags = (
        "--headless --no-sandbox --disable-gpu --disable-quic --no-first-run --disable-background-networking "
        "--disable-component-update --disable-sync --hide-scrollbars --virtual-time-budget=20000"
    ).split()
    wanted = [f"--screenshot={picture}"] if picture else ["--dump-dom"]
    command = [browser, *flags, f"--user-data-dir={folder}", f"--window-size={size}", *wanted, page.resolve().as_uri()]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True)
    return done.stdout
