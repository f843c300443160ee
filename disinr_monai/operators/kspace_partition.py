"""Parts of k-space: lines, samples and readouts."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from disinr_monai.operators.calibration import acs_size, dense_radius, middle
from disinr_monai.operators.partition import Partition, Restriction, some_of

# Fewer readouts than this are too few to hold out whole ones (a spiral of one or two interleaves).
_FEW = 4

# Share of outer lines on one grid that makes them evenly spaced; side of the middle of k-space that is never held out;
# and the fewest lines of the centre that are a test.
_REGULAR, _MIDDLE, _LEAST_LINES = 0.9, 8, 4


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
            return (some_of(shape[1], fraction, generator)[:, None] & measured).expand(shape)
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
