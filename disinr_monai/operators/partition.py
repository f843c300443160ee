"""Parts of a measurement: held out for validation, taken in turn by ordered subsets, or drawn at random."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, Self

import torch
from torch import Tensor, nn

# The operator of a part of the measurement, and the function that takes this part out of one.
Restriction = tuple[nn.Module, Callable[[Tensor], Tensor]]


class Part(NamedTuple):
    """A part of a measurement that depends on few points of the image (:meth:`Partition.draw`).

    Attributes:
        at: takes the ``n`` points ``(D, n)`` that the part depends on out of the voxel centres ``(D, *S)``.
        operator: image values ``(C, n)`` there to the part.
        select: takes the part out of the measurement (or out of its weights).
    """

    at: Callable[[Tensor], Tensor]
    operator: nn.Module
    select: Callable[[Tensor], Tensor]


class Partition:
    """Division of any operator's measurement, sample by sample.

    Masks are boolean over the operator's ``range_shape``, generators are on the CPU.

    Args:
        operator: any :class:`~disinr_monai.operators.LinearOperator`.
        inner: operators of parts are composed with this one (``part @ inner``): those of ``operator @ inner``.
    """

    # The gaps that a scan has: "samples" of it anywhere, "lines" of k-space, "readouts" of a trajectory or "views".
    gaps = "samples"

    # Whether a held-out block says as much of every frequency of the image as the rest: a projection does, a line
    # beside the centre of k-space does not.
    is_typical = False

    def __init__(self, operator: Any, inner: Any = None) -> None:
        self.operator, self.inner = operator, inner

    def after(self, inner: Any) -> Self:
        """Divide the measurement of ``operator @ inner`` in the same way."""
        return type(self)(self.operator, inner if self.inner is None else self.inner @ inner)

    def held_out_samples(self, fraction: float, generator: torch.Generator) -> Tensor:
        """Mask of the samples to hold out of a fit, ``fraction`` (between 0 and 1) of the measured ones."""
        return torch.rand(self.operator.range_shape, generator=generator) < fraction

    def held_out_blocks(self, fraction: float, generator: torch.Generator) -> Tensor:
        """As :meth:`held_out_samples`, but of whole projections or lines: gaps of the kind that the scan itself has."""
        return self.held_out_samples(fraction, generator)

    def held_out_centre(self, generator: torch.Generator) -> tuple[Tensor, float] | None:
        """Mask of samples to hold out of a part that is measured more densely than the rest, and the part's share.

        None by default: no part is.
        """
        return None

    def training_split(self, index: int, generator: torch.Generator) -> Tensor:
        """Mask of the part of a scan to reconstruct from when the rest is to be predicted.

        Args:
            index: number of the split; some operators have a fixed series of them.
            generator: random generator on the CPU.
        """
        return ~self.held_out_samples(0.3, generator)

    def restrict(self, keep: Tensor) -> Restriction:
        """Restrict the operator to some samples.

        Args:
            keep: boolean mask; what it leaves out has no influence on the part.

        Returns:
            The operator of the samples that are kept, and the function that extracts them from a measurement.
        """
        return self._composed(self.operator.masked(keep)), lambda values: values * keep.to(values.device)

    def subsets(self, size: int) -> list[Restriction]:
        """Ordered subsets of about ``size`` evenly spread projections each; the whole measurement by default."""
        return [(self._composed(self.operator), lambda values: values)]

    def draw(self, generator: torch.Generator | None = None, among: Tensor | None = None) -> Part | None:
        """A random part of the measurement for one step of a fit; None (default) if each depends on the whole image.

        Args:
            generator: PyTorch's own by default.
            among: boolean mask; what it leaves out is not drawn.
        """
        return None

    def _composed(self, part: Any) -> Any:
        return part if self.inner is None else part @ self.inner


class ViewPartition(Partition):
    """Partition of projections ``(1, n_views, ...)`` by whole views: the ramp filter mixes the rays of one."""

    gaps = "views"
    is_typical = True

    def held_out_blocks(self, fraction: float, generator: torch.Generator) -> Tensor:
        """Hold out whole views (at least one)."""
        return self._of_views(some_of(self.operator.range_shape[1], fraction, generator))

    held_out_samples = held_out_blocks

    def training_split(self, index: int, generator: torch.Generator) -> Tensor:
        """Every second view, the other ones, every fourth, all but these, and so on."""
        views, first = torch.arange(self.operator.range_shape[1]), index // 4
        kept = (views % 2 == first % 2, views % 2 == (first + 1) % 2, views % 4 == first % 4, views % 4 != first % 4)
        return self._of_views(kept[index % 4])

    def restrict(self, keep: Tensor) -> Restriction:
        """The operator of the views of which anything is kept (whole views only: the rest of one would be lost)."""
        kept = keep.expand(self.operator.range_shape)[0].flatten(1).any(-1)
        return self._with_views(torch.nonzero(kept).flatten().tolist())

    def subsets(self, size: int) -> list[Restriction]:
        """Interleaved views, about ``size`` in each, as many in one as in the other."""
        n_views = self.operator.range_shape[1]
        count = next((m for m in range(max(n_views // size, 1), 0, -1) if n_views % m == 0), 1)
        if count == 1:
            return super().subsets(size)
        return [self._with_views(list(range(first, n_views, count))) for first in range(count)]

    def _with_views(self, views: Sequence[int]) -> Restriction:
        step = views[1] - views[0] if len(views) > 1 else 1
        evenly = step > 0 and views == list(range(views[0], views[-1] + 1, step))
        taken = slice(views[0], views[-1] + 1, step) if evenly else views
        rest = (slice(None),) * (len(self.operator.range_shape) - 2)
        return self._composed(self.operator.with_views(views)), lambda values: values[(..., taken, *rest)]

    def _of_views(self, values: Tensor) -> Tensor:
        """One value a view, as a measurement."""
        shape = self.operator.range_shape
        return values.reshape(1, -1, *(1,) * (len(shape) - 2)).expand(shape)


class CountPartition(ViewPartition):
    """Partition of views of counts: samples are held out one by one (no filter mixes them), blocks are views."""

    held_out_samples = Partition.held_out_samples


def some_of(n: int, fraction: float, generator: torch.Generator) -> Tensor:
    """Boolean ``(n,)``, about ``fraction`` of it True: at least one, never all."""
    chosen = torch.zeros(n, dtype=torch.bool)
    chosen[torch.randperm(n, generator=generator)[: min(max(round(fraction * n), 1), n - 1)]] = True
    return chosen
