"""Parts of a measurement: held out for validation, taken in turn by ordered subsets, or drawn at random."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, Self

import numpy as np
import torch
from torch import Tensor, nn

from disinr_monai.operators.calibration import acs_size, dense_radius, middle

# The operator of a part of the measurement, and the function that takes this part out of one.
Restriction = tuple[nn.Module, Callable[[Tensor], Tensor]]

# Fewer readouts than this are too few to hold out whole ones (a spiral of one or two interleaves).
_FEW = 4

# Share of outer lines on one grid that makes them evenly spaced; side of the middle of k-space that is never held out;
# and the fewest lines of the centre that are a test.
_REGULAR, _MIDDLE, _LEAST_LINES = 0.9, 8, 4


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


class KspacePartition(Partition):
    """Partition of Cartesian k-space by lines, or by samples of a two-dimensional pattern."""

    @property
    def gaps(self) -> str:
        """``"lines"``, or ``"samples"`` where the pattern is two-dimensional."""
        return "lines" if self.operator.has_lines else "samples"

    def held_out_samples(self, fraction: float, generator: torch.Generator) -> Tensor:
        """Hold out k-space positions, the same in all coils, outside the middle twentieth of each axis.

        The middle holds nearly all of the energy: without it nothing can be fitted, and its samples are no test.
        """
        mask = self._sampled()
        height, width = mask.shape
        held = (torch.rand(height, width, generator=generator) < fraction) & mask
        held[middle(height, 2 * max(height // 40, 1)), middle(width, 2 * max(width // 40, 1))] = False
        return held.expand(self.operator.range_shape)

    def held_out_blocks(self, fraction: float, generator: torch.Generator) -> Tensor:
        """Hold out whole lines beside the fully sampled centre, or samples where the pattern is two-dimensional."""
        if not self.operator.has_lines:
            return self._scattered(fraction, generator).expand(self.operator.range_shape)
        mask, outer = self._sampled(), self._outer_lines()
        if len(outer) < 2:  # a full scan
            return self.held_out_samples(fraction, generator)
        order = torch.randperm(len(outer), generator=generator)
        held = torch.zeros_like(mask)
        held[:, outer[order[: max(round(fraction * len(outer)), 1)]]] = True
        return (held & mask).expand(self.operator.range_shape)

    def held_out_centre(self, generator: torch.Generator) -> tuple[Tensor, float] | None:
        """Hold out so much of the fully sampled centre that it is sampled like the rest.

        Between evenly spaced lines, held-out ones of the same spacing cannot show the ghosts which that spacing makes;
        those of the centre in between can, and signal rules there. Its middle stays, for the phase. None where lines
        are spaced at random: any of them shows what the others leave open.
        """
        mask = self._sampled()
        centre = torch.zeros_like(mask)
        if self.operator.has_lines:
            outer = self._outer_lines()
            if len(outer) < 2:
                return None
            gap = int(torch.diff(outer).mode().values)
            first = int((outer % gap).mode().values)
            if float((outer % gap == first).float().mean()) < _REGULAR:
                return None
            lines = mask.any(0)
            lines[outer] = False
            centre[:, lines] = True
            held = centre & (torch.arange(len(lines)) % gap != first)
            held[:, middle(len(lines), _MIDDLE)] = False
        else:
            centre[tuple(middle(n, m) for n, m in zip(mask.shape, acs_size(mask.numpy()), strict=True))] = True
            density = float((mask & ~centre).sum()) / max(int((~centre).sum()), 1)
            held = centre & (torch.rand(mask.shape, generator=generator) > density)
            held[tuple(middle(n, _MIDDLE) for n in mask.shape)] = False
        held &= mask
        if int(held.any(0).sum()) < _LEAST_LINES:
            return None
        return held.expand(self.operator.range_shape), float(centre.float().mean())

    def training_split(self, index: int, generator: torch.Generator) -> Tensor:
        """Hold out a random 15 to 45 % of the samples outside the fully sampled centre, or every second line.

        Phase-encoding lines where the pattern consists of lines, else single samples.
        """
        keep = self._sampled()
        if not self.operator.has_lines:
            share = 0.15 + 0.3 * float(torch.rand((), generator=generator))
            return (keep & ~self._scattered(share, generator)).expand(self.operator.range_shape)
        outer = self._outer_lines()
        if len(outer) < 2:  # a full scan
            return keep & ~self.held_out_samples(0.3, generator)
        # Every second one: lines on the same grid as those that are kept cannot show the ghosts which that grid makes.
        if torch.rand((), generator=generator) < 0.6:
            held = outer[int(torch.randint(2, (), generator=generator)) :: 2]
        else:
            share = 0.15 + 0.3 * float(torch.rand((), generator=generator))
            order = torch.randperm(len(outer), generator=generator)
            held = outer[order[: max(round(share * len(outer)), 1)]]
        keep[:, held] = False
        return keep.expand(self.operator.range_shape)

    def restrict(self, keep: Tensor) -> Restriction:
        """Keep in all coils the samples that are kept in the first one."""
        part = self.operator.with_samples(keep.expand(self.operator.range_shape)[0])
        kept = part.sampled
        return self._composed(part), lambda values: values * kept

    def _sampled(self) -> Tensor:
        return self.operator.sampled.cpu() > 0

    def _scattered(self, fraction: float, generator: torch.Generator) -> Tensor:
        """A share of the samples outside the calibration block, ``(H, W)``: gaps of the kind that such a scan has."""
        outside = self._sampled()
        block = acs_size(outside.numpy())
        outside[tuple(middle(n, size) for n, size in zip(outside.shape, block, strict=True))] = False
        return (torch.rand(outside.shape, generator=generator) < fraction) & outside

    def _outer_lines(self) -> Tensor:
        """Measured lines that do not belong to the fully sampled centre."""
        lines = self._sampled().any(0)
        centre = len(lines) // 2
        first = last = centre
        while first > 0 and lines[first - 1]:
            first -= 1
        while last < len(lines) and lines[last]:
            last += 1
        # Of a partial Fourier scan one side is sampled to its end: the centre reaches as far to the other side only.
        reach = min(centre - first, last - centre) + 2
        lines[max(first, centre - reach) : min(last, centre + reach)] = False
        return torch.nonzero(lines).flatten()


class ReadoutPartition(Partition):
    """Partition of k-space along a trajectory by whole readouts, if there are enough of them."""

    gaps = "readouts"

    def held_out_samples(self, fraction: float, generator: torch.Generator) -> Tensor:
        """Hold out whole readouts (at least one), or samples outside the dense centre if there are only few."""
        shape, trajectory = self.operator.range_shape, self.operator.trajectory
        measured = self.operator.root_density.cpu() > 0
        if shape[1] >= _FEW:
            return (_some_of(shape[1], fraction, generator)[:, None] & measured).expand(shape)
        outside = torch.from_numpy(np.linalg.norm(trajectory, axis=-1) > dense_radius(trajectory))
        held = (torch.rand(measured.shape, generator=generator) < fraction) & measured & outside
        return held.expand(shape)

    def training_split(self, index: int, generator: torch.Generator) -> Tensor:
        """Hold out whole readouts: a random 15 to 45 %, or every second one."""
        shape = self.operator.range_shape
        if shape[1] >= _FEW and torch.rand((), generator=generator) < 0.4:
            keep = torch.ones(shape[1:], dtype=torch.bool)
            keep[int(torch.randint(2, (), generator=generator)) :: 2] = False
            return keep.expand(shape)
        return ~self.held_out_samples(0.15 + 0.3 * float(torch.rand((), generator=generator)), generator)

    def restrict(self, keep: Tensor) -> Restriction:
        """Keep in all coils the samples that are kept in the first one; readouts without any are left out."""
        keep = keep.expand(self.operator.range_shape)[0].to(self.operator.root_density.device)
        readouts = torch.nonzero(keep.any(-1)).flatten()
        kept = keep[readouts].to(self.operator.root_density)
        part = self.operator.with_readouts(readouts, kept)
        return self._composed(part), lambda values: values[..., readouts, :] * kept


class ViewPartition(Partition):
    """Partition of projections ``(1, n_views, ...)`` by whole views: the ramp filter mixes the rays of one."""

    gaps = "views"
    is_typical = True

    def held_out_blocks(self, fraction: float, generator: torch.Generator) -> Tensor:
        """Hold out whole views (at least one)."""
        return self._of_views(_some_of(self.operator.range_shape[1], fraction, generator))

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


def _some_of(n: int, fraction: float, generator: torch.Generator) -> Tensor:
    """Boolean ``(n,)``, about ``fraction`` of it True: at least one, never all."""
    chosen = torch.zeros(n, dtype=torch.bool)
    chosen[torch.randperm(n, generator=generator)[: min(max(round(fraction * n), 1), n - 1)]] = True
    return chosen
