from __future__ import annotations

from ignite.engine import Engine
from monai.engines import IterationEvents
from torch import nn


class ClipGradients:
    """Limit the norm of a module's gradient before each step, so that one odd scan cannot undo the training.

    Args:
        module: what is trained.
        max_norm: largest norm over all its parameters.
    """

    def __init__(self, module: nn.Module, max_norm: float = 3.0) -> None:
        self.module, self.max_norm = module, max_norm

    def attach(self, engine: Engine) -> None:
        """Clip between the backward pass and the step."""
        engine.add_event_handler(IterationEvents.BACKWARD_COMPLETED, self.clip)

    def clip(self, engine: Engine | None = None) -> None:
        """Clip now."""
        nn.utils.clip_grad_norm_(self.module.parameters(), self.max_norm)
