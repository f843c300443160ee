from __future__ import annotations

import torch
from ignite.engine import Engine, Events
from monai.utils import CommonKeys

from disinr_monai.runtime.distributed import rank
from disinr_monai.runtime.progress import Steps


class Progress:
    """Progress over all iterations of a run, with the latest loss: a bar, or log lines where there is no terminal.

    Args:
        name: what is being done.
        quiet: show nothing.
    """

    def __init__(self, name: str, quiet: bool = False) -> None:
        self.name, self.quiet = name, quiet
        self._steps: Steps | None = None

    def attach(self, engine: Engine) -> None:
        """Show it from start to end of the run."""
        engine.add_event_handler(Events.STARTED, self._start)
        engine.add_event_handler(Events.ITERATION_COMPLETED, self._step)
        engine.add_event_handler(Events.COMPLETED, self._stop)

    def _start(self, engine: Engine) -> None:
        total = engine.state.max_epochs * engine.state.epoch_length
        self._steps = Steps(total, self.name, self.quiet or rank() > 0, initial=engine.state.iteration)

    def _step(self, engine: Engine) -> None:
        output, loss = engine.state.output, None
        # Asking for a loss makes the device wait.
        if engine.state.iteration % 10 == 0 and isinstance(output, dict) and CommonKeys.LOSS in output:
            loss = float(torch.as_tensor(output[CommonKeys.LOSS]).detach())
        self._steps.update(loss)

    def _stop(self, engine: Engine) -> None:
        self._steps.close()
