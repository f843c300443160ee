"""Code blocks of README and docs."""

import re
from pathlib import Path

from tests.conftest import ROOT

PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
FENCE = re.compile(r"^```(\w+)(?: title=\"([^\"]+)\")?\n(.*?)^```", re.MULTILINE | re.DOTALL)


def blocks(page: Path, language: str) -> list[tuple[str, str]]:
    """Title and text of every fenced block of one language."""
    return [(title, text) for kind, title, text in FENCE.findall(page.read_text()) if kind == language]


def block(page: str, title: str, language: str = "python") -> str:
    (text,) = (text for name, text in blocks(ROOT / "docs" / page, language) if name == title)
    return text
