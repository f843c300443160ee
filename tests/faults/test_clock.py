"""The clock of the machine is set back an hour and forward a day while something runs."""

import logging
import re
import time

import pytest
import tqdm.std
from ignite.engine import Events

from disinr_monai.fitting.adaptation import AdaptationInferer
from disinr_monai.fitting.losses import MeasurementLoss
from disinr_monai.handlers import Progress, SaveCases
from disinr_monai.handlers.resume import FILE_NAME
from disinr_monai.output.report import Report
from disinr_monai.runtime import progress
from disinr_monai.runtime.progress import Steps
from disinr_monai.tracking import Tracking
from tests.engines import evaluator, resumable, rows_of
from tests.faults.record import record
from tests.problems import mri_case
from tests.tracking.helpers import finished

HOUR, DAY = 3600.0, 86400.0


class Clock:
    """Can be set, as an engine's handler at given epochs or iterations."""

    def __init__(self) -> None:
        self.ahead, self.true = 0.0, time.time

    def __call__(self) -> float:
        return self.true() + self.ahead

    def set_at(self, engine, event, **settings: float) -> None:
        for number, ahead in settings.items():
            engine.add_event_handler(event(once=int(number.strip("_"))), lambda _, a=ahead: setattr(self, "ahead", a))


@pytest.fixture
def clock(monkeypatch):
    clock = Clock()
    monkeypatch.setattr(time, "time", clock)
    monkeypatch.setattr(tqdm.std, "time", clock)  # it has taken the function out of its module
    return clock


def test_pretraining(tmp_path, clock, caplog):
    caplog.set_level(logging.INFO)
    tracking = Tracking(str(tmp_path), run_name="clock", log_every=1)
    trainer, _network, _ = resumable(tmp_path, max_epochs=8, handlers=[Progress("pre-training"), tracking])
    clock.set_at(trainer, Events.EPOCH_STARTED, _3=-HOUR, _6=DAY)
    saved = []
    trainer.add_event_handler(Events.EPOCH_COMPLETED, lambda: saved.append((tmp_path / FILE_NAME).stat().st_mtime_ns))
    trainer.run()
    assert len(set(saved)) == 8, "a checkpoint after each epoch"
    client, run = finished(tmp_path, tracking)
    history = client.get_metric_history(run.info.run_id, "loss")
    assert [m.step for m in history] == list(range(1, 25))
    when = [m.timestamp for m in history]
    assert when == sorted(when)
    assert run.info.start_time <= when[0] <= when[-1] <= run.info.end_time < run.info.start_time + 60_000
    (line,) = [r.getMessage() for r in caplog.records if "pre-training: 24 of 24" in r.getMessage()]
    assert re.search(r", \d+ s, done$", line)
    record("clock set back an hour, forward a day", 2, 2)


def test_reconstruction(tmp_path, clock):
    cases = [mri_case(shift=0.02 * i, seed=i, index=i) for i in range(4)]
    inferer = AdaptationInferer(MeasurementLoss(), n_iterations=3, quiet=True)
    results = SaveCases(str(tmp_path), inferer, "mri", report=Report(str(tmp_path), "clock"))
    tracking = Tracking(str(tmp_path), results=results, inferer=inferer)
    engine = evaluator(cases, inferer, [results, tracking])
    clock.set_at(engine, Events.ITERATION_STARTED, _2=-HOUR, _4=DAY)
    engine.run()
    rows = rows_of(tmp_path)
    assert len(rows) == 4
    assert all(0 < float(row["seconds"]) < 60 for row in rows)
    _client, run = finished(tmp_path, tracking)
    assert run.info.status == "FINISHED"
    assert 0 <= run.info.end_time - run.info.start_time < 60_000
    assert (tmp_path / "report.html").is_file()
    record("clock set back an hour, forward a day", 2, 2)


@pytest.mark.parametrize("ahead", [-HOUR, DAY])
def test_lines_and_bars_go_on(clock, caplog, capsys, monkeypatch, ahead):
    caplog.set_level(logging.INFO)
    with Steps(30, "lines", interval=0.05) as steps:
        for i in range(30):
            clock.ahead = ahead * (i >= 10)
            time.sleep(0.01)
            steps.update(0.5)
    late = [r.getMessage() for r in caplog.records if re.match(r"lines: (1[5-9]|2\d) of 30", r.getMessage())]
    assert late
    assert all(re.search(r"\), loss 0\.5, \d s, \d s left", line) for line in late)
    clock.ahead = 0.0
    monkeypatch.setattr(progress, "wants_bars", lambda quiet: True)
    with Steps(30, "bar") as steps:
        for i in range(29):
            clock.ahead = ahead * (i >= 5)
            time.sleep(0.02)
            steps.update(0.5)
        assert steps._bar.last_print_n > 15
        assert 0 < steps._bar.format_dict["elapsed"] < 60
    assert "30" in capsys.readouterr().err
