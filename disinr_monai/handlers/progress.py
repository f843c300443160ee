from __future__ import annotations

from ignite.engine import Engine, Events

from disinr_monai.runtime.distributed import rank
from disinr_monai.runtime.progress import Steps, current_loss


class Progress:
    """Progress over all iterations of a run, with the latest loss: a bar, or log lines where there is no terminal.

    Args:
        name: of the task.
        quiet: show nothing.
    """

    def __init__(self, name: str, quiet: bool = False) -> None:
        self.name, self.quiet = name, quiet
        self._steps: Steps | None = None

    def attach(self, engine: Engine) -> None:
        """Show it from start to end of the run."""
        engine.add_event_handler(Events.STARTED, self._start)
        engine.add_event_handler(Events.ITERATION_COMPLETED, self._step)
        engine.add_event_handler(Events.COMPLETED, lambda _: self._steps.close())

    def _start(self, engine: Engine) -> None:
        total = engine.state.max_epochs * engine.state.epoch_length
        self._steps = Steps(total, self.name, self.quiet or rank() > 0, initial=engine.state.iteration)

    def _step(self, engine: Engine) -> None:
        # Reading a loss makes the device wait.
        loss = current_loss(engine) if engine.state.iteration % 10 == 0 else None
        self._steps.update(None if loss is None else float(loss))
