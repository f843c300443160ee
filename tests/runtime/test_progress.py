import logging
import sys

import pytest

from disinr_monai.runtime import progress
from disinr_monai.runtime.progress import Steps
from tests.engines import adapt
from tests.problems import mri_case, small_network


class Clock:
    def __init__(self):
        self.now = 0.0

    def monotonic(self):
        return self.now


@pytest.fixture
def clock(monkeypatch):
    clock = Clock()
    monkeypatch.setattr(progress, "time", clock)
    return clock


def work(clock, n=100, seconds=1.0, **options):
    with Steps(n, "adapting x", **options) as steps:
        for i in range(n):
            clock.now += seconds
            steps.update(0.5 if i % 10 == 9 else None)


def test_plain_lines_now_and_then_without_a_terminal(clock, caplog, capsys):
    caplog.set_level(logging.INFO)
    work(clock)
    lines = [record.message for record in caplog.records]
    assert len(lines) == 10
    assert lines[0] == "adapting x: 10 of 100 (10 %), loss 0.5, 10 s, 1 min 30 s left"
    assert lines[-1] == "adapting x: 100 of 100 (100 %), loss 0.5, 1 min 40 s, done"
    assert capsys.readouterr().err == ""


def test_a_short_task_inside_another_says_nothing(clock, caplog):
    caplog.set_level(logging.INFO)
    work(clock, n=5, leave=False)
    assert not caplog.records
    work(clock, n=5, leave=True)
    assert [record.message for record in caplog.records] == ["adapting x: 5 of 5 (100 %), 5 s, done"]


def test_quiet_is_silent(clock, caplog, capsys, monkeypatch):
    caplog.set_level(logging.INFO)
    work(clock, quiet=True)
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True, raising=False)
    work(clock, quiet=True)
    assert not caplog.records
    assert capsys.readouterr().err == ""


def test_a_bar_on_a_terminal(caplog, capsys, monkeypatch):
    caplog.set_level(logging.INFO)
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True, raising=False)
    inferer, _ = adapt(small_network(), mri_case(), n_iterations=25, quiet=False)
    shown = capsys.readouterr().err
    assert "adapting blob-0" in shown
    assert f"loss={inferer.history[-1]['loss']:.3g}" in shown
    assert not caplog.records
    assert inferer.iterations_run == 25
