"""Expected counts, given the line integrals that an operator computes.

A case of counts (PET) carries one of these under ``count_model``. Methods with a likelihood of counts use it; all
others get the measurement corrected by it (:meth:`CountModel.corrected`), which linear least squares understands.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable

import torch
from torch import Tensor, nn


class CountModel(nn.Module, ABC):
    """From ``A x`` to expected counts, and from counts to an estimate of ``A x``. Moves with the case's device.

    Args:
        background: expected randoms and scatter, of the measurement's shape (0 if not given).
    """

    background: Tensor

    def __init__(self, background: Tensor | None = None) -> None:
        super().__init__()
        self.register_buffer("background", torch.zeros(()) if background is None else background, persistent=False)

    @abstractmethod
    def expected(self, integrals: Tensor) -> Tensor:
        r"""Expected counts :math:`\hat y` for ``A x``."""

    @abstractmethod
    def corrected(self, counts: Tensor) -> Tensor:
        """Estimate of ``A x`` from the counts alone, for methods without a count model."""

    @abstractmethod
    def part(self, select: Callable[[Tensor], Tensor]) -> CountModel:
        """The model of a part of the measurement; ``select`` is that of a ``Restriction``."""


class EmissionCounts(CountModel):
    r"""Emission: :math:`\hat y = A x + b`, the attenuation is in :math:`A`."""

    def expected(self, integrals: Tensor) -> Tensor:
        return integrals + self.background

    def corrected(self, counts: Tensor) -> Tensor:
        return counts - self.background

    def part(self, select: Callable[[Tensor], Tensor]) -> EmissionCounts:
        return EmissionCounts(select(self.background) if self.background.ndim else self.background)


class TransmissionCounts(CountModel):
    r"""Transmission: :math:`\hat y = c\, e^{-A x} + b` with the blank scan :math:`c`.

    Args:
        blank: expected counts without the object, in the time of the transmission scan.
        background: see :class:`CountModel`.
    """

    blank: Tensor

    def __init__(self, blank: Tensor, background: Tensor | None = None) -> None:
        super().__init__(background)
        self.register_buffer("blank", blank, persistent=False)

    def expected(self, integrals: Tensor) -> Tensor:
        return self.blank * torch.exp(-integrals) + self.background

    def corrected(self, counts: Tensor) -> Tensor:
        r""":math:`\log c / \max(y - b, \tfrac12)`: half a count stands for none, which has no logarithm."""
        return torch.log(self.blank / (counts - self.background).clamp(min=0.5))

    def part(self, select: Callable[[Tensor], Tensor]) -> TransmissionCounts:
        return TransmissionCounts(select(self.blank), select(self.background) if self.background.ndim else None)
