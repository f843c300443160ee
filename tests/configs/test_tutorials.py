"""Every line of the tutorials runs."""

import runpy
import shlex
import sys
from pathlib import Path

import pytest
from monai.bundle import run

from tests.configs.pages import FENCE
from tests.conftest import ROOT
from tests.runs import value

TUTORIALS = sorted((ROOT / "docs" / "tutorials").glob("*.md"))


def execute(command: str, monkeypatch) -> None:
    """One line of a bash block, in this process: starting Python anew would take most of the time."""
    words = shlex.split(command)  # a comment would end at the # of `--encoder#seed`
    if words[:4] == ["python", "-m", "monai.bundle", "run"]:
        run_id, options = words[4], words[5:]
        given = {k.removeprefix("--"): value(v) for k, v in zip(options[::2], options[1::2], strict=True)}
        run(run_id, **given)
    elif words[:1] == ["python"] and words[1].startswith("scripts/"):
        monkeypatch.setattr(sys, "argv", words[1:])
        monkeypatch.syspath_prepend(ROOT / "scripts")
        code = None
        try:
            runpy.run_path(str(ROOT / words[1]), run_name="__main__")
        except SystemExit as finished:
            code = finished.code
        assert not code
    else:
        raise AssertionError(f"a tutorial has a command that no test runs: {command}")


@pytest.mark.slow
@pytest.mark.parametrize("page", TUTORIALS, ids=lambda path: path.stem)
def test_tutorial_runs(page, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for part in ("configs", "models", "scripts"):
        Path(part).symlink_to(ROOT / part)
    namespace: dict = {"__name__": "tutorial"}
    steps = 0
    for language, _, text in FENCE.findall(page.read_text()):
        if language == "python":
            exec(text, namespace)
        elif language == "bash":
            for line in text.replace("\\\n", " ").splitlines():
                if line.strip():
                    execute(line, monkeypatch)
        steps += 1
    assert steps >= 4
