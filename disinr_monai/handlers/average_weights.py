from __future__ import annotations

import torch
from ignite.engine import Engine, Events
from monai.engines import IterationEvents
from torch import Tensor, nn


class AverageWeights:
    """Keep a running mean of a module's weights and leave it in the module when training has completed.

    The mean of the last hundred steps is less noisy than the last step (Polyak and Juditsky, SIAM J. Control Optim.
    30:838, 1992). It is copied after the last epoch, hence before anything that is saved when training has completed;
    a handler that saves at the end of epochs (to resume from) must come earlier in the list.

    Args:
        module: what is trained.
        decay: share of the old mean that stays at each step (less in the first steps).
    """

    def __init__(self, module: nn.Module, decay: float = 0.99) -> None:
        if not 0 <= decay < 1:
            raise ValueError(f"AverageWeights: decay must be at least 0 and below 1, found {decay}")
        self.module, self.decay, self.steps = module, decay, 0
        self.mean = {name: value.detach().clone() for name, value in module.named_parameters()}

    def attach(self, engine: Engine) -> None:
        """Update after every step; copy the mean into the module after the last epoch."""
        engine.add_event_handler(Events.ITERATION_COMPLETED, self.update)
        engine.add_event_handler(Events.EPOCH_COMPLETED, self._after_epoch)

    def _after_epoch(self, engine: Engine) -> None:
        if engine.state.epoch == engine.state.max_epochs:
            self.apply()

    @torch.no_grad()
    def update(self, engine: Engine | None = None) -> None:
        """Update the mean with the current weights."""
        self.steps += 1
        decay = min(self.decay, self.steps / (self.steps + 20))
        for name, value in self.module.named_parameters():
            self.mean[name] = self.mean[name].to(value.device).lerp_(value, 1 - decay)

    @torch.no_grad()
    def apply(self, engine: Engine | None = None) -> None:
        """Copy the mean into the module."""
        for name, value in self.module.named_parameters():
            value.copy_(self.mean[name])

    def state_dict(self) -> dict[str, Tensor | int]:
        """State to resume from."""
        return {"steps": self.steps, "mean": self.mean}

    def load_state_dict(self, state: dict) -> None:
        """Restore a state of :meth:`state_dict`."""
        self.steps, self.mean = state["steps"], dict(state["mean"])


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
        engine.add_event_handler(
            IterationEvents.BACKWARD_COMPLETED,
            lambda _: nn.utils.clip_grad_norm_(self.module.parameters(), self.max_norm),
        )
