"""Interpolation weights of cone-beam rays through a volume, made in chunks."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

# Samples (rays times planes) worked on at a time: about 250 bytes each.
_SAMPLES = 1_000_000


@dataclass(frozen=True)
class ConeRays:
    r"""Rays of a cone beam on a circular orbit, and their samples in a volume.

    A ray is sampled where it crosses the planes of voxel centres across its main direction (rows or columns),
    bilinearly between the four neighbours there; a sample stands for the ray's length from plane to plane (Joseph, IEEE
    Trans. Med. Imaging 1:192, 1982).

    Args:
        shape: ``(H, W, D)``: rows along -y, columns along +x, slices along +z.
        voxel: side in mm.
        angles: of the views.
        detector_shape: ``(rows, columns)``; rows along +z.
        detector_spacing: of columns and rows, mm.
        detector_offset: of the detector's centre from the central ray along columns and rows, mm.
        source_distance, detector_distance, axis_offset: as in :class:`disinr_monai.operators.FanBeam`, mm.
    """

    shape: tuple[int, int, int]
    voxel: float
    angles: tuple[float, ...]
    detector_shape: tuple[int, int]
    detector_spacing: tuple[float, float]
    detector_offset: tuple[float, float]
    source_distance: float
    detector_distance: float
    axis_offset: float

    def view(self, angle: float) -> tuple[Tensor, Tensor]:
        """Source ``(3,)`` and directions ``(rows * columns, 3)`` as (row, column, slice) of voxels, float64."""
        n_rows, n_columns = self.detector_shape
        u = (torch.arange(n_columns, dtype=torch.float64) - (n_columns - 1) / 2) * self.detector_spacing[0]
        v = (torch.arange(n_rows, dtype=torch.float64) - (n_rows - 1) / 2) * self.detector_spacing[1]
        u, v = u + self.detector_offset[0], v + self.detector_offset[1]
        turn = torch.tensor(angle, dtype=torch.float64)
        cosine, sine = torch.cos(turn), torch.sin(turn)
        far = self.source_distance + self.detector_distance
        # From (x, y, z) in mm to voxels: rows run along -y.
        x = u * cosine - far * sine
        y = u * sine + far * cosine
        across = torch.stack((-y, x), dim=-1)[None].expand(n_rows, -1, -1)
        along = v[:, None, None].expand(-1, n_columns, 1)
        directions = torch.cat((across, along), dim=-1).reshape(-1, 3) / self.voxel
        source_x = self.source_distance * sine - self.axis_offset * cosine
        source_y = -self.source_distance * cosine - self.axis_offset * sine
        middle = (torch.tensor(self.shape, dtype=torch.float64) - 1) / 2
        source = torch.stack((-source_y, source_x, torch.zeros_like(source_x))) / self.voxel + middle
        return source, directions

    def samples(self, view: int, device: torch.device) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
        """Chunks of one view: rays ``(n,)``, flat voxels and weights in mm ``(n, planes, 4)`` (0 outside)."""
        source, directions = (values.to(device) for values in self.view(self.angles[view]))
        by_rows = directions[:, 0].abs() >= directions[:, 1].abs()
        for axis, chosen in ((0, by_rows), (1, ~by_rows)):
            rays = torch.nonzero(chosen).flatten()
            for part in rays.split(max(_SAMPLES // self.shape[axis], 1)):
                if len(part):
                    yield part, *self._cross(source, directions[part], axis)

    def _cross(self, source: Tensor, directions: Tensor, axis: int) -> tuple[Tensor, Tensor]:
        main, other = directions[:, axis, None], directions[:, 1 - axis, None]
        planes = torch.arange(self.shape[axis], device=source.device, dtype=source.dtype)
        along = (planes - source[axis]) / main
        across = source[1 - axis] + along * other
        slices = source[2] + along * directions[:, 2, None]
        low_a, low_s = across.floor(), slices.floor()
        share_a, share_s = across - low_a, slices - low_s
        length = self.voxel * torch.linalg.vector_norm(directions, dim=1, keepdim=True) / main.abs()
        strides = (self.shape[1] * self.shape[2], self.shape[2])
        n_across, n_slices = self.shape[1 - axis], self.shape[2]
        voxels, weights = [], []
        for step_a, part_a in ((0, 1 - share_a), (1, share_a)):
            for step_s, part_s in ((0, 1 - share_s), (1, share_s)):
                a, s = low_a + step_a, low_s + step_s
                inside = (a >= 0) & (a < n_across) & (s >= 0) & (s < n_slices)
                flat = planes * strides[axis] + a * strides[1 - axis] + s
                voxels.append(torch.where(inside, flat, 0.0).long())
                weights.append(torch.where(inside, length * part_a * part_s, 0.0))
        return torch.stack(voxels, dim=-1), torch.stack(weights, dim=-1)
