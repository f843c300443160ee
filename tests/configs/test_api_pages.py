"""The example on each page of the API reference runs, and every room has a page."""

import re

import pytest

from tests.conftest import ROOT

PAGES = sorted((ROOT / "docs" / "api").glob("*.md"))


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_example_runs(page, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (example,) = re.findall(r"^```python\n(.*?)^```", page.read_text(), re.MULTILINE | re.DOTALL)
    exec(example, {"__name__": "example"})


def test_every_room_has_a_page():
    rooms = {file.parent.name for file in (ROOT / "disinr_monai").glob("*/__init__.py")}
    assert rooms <= {page.stem for page in PAGES}
