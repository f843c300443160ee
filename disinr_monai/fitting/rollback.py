"""A fit that loses its way goes back to where it was sound."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor
from torch.optim import Optimizer

from disinr_monai.errors import InputError

_EXPLODED = 100.0


class Rollback:
    """Keeps the weights of the last look at which the loss was sound, and goes back to them when it is not.

    Sound is finite and below a hundred times the first loss, or below 100 where the first was less than 1: losses are
    of the size of the image, which is about 1, and a scan of nothing begins at nearly 0. Going back starts Adam's
    moments afresh and halves the learning rate.

    Args:
        parameters: what is fitted.
        optimizer: of them.
        limit: times to go back.
    """

    def __init__(self, parameters: Sequence[Tensor], optimizer: Optimizer, limit: int = 3) -> None:
        self.parameters, self.optimizer, self.limit = list(parameters), optimizer, limit
        self.count = 0
        self._first = math.inf
        self._sound: tuple[int, list[Tensor]] | None = None

    @torch.no_grad()
    def look(self, loss: float, iteration: int) -> str:
        """Keep the weights, or go back.

        Args:
            loss: of the weights as they are now.
            iteration: its number.

        Returns:
            What was done in words, if it went back; else nothing.

        Raises:
            InputError: the first loss is not finite, or it has gone back ``limit`` times.
        """
        if math.isfinite(loss) and loss <= _EXPLODED * self._first:
            if self._sound is None:
                self._first = max(loss, 1.0)
            self._sound = iteration, [p.detach().clone() for p in self.parameters]
            return ""
        if self._sound is None:
            raise InputError(
                f"the loss is {loss:g} in iteration {iteration}, expected a finite number; check the measurement, its "
                "weights and the operator for NaN and infinity"
            )
        self.count += 1
        known, weights = self._sound
        if self.count > self.limit:
            raise InputError(
                f"the fit diverged {self.count} times, last in iteration {iteration} (loss {loss:g}); give a smaller lr"
            )
        for parameter, weight in zip(self.parameters, weights, strict=True):
            parameter.copy_(weight)
        self.optimizer.state.clear()
        for group in self.optimizer.param_groups:
            group["lr"] *= 0.5
        return (
            f"the fit diverged (loss {loss:g} in iteration {iteration}) and went back to iteration {known} with half "
            "the learning rate"
        )
