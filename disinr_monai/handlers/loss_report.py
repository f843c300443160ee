from __future__ import annotations

from ignite.engine import Engine, Events
from torch import Tensor

from disinr_monai.output.report import Report
from disinr_monai.runtime.distributed import rank
from disinr_monai.runtime.progress import current_loss


class LossReport:
    """Write the report of a pre-training at its end: the loss, settings, versions and warnings.

    Args:
        report: of the run.
        every: iterations between two points of the curve.
    """

    def __init__(self, report: Report, every: int = 20) -> None:
        self.report, self.every = report, every
        self._steps: list[int] = []
        self._losses: list[Tensor] = []

    def attach(self, engine: Engine) -> None:
        """Follow a trainer; one process writes."""
        if rank() > 0:
            return
        engine.add_event_handler(Events.STARTED, lambda _: self.report.start())
        engine.add_event_handler(Events.ITERATION_COMPLETED(event_filter=self._wanted), self._loss)
        engine.add_event_handler(Events.COMPLETED, self._write)

    def _wanted(self, engine: Engine, iteration: int) -> bool:
        return iteration % self.every == 0 or iteration in (1, engine.state.max_epochs * engine.state.epoch_length)

    def _loss(self, engine: Engine) -> None:
        if (loss := current_loss(engine)) is not None:
            self._steps.append(engine.state.iteration)
            self._losses.append(loss)  # read at the end: reading it now would make the device wait

    def _write(self, engine: Engine) -> None:
        self.report.add_losses(self._steps, [float(loss) for loss in self._losses])
        self.report.write()
