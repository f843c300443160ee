"""Cone-beam CT: projection of a volume with a stored matrix, or with weights made in chunks."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import replace
from functools import partial

import numpy as np
import scipy.sparse
import torch
from torch import Tensor

from disinr_monai.numerics.linear_map import LinearMap
from disinr_monai.numerics.sparse import SparseMatrix
from disinr_monai.operators.tomography.geometry import ConeGeometry
from disinr_monai.operators.tomography.view_operator import ViewOperator


class ConeBeam(ViewOperator):
    r"""Cone-beam CT: circular orbit, flat panel; line integrals of a volume, in mm.

    .. math:: y_{v,r,c} = \int_{\text{ray } v,r,c} x \,\mathrm{d}\ell

    A ray is sampled where it crosses the planes of voxel centres across its main direction (rows or columns),
    bilinearly between the four neighbours there; a sample stands for the ray's length from plane to plane (Joseph, IEEE
    Trans. Med. Imaging 1:192, 1982). Volume ``(1, H, W, D)``, projections ``(1, n_views, n_rows, n_columns)``.

    **Memory.** If matrix and transpose fit into ``max_bytes`` (estimated as 64 bytes times rays times the longer
    side of a slice) they are stored; otherwise the weights are made again at every call, view by view, in about 300 MB
    of scratch: slow, but of any size. :attr:`is_stored` says which.

    Args:
        geometry: of the scan.
        max_bytes: largest stored matrix with its transpose.
    """

    geometry: ConeGeometry

    def __init__(self, geometry: ConeGeometry, *, max_bytes: int = 2**30) -> None:
        super().__init__(geometry)
        n_bytes = 64 * math.prod(geometry.range_shape) * max(geometry.image_shape[:2])
        self.matrix = SparseMatrix(self._matrix()) if n_bytes <= max_bytes else None
        # A buffer to know the precision by when there is no matrix.
        self.register_buffer("_like", torch.zeros(()), persistent=False)

    @property
    def is_stored(self) -> bool:
        """True if the system matrix is in memory."""
        return self.matrix is not None

    def _matrix(self) -> scipy.sparse.csr_matrix:
        shape = (math.prod(self.geometry.detector_shape), math.prod(self.geometry.image_shape))
        blocks = []
        for view in range(len(self.geometry.angles)):
            parts = []
            for rays, voxels, weights in _samples(self.geometry, view, torch.device("cpu")):
                rows = rays[:, None, None].expand(voxels.shape)
                used = weights > 0
                parts.append((weights[used].float().numpy(), rows[used].int().numpy(), voxels[used].int().numpy()))
            data, rows, columns = (np.concatenate(values) for values in zip(*parts, strict=True))
            blocks.append(scipy.sparse.csr_matrix((data, (rows, columns)), shape=shape))
        return scipy.sparse.vstack(blocks, format="csr")

    def _take_views(self, part: ConeBeam) -> None:
        taken = [self._views.index(view) for view in part._views]
        part.geometry = replace(self.geometry, angles=tuple(self.geometry.angles[i] for i in taken))
        if self.matrix is not None:
            n_rays = math.prod(self.geometry.detector_shape)
            rows = (np.asarray(taken)[:, None] * n_rays + np.arange(n_rays)).ravel()
            part.matrix = self.matrix.rows(rows).to(self.angles.device, self.matrix.dtype)

    def forward(self, image: Tensor) -> Tensor:
        """Volume ``(..., 1, H, W, D)`` to line integrals in mm ``(..., 1, n_views, n_rows, n_columns)``."""
        self._check_domain(image)
        batch = image.shape[:-4]
        columns = image.reshape(math.prod(batch), -1)
        if self.is_stored:
            projections = self.matrix(columns.T.contiguous()).T
        else:
            maps = partial(_project, self.geometry), partial(_back_project, self.geometry)
            projections = LinearMap.apply(columns, *maps)
        return projections.reshape(*batch, *self.range_shape)

    def adjoint(self, measurement: Tensor) -> Tensor:
        """Projections ``(..., 1, n_views, n_rows, n_columns)`` to their plain back-projection ``(..., 1, H, W, D)``."""
        self._check_range(measurement)
        batch = measurement.shape[:-4]
        columns = measurement.reshape(math.prod(batch), -1)
        if self.is_stored:
            image = self.matrix.transposed(columns.T.contiguous()).T
        else:
            maps = partial(_back_project, self.geometry), partial(_project, self.geometry)
            image = LinearMap.apply(columns, *maps)
        return image.reshape(*batch, *self.domain_shape)

    def direct_inverse(self, measurement: Tensor) -> Tensor:
        r"""Filtered back-projection of Feldkamp, Davis and Kress (J. Opt. Soc. Am. A 1:612, 1984).

        As :meth:`FanBeam.direct_inverse <disinr_monai.operators.RayOperator.direct_inverse>` row by row, with the
        cells' factor :math:`d_s / \sqrt{d_s^2 + s^2 + v^2}` and bilinear interpolation on the panel. Exact in the plane
        of the orbit, too low far from it. Short scans take the weights of the middle row.
        """
        self._check_range(measurement)
        _, n_views, n_rows, n_columns = self.range_shape
        cone, batch = self.geometry, measurement.shape[:-4]
        near = cone.source_distance / (cone.source_distance + cone.detector_distance)
        s = (torch.arange(n_columns).to(measurement) - (n_columns - 1) / 2) * cone.detector_spacing
        v = (torch.arange(n_rows).to(measurement) - (n_rows - 1) / 2) * cone.detector_spacing_v
        s, v = (s + cone.detector_offset) * near, ((v + cone.detector_offset_v) * near)[:, None]
        factor = cone.source_distance / torch.sqrt(cone.source_distance**2 + s**2 + v**2)
        weighted = measurement.reshape(-1, n_views, n_rows, n_columns) * factor
        weighted = weighted * (1 + s * (cone.axis_offset / cone.source_distance**2))
        if self.shares is not None:
            weighted = weighted * self.shares.to(measurement.dtype)[:, None]
        filtered = self.inverse_ramp(torch.nn.functional.pad(weighted, self._beyond))
        image = filtered.new_zeros(len(filtered), *self.domain_shape[1:])
        for view, angle in enumerate(cone.angles):
            grid, divisor = self._project_voxels(angle, filtered, near)
            values = torch.nn.functional.grid_sample(
                filtered[:, view, None], grid.expand(len(filtered), -1, -1, -1), align_corners=True
            )
            image += values[:, 0].reshape(image.shape) / divisor
        return (image * (torch.pi / n_views)).reshape(*batch, *self.domain_shape)

    def _project_voxels(self, angle: float, filtered: Tensor, near: float) -> tuple[Tensor, Tensor]:
        """Places on the filtered panel for ``grid_sample`` ``(1, H * W, D, 2)``, and the divisors ``(H, W, 1)``."""
        cone = self.geometry
        height, width, depth = cone.image_shape
        x = (torch.arange(width).to(filtered) - (width - 1) / 2) * cone.pixel_spacing
        y = ((height - 1) / 2 - torch.arange(height).to(filtered))[:, None] * cone.pixel_spacing
        z = (torch.arange(depth).to(filtered) - (depth - 1) / 2) * cone.pixel_spacing
        along = 1 + (y * math.cos(angle) - x * math.sin(angle)) / cone.source_distance
        s = (x * math.cos(angle) + y * math.sin(angle) + cone.axis_offset) / along
        v = z / along[..., None]
        n_rows, n_columns = filtered.shape[-2:]
        column = (s / near - cone.detector_offset) / cone.detector_spacing + (self.range_shape[-1] - 1) / 2
        row = (v / near - cone.detector_offset_v) / cone.detector_spacing_v + (n_rows - 1) / 2
        across = 2 * (column + self._beyond[0]) / max(n_columns - 1, 1) - 1
        down = 2 * row / max(n_rows - 1, 1) - 1
        grid = torch.stack((across[..., None].expand(down.shape), down), dim=-1)
        return grid.reshape(1, height * width, depth, 2), along[..., None] ** 2


def _project(cone: ConeGeometry, volumes: Tensor) -> Tensor:
    """Line integrals ``(B, rays)`` of flat volumes ``(B, voxels)``, without a matrix."""
    n_rays = math.prod(cone.detector_shape)
    result = volumes.new_zeros(len(volumes), len(cone.angles) * n_rays)
    for view in range(len(cone.angles)):
        for chosen, voxels, weights in _samples(cone, view, volumes.device):
            weights = weights.to(volumes.dtype)
            for out, volume in zip(result, volumes, strict=True):
                out[view * n_rays + chosen] = (volume[voxels] * weights).sum((1, 2))
    return result


def _back_project(cone: ConeGeometry, projections: Tensor) -> Tensor:
    """The adjoint of :func:`_project`, with the same weights."""
    n_rays = math.prod(cone.detector_shape)
    result = projections.new_zeros(len(projections), math.prod(cone.image_shape))
    for view in range(len(cone.angles)):
        for chosen, voxels, weights in _samples(cone, view, projections.device):
            weights = weights.to(projections.dtype)
            for out, values in zip(result, projections, strict=True):
                spread = weights * values[view * n_rays + chosen, None, None]
                out.index_add_(0, voxels.flatten(), spread.flatten())
    return result


# Samples (rays times planes) worked on at a time: about 250 bytes each.
_SAMPLES = 1_000_000


def _samples(cone: ConeGeometry, view: int, device: torch.device) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
    """Chunks of one view: rays ``(n,)``, flat voxels and weights in mm ``(n, planes, 4)`` (0 outside)."""
    source, directions = (values.to(device) for values in _rays(cone, cone.angles[view]))
    by_rows = directions[:, 0].abs() >= directions[:, 1].abs()
    for axis, chosen in ((0, by_rows), (1, ~by_rows)):
        rays = torch.nonzero(chosen).flatten()
        for part in rays.split(max(_SAMPLES // cone.image_shape[axis], 1)):
            if len(part):
                yield part, *_cross(cone, source, directions[part], axis)


def _rays(cone: ConeGeometry, angle: float) -> tuple[Tensor, Tensor]:
    """Source ``(3,)`` and directions ``(rows * columns, 3)`` as (row, column, slice) of voxels, float64."""
    n_rows, n_columns = cone.detector_shape
    u = (torch.arange(n_columns, dtype=torch.float64) - (n_columns - 1) / 2) * cone.detector_spacing
    v = (torch.arange(n_rows, dtype=torch.float64) - (n_rows - 1) / 2) * cone.detector_spacing_v
    u, v = u + cone.detector_offset, v + cone.detector_offset_v
    turn = torch.tensor(angle, dtype=torch.float64)
    cosine, sine = torch.cos(turn), torch.sin(turn)
    far = cone.source_distance + cone.detector_distance
    # From (x, y, z) in mm to voxels: rows run along -y.
    x = u * cosine - far * sine
    y = u * sine + far * cosine
    across = torch.stack((-y, x), dim=-1)[None].expand(n_rows, -1, -1)
    along = v[:, None, None].expand(-1, n_columns, 1)
    directions = torch.cat((across, along), dim=-1).reshape(-1, 3) / cone.pixel_spacing
    source_x = cone.source_distance * sine - cone.axis_offset * cosine
    source_y = -cone.source_distance * cosine - cone.axis_offset * sine
    middle = (torch.tensor(cone.image_shape, dtype=torch.float64) - 1) / 2
    source = torch.stack((-source_y, source_x, torch.zeros_like(source_x))) / cone.pixel_spacing + middle
    return source, directions


def _cross(cone: ConeGeometry, source: Tensor, directions: Tensor, axis: int) -> tuple[Tensor, Tensor]:
    """Voxels and weights where rays cross the planes of one axis (0 rows, 1 columns)."""
    shape = cone.image_shape
    main, other = directions[:, axis, None], directions[:, 1 - axis, None]
    planes = torch.arange(shape[axis], device=source.device, dtype=source.dtype)
    along = (planes - source[axis]) / main
    across = source[1 - axis] + along * other
    slices = source[2] + along * directions[:, 2, None]
    low_a, low_s = across.floor(), slices.floor()
    share_a, share_s = across - low_a, slices - low_s
    length = cone.pixel_spacing * torch.linalg.vector_norm(directions, dim=1, keepdim=True) / main.abs()
    strides = (shape[1] * shape[2], shape[2])
    voxels, weights = [], []
    for step_a, part_a in ((0, 1 - share_a), (1, share_a)):
        for step_s, part_s in ((0, 1 - share_s), (1, share_s)):
            a, s = low_a + step_a, low_s + step_s
            inside = (a >= 0) & (a < shape[1 - axis]) & (s >= 0) & (s < shape[2])
            flat = planes * strides[axis] + a * strides[1 - axis] + s
            voxels.append(torch.where(inside, flat, 0.0).long())
            weights.append(torch.where(inside, length * part_a * part_s, 0.0))
    return torch.stack(voxels, dim=-1), torch.stack(weights, dim=-1)
