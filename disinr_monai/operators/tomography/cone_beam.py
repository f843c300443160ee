"""Interpolation weights of cone-beam rays through a volume, made in chunks."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
import scipy.sparse
import torch
from torch import Tensor

from disinr_monai.numerics.linear_map import LinearMap
from disinr_monai.numerics.sparse import SparseMatrix
from disinr_monai.operators.tomography.geometry import check_numbers, checked_angles, checked_shape
from disinr_monai.operators.tomography.view_operator import ViewOperator


class ConeBeam(ViewOperator):
    r"""Cone-beam CT: circular orbit, flat panel; line integrals of a volume, in mm.

    .. math:: y_{v,r,c} = \int_{\text{ray } v,r,c} x \,\mathrm{d}\ell

    with the rays' samples of :class:`ConeRays`. In the plane of the orbit (z = 0) the
    geometry is that of :class:`FanBeam`; the panel's rows follow each other along :math:`+z`. Volume ``(1, H, W, D)``:
    rows along :math:`-y`, columns along :math:`+x`, slices along :math:`+z`, the centre in the middle of the orbit.
    Projections ``(1, n_views, n_rows, n_columns)``.

    **Memory.** If matrix and transpose fit into ``max_bytes`` (estimated as 64 bytes times rays times the longer
    side of a slice) they are stored; otherwise the weights are made again at every call, view by view, in about 300 MB
    of scratch: slow, but of any size. :attr:`is_stored` says which.

    Args:
        image_shape: ``(H, W, D)`` voxels.
        pixel_spacing: side of a voxel in mm.
        angles: view angles in radians.
        detector_shape: ``(rows, columns)`` of the panel.
        detector_spacing: width of a column in mm.
        detector_spacing_v: height of a row in mm; that of a column if not given.
        source_distance, detector_distance, detector_offset, axis_offset: as in :class:`FanBeam`, in mm.
        detector_offset_v: shift of the panel's centre along z, in mm.
        max_bytes: largest stored matrix with its transpose.

    Raises:
        ValueError: a size or length is not positive, angles are missing or not finite, the source is in the volume.
    """

    def __init__(
        self,
        *,
        image_shape: Sequence[int],
        pixel_spacing: float,
        angles: Sequence[float] | np.ndarray | Tensor,
        detector_shape: Sequence[int],
        detector_spacing: float,
        source_distance: float,
        detector_distance: float,
        detector_spacing_v: float | None = None,
        detector_offset: float = 0.0,
        detector_offset_v: float = 0.0,
        axis_offset: float = 0.0,
        max_bytes: int = 2**30,
    ) -> None:
        angles = checked_angles("ConeBeam", angles)
        shape = checked_shape("ConeBeam", image_shape, 3)
        spacing_v = detector_spacing if detector_spacing_v is None else detector_spacing_v
        check_numbers(
            "ConeBeam",
            {"detector_shape": min(detector_shape)},
            {
                "pixel_spacing": pixel_spacing,
                "detector_spacing": detector_spacing,
                "detector_spacing_v": spacing_v,
                "source_distance": source_distance,
            },
            {"detector_distance": detector_distance},
            {"detector_offset": detector_offset, "detector_offset_v": detector_offset_v, "axis_offset": axis_offset},
        )
        radius = math.hypot(*shape[:2]) / 2 * pixel_spacing
        if source_distance - abs(axis_offset) <= radius:
            raise ValueError(
                f"ConeBeam: source_distance must be larger than a slice's half diagonal of {radius:.1f} mm, "
                f"found {source_distance} mm"
            )
        n_rows, n_columns = (int(n) for n in detector_shape)
        self.rays = ConeRays(
            shape,
            float(pixel_spacing),
            tuple(angles.tolist()),
            (n_rows, n_columns),
            (float(detector_spacing), float(spacing_v)),
            (float(detector_offset), float(detector_offset_v)),
            float(source_distance),
            float(detector_distance),
            float(axis_offset),
        )
        near = source_distance / (source_distance + detector_distance)
        s = ((np.arange(n_columns) - (n_columns - 1) / 2) * detector_spacing + detector_offset) * near
        gamma = np.arctan(s / source_distance) - math.atan2(axis_offset, source_distance)
        spacing = detector_spacing * near
        super().__init__(
            (1, *shape),
            (1, len(angles), n_rows, n_columns),
            angles=angles,
            pixel_spacing=pixel_spacing,
            spacing=spacing,
            ray_area=spacing * spacing_v * near,
            positions=gamma,
            cell_step=spacing / source_distance,
            mirror=-2 * gamma,
        )
        n_bytes = 64 * len(angles) * n_rows * n_columns * max(shape[:2])
        self.matrix = SparseMatrix(self._matrix()) if n_bytes <= max_bytes else None
        # A buffer to know the precision by when there is no matrix.
        self.register_buffer("_like", torch.zeros(()), persistent=False)

    @property
    def is_stored(self) -> bool:
        """Whether the system matrix is in memory."""
        return self.matrix is not None

    def _matrix(self) -> scipy.sparse.csr_matrix:
        n_rays = math.prod(self.rays.detector_shape)
        blocks = []
        for view in range(len(self.rays.angles)):
            parts = []
            for rays, voxels, weights in self.rays.samples(view, torch.device("cpu")):
                rows = rays[:, None, None].expand(voxels.shape)
                used = weights > 0
                parts.append((weights[used].float().numpy(), rows[used].int().numpy(), voxels[used].int().numpy()))
            data, rows, columns = (np.concatenate(values) for values in zip(*parts, strict=True))
            blocks.append(scipy.sparse.csr_matrix((data, (rows, columns)), shape=(n_rays, math.prod(self.rays.shape))))
        return scipy.sparse.vstack(blocks, format="csr")

    def _take_views(self, part: ConeBeam) -> None:
        part.rays = replace(self.rays, angles=tuple(self.rays.angles[i] for i in self._taken(part)))
        if self.matrix is not None:
            n_rays = math.prod(self.rays.detector_shape)
            rows = (np.asarray(self._taken(part))[:, None] * n_rays + np.arange(n_rays)).ravel()
            part.matrix = self.matrix.rows(rows).to(self.angles.device, self.matrix.dtype)

    def _taken(self, part: ConeBeam) -> list[int]:
        place = {view: i for i, view in enumerate(self._views)}
        return [place[view] for view in part._views]

    def forward(self, image: Tensor) -> Tensor:
        """Volume ``(..., 1, H, W, D)`` to line integrals in mm ``(..., 1, n_views, n_rows, n_columns)``."""
        self._check_domain(image)
        batch = image.shape[:-4]
        columns = image.reshape(math.prod(batch), -1)
        if self.is_stored:
            projections = self.matrix(columns.T.contiguous()).T
        else:
            projections = LinearMap.apply(columns, self.rays.project, self.rays.back_project)
        return projections.reshape(*batch, *self.range_shape)

    def adjoint(self, measurement: Tensor) -> Tensor:
        """Projections ``(..., 1, n_views, n_rows, n_columns)`` to their plain back-projection ``(..., 1, H, W, D)``."""
        self._check_range(measurement)
        batch = measurement.shape[:-4]
        columns = measurement.reshape(math.prod(batch), -1)
        if self.is_stored:
            image = self.matrix.transposed(columns.T.contiguous()).T
        else:
            image = LinearMap.apply(columns, self.rays.back_project, self.rays.project)
        return image.reshape(*batch, *self.domain_shape)

    def direct_inverse(self, measurement: Tensor) -> Tensor:
        r"""Filtered back-projection of Feldkamp, Davis and Kress (J. Opt. Soc. Am. A 1:612, 1984).

        As :meth:`FanBeam.direct_inverse <disinr_monai.operators.RayOperator.direct_inverse>` row by row, with the
        cells' factor :math:`d_s / \sqrt{d_s^2 + s^2 + v^2}` and bilinear interpolation on the panel. Exact in the plane
        of the orbit, too low far from it. Short scans take the weights of the middle row.
        """
        self._check_range(measurement)
        _, n_views, n_rows, n_columns = self.range_shape
        rays, batch = self.rays, measurement.shape[:-4]
        near = rays.source_distance / (rays.source_distance + rays.detector_distance)
        s = (torch.arange(n_columns).to(measurement) - (n_columns - 1) / 2) * rays.detector_spacing[0]
        v = (torch.arange(n_rows).to(measurement) - (n_rows - 1) / 2) * rays.detector_spacing[1]
        s, v = (s + rays.detector_offset[0]) * near, ((v + rays.detector_offset[1]) * near)[:, None]
        factor = rays.source_distance / torch.sqrt(rays.source_distance**2 + s**2 + v**2)
        weighted = measurement.reshape(-1, n_views, n_rows, n_columns) * factor
        weighted = weighted * (1 + s * (rays.axis_offset / rays.source_distance**2))
        if self.shares is not None:
            weighted = weighted * self.shares.to(measurement.dtype)[:, None]
        filtered = self.inverse_ramp(torch.nn.functional.pad(weighted, self._beyond))
        image = filtered.new_zeros(len(filtered), *self.domain_shape[1:])
        for view, angle in enumerate(rays.angles):
            grid, divisor = self._project_voxels(angle, filtered, near)
            values = torch.nn.functional.grid_sample(
                filtered[:, view, None], grid.expand(len(filtered), -1, -1, -1), align_corners=True
            )
            image += values[:, 0].reshape(image.shape) / divisor
        return (image * (torch.pi / n_views)).reshape(*batch, *self.domain_shape)

    def _project_voxels(self, angle: float, filtered: Tensor, near: float) -> tuple[Tensor, Tensor]:
        """Places on the filtered panel for ``grid_sample`` ``(1, H * W, D, 2)``, and the divisors ``(H, W, 1)``."""
        rays = self.rays
        height, width, depth = rays.shape
        x = (torch.arange(width).to(filtered) - (width - 1) / 2) * rays.voxel
        y = ((height - 1) / 2 - torch.arange(height).to(filtered))[:, None] * rays.voxel
        z = (torch.arange(depth).to(filtered) - (depth - 1) / 2) * rays.voxel
        along = 1 + (y * math.cos(angle) - x * math.sin(angle)) / rays.source_distance
        s = (x * math.cos(angle) + y * math.sin(angle) + rays.axis_offset) / along
        v = z / along[..., None]
        n_rows, n_columns = filtered.shape[-2:]
        column = (s / near - rays.detector_offset[0]) / rays.detector_spacing[0] + (self.range_shape[-1] - 1) / 2
        row = (v / near - rays.detector_offset[1]) / rays.detector_spacing[1] + (n_rows - 1) / 2
        across = 2 * (column + self._beyond[0]) / max(n_columns - 1, 1) - 1
        down = 2 * row / max(n_rows - 1, 1) - 1
        grid = torch.stack((across[..., None].expand(down.shape), down), dim=-1)
        return grid.reshape(1, height * width, depth, 2), along[..., None] ** 2


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

    def project(self, volumes: Tensor) -> Tensor:
        """Line integrals ``(B, rays)`` of flat volumes ``(B, voxels)``."""
        n_rays = math.prod(self.detector_shape)
        result = volumes.new_zeros(len(volumes), len(self.angles) * n_rays)
        for view in range(len(self.angles)):
            for chosen, voxels, weights in self.samples(view, volumes.device):
                weights = weights.to(volumes.dtype)
                for out, volume in zip(result, volumes, strict=True):
                    out[view * n_rays + chosen] = (volume[voxels] * weights).sum((1, 2))
        return result

    def back_project(self, projections: Tensor) -> Tensor:
        """The adjoint of :meth:`project`, with the same weights."""
        n_rays = math.prod(self.detector_shape)
        result = projections.new_zeros(len(projections), math.prod(self.shape))
        for view in range(len(self.angles)):
            for chosen, voxels, weights in self.samples(view, projections.device):
                weights = weights.to(projections.dtype)
                for out, values in zip(result, projections, strict=True):
                    spread = weights * values[view * n_rays + chosen, None, None]
                    out.index_add_(0, voxels.flatten(), spread.flatten())
        return result

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
