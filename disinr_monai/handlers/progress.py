from __future__ import annotations

import torch
from ignite.engine import Engine, Events
from monai.utils import CommonKeys
from tqdm import tqdm

from disinr_monai.distributed import rank


class Progress:
    """One progress bar over all iterations of a run, with the latest loss.

    Args:
        name: what is being done.
        quiet: show nothing.
    """

    def __init__(self, name: str, quiet: bool = False) -> None:
        self.name, self.quiet = name, quiet
        self._bar: tqdm | None = None

    def attach(self, engine: Engine) -> None:
        """Show the bar from start to end of the run."""
        engine.add_event_handler(Events.STARTED, self._start)
        engine.add_event_handler(Events.ITERATION_COMPLETED, self._step)
        engine.add_event_handler(Events.COMPLETED, self._stop)

    def _start(self, engine: Engine) -> None:
        total = engine.state.max_epochs * engine.state.epoch_length
        self._bar = tqdm(total=total, initial=engine.state.iteration, desc=self.name, disable=self.quiet or rank() > 0)

    def _step(self, engine: Engine) -> None:
        output = engine.state.output
        if engine.state.iteration % 10 == 0 and isinstance(output, dict) and CommonKeys.LOSS in output:
            self._bar.set_postfix(loss=f"{float(torch.as_tensor(output[CommonKeys.LOSS]).detach()):.3g}", refresh=False)
        self._bar.update()

    def _stop(self, engine: Engine) -> None:
        self._bar.close()
