"""Return of a diverged fit or training to its last sound weights."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import torch
from torch import Tensor
from torch.optim import Optimizer

from disinr_monai.errors import InputError

_EXPLODED = 100.0


def go_back(optimizer: Optimizer, restore: Callable[[], None]) -> None:
    """Restore earlier weights and optimiser state, and halve the present learning rate."""
    rates = [group["lr"] for group in optimizer.param_groups]
    restore()
    for group, rate in zip(optimizer.param_groups, rates, strict=True):
        group["lr"] = rate / 2


class Rollback:
    """Keep the weights of the last look at which the loss was sound, and go back to them when it is not.

    Sound is finite and below a hundred times the first loss, or below 100 where the first was less than 1: losses are
    of the size of the image, which is about 1, and a scan of nothing begins at nearly 0. Going back starts Adam's
    moments afresh and halves the learning rate.

    Args:
        parameters: the fitted ones.
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
            A warning if it went back, else nothing.

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
                f"the loss is {loss:g} in iteration {iteration}, expected a finite number; check the settings, the "
                "measurement, its weights and the operator for NaN and infinity"
            )
        self.count += 1
        if self.count > self.limit:
            raise InputError(
                f"the fit diverged {self.count} times, last in iteration {iteration} (loss {loss:g}); give a smaller lr"
            )
        go_back(self.optimizer, self._restore)
        return (
            f"the fit diverged (loss {loss:g} in iteration {iteration}) and went back to iteration {self._sound[0]} "
            "with half the learning rate"
        )

    def _restore(self) -> None:
        for parameter, weight in zip(self.parameters, self._sound[1], strict=True):
            parameter.copy_(weight)
        self.optimizer.state.clear()
