from __future__ import annotations

import math
import weakref
from typing import NamedTuple

import numpy as np
import scipy.sparse
import torch
from torch import Tensor, nn

from disinr_monai.networks import tcnn_backend
from disinr_monai.networks.hash_gather import PRIMES, cell_corners, weighted_sums
from disinr_monai.networks.scriptable import GatheredGrid
from disinr_monai.numerics.sparse import SparseMatrix


class Level(NamedTuple):
    """One resolution level: grid scale, grid points per axis, first row and number of rows in the table."""

    scale: float
    resolution: int
    offset: int
    n_entries: int


class HashGrid(nn.Module):
    r"""Multi-resolution hash encoding (Müller et al., *Instant Neural Graphics Primitives*, ACM TOG 2022).

    Level :math:`l` is a grid of :math:`r_l = \lceil N b^l - 1 \rceil + 1` points per axis whose feature vectors live in
    a table of at most :math:`T` rows: addressed densely where they fit, by a spatial hash where they do not. A point is
    encoded by the multilinear interpolation of its cell's corners, concatenated over the levels.

    The table has the layout of tiny-cuda-nn (rows rounded up to 8, positions ``scale * x + 0.5``, the same primes), so
    ``table.reshape(-1)`` *is* the parameter vector of ``tinycudann.Encoding`` and one checkpoint serves both.

    Two implementations of the same function: for points that stay the same from call to call (a pixel grid) the whole
    encoding is one sparse matrix, prepared once and shared by all encoders with the same levels; otherwise corners are
    gathered. On a CUDA device tiny-cuda-nn is used when it is installed.

    Args:
        in_dim: 2, 3 or 4 coordinates, each in [-1, 1].
        n_levels: number of levels :math:`L`.
        n_features_per_level: features per level :math:`F`.
        log2_hashmap_size: :math:`\log_2 T`.
        base_resolution: :math:`N`.
        per_level_scale: :math:`b`.
        fixed_points: points repeat from call to call (use the sparse matrix); False for streamed random points.
        seed: seed of the initial table, uniform in ±1e-4.

    Raises:
        ValueError: dimension not 2, 3 or 4, or a size that is not positive or beyond all memory.
    """

    def __init__(
        self,
        in_dim: int = 2,
        n_levels: int = 10,
        n_features_per_level: int = 8,
        log2_hashmap_size: int = 18,
        base_resolution: int = 2,
        per_level_scale: float = 2.0,
        fixed_points: bool = True,
        seed: int = 0,
    ) -> None:
        super().__init__()
        if in_dim not in (2, 3, 4):
            raise ValueError(f"HashGrid: in_dim must be 2, 3 or 4, found {in_dim}")
        if min(n_levels, n_features_per_level, log2_hashmap_size, base_resolution) < 1 or per_level_scale < 1:
            raise ValueError("HashGrid: all sizes must be at least 1")
        if n_levels > 64 or log2_hashmap_size > 30:
            raise ValueError(
                "HashGrid: expected at most 64 levels of at most 2^30 entries, found "
                f"n_levels {n_levels}, log2_hashmap_size {log2_hashmap_size}"
            )
        self.in_dim = in_dim
        self.n_levels = n_levels
        self.n_features_per_level = n_features_per_level
        self.log2_hashmap_size = log2_hashmap_size
        self.base_resolution = base_resolution
        self.per_level_scale = per_level_scale
        self.fixed_points = fixed_points
        self.out_dim = n_levels * n_features_per_level
        self.levels = _make_levels(in_dim, n_levels, log2_hashmap_size, base_resolution, per_level_scale)
        last = self.levels[-1]
        self._compact: tuple[Tensor, SparseMatrix] | None = None
        self._left_out: tuple[Tensor, Tensor] | None = None
        self.table = nn.Parameter(torch.empty(last.offset + last.n_entries, n_features_per_level))
        self.reset(seed)

    def reset(self, seed: int) -> None:
        """Draw a fresh table, uniform in ±1e-4, from its own random generator."""
        generator = torch.Generator().manual_seed(seed)
        with torch.no_grad():
            self.table.copy_(torch.empty(self.table.shape).uniform_(-1e-4, 1e-4, generator=generator))

    def forward(self, points: Tensor) -> Tensor:
        """Encode ``(n, in_dim)`` points in [-1, 1] as ``(n, n_levels * n_features_per_level)`` features."""
        if points.shape[-1] != self.in_dim or points.ndim != 2:
            raise ValueError(f"HashGrid: points must have shape (n, {self.in_dim}), found {tuple(points.shape)}")
        if self._compact is not None:
            known, matrix = self._compact
            if not torch.equal(known, points):
                raise ValueError("HashGrid: a compact grid encodes only the points that it was made compact for")
            return matrix(self.table).view(points.shape[0], self.out_dim)
        if self.table.is_cuda and tcnn_backend.is_available():
            return tcnn_backend.encode(self, (points + 1) / 2)
        if self.fixed_points:
            matrix = _interpolation_matrix(points, self.levels, self.table.dtype)
            return matrix(self.table).view(points.shape[0], self.out_dim)
        return self._gather(points)

    def compact(self, points: Tensor) -> None:
        """Keep only the rows of the table that ``points`` touch, for a fit to these points that is thrown away after.

        The others have no influence and no gradient, so that Adam gives exactly the same values; it and the sparse
        products have less to pass through (of 611,672 rows 256² points touch 87 %, 128² points 35 %). Does
        nothing where the points are not fixed or tiny-cuda-nn does the work.
        """
        if self._compact is not None or not self.fixed_points or (self.table.is_cuda and tcnn_backend.is_available()):
            return
        matrix = _interpolation_matrix(points, self.levels, self.table.dtype)
        if matrix not in _COMPACT:
            _COMPACT[matrix] = matrix.without_empty_columns()
        rows, part = _COMPACT[matrix]
        self._left_out = (rows, self.table.detach())
        with torch.no_grad():
            self.table = nn.Parameter(self.table[rows], requires_grad=self.table.requires_grad)
        self._compact = (points.detach().clone(), part)

    def expand(self) -> None:
        """The whole table again, with the rows that were fitted, for points of any kind (undoes :meth:`compact`)."""
        if self._compact is None:
            return
        rows, table = self._left_out
        with torch.no_grad():
            table = table.clone()
            table[rows] = self.table
        self.table = nn.Parameter(table, requires_grad=self.table.requires_grad)
        self._compact = self._left_out = None

    def _gather(self, points: Tensor) -> Tensor:
        rows, weights = _streamed_corners(points, self.levels)
        sums = weighted_sums(rows.flatten(0, 1), weights.flatten(0, 1).to(self.table.dtype), self.table)
        return sums.view(points.shape[0], self.out_dim)

    def scriptable(self) -> nn.Module:
        """The same function for TorchScript, with this table."""
        return GatheredGrid(self)

    def extra_repr(self) -> str:
        return (
            f"in_dim={self.in_dim}, n_levels={self.n_levels}, n_features_per_level={self.n_features_per_level}, "
            f"log2_hashmap_size={self.log2_hashmap_size}, base_resolution={self.base_resolution}, "
            f"per_level_scale={self.per_level_scale}"
        )


def _make_levels(
    in_dim: int, n_levels: int, log2_hashmap_size: int, base_resolution: int, per_level_scale: float
) -> tuple[Level, ...]:
    levels, offset = [], 0
    for level in range(n_levels):
        scale = base_resolution * per_level_scale**level - 1.0
        resolution = math.ceil(scale) + 1
        n_entries = min(-(-(resolution**in_dim) // 8) * 8, 2**log2_hashmap_size)
        levels.append(Level(scale, resolution, offset, n_entries))
        offset += n_entries
    return tuple(levels)


def interpolation(points: Tensor, levels: tuple[Level, ...]) -> tuple[Tensor, Tensor]:
    """Table rows and weights of the cell corners around each point.

    Args:
        points: ``(n, D)`` in [-1, 1].
        levels: the grid's levels.

    Returns:
        ``rows`` (int64) and ``weights`` (float32), both ``(n, n_levels, 2**D)``.
    """
    _n_points, in_dim = points.shape
    corners = torch.tensor([[c >> d & 1 for d in range(in_dim)] for c in range(2**in_dim)], device=points.device)
    unit = (points.float() + 1) / 2
    rows, weights = [], []
    for level in levels:
        position = unit * level.scale + 0.5
        cell = position.floor()
        fraction = (position - cell).unsqueeze(1)
        corner = cell.long().unsqueeze(1) + corners  # (n, 2^D, D)
        weights.append(torch.where(corners.bool(), fraction, 1 - fraction).prod(-1))
        rows.append(level.offset + _row_in_level(corner, level))
    return torch.stack(rows, 1), torch.stack(weights, 1)


def _row_in_level(corner: Tensor, level: Level) -> Tensor:
    """Row of each integer grid point: dense while the strides fit into the level's table, else hashed."""
    index, stride = torch.zeros_like(corner[..., 0]), 1
    for d in range(corner.shape[-1]):
        if stride > level.n_entries:
            break
        index = index + corner[..., d] * stride
        stride *= level.resolution
    if stride > level.n_entries:
        index = torch.zeros_like(index)
        for d in range(corner.shape[-1]):
            # 32-bit unsigned arithmetic, as on the GPU; int64 holds the product of two 32-bit numbers' low bits.
            index = index ^ ((corner[..., d] * PRIMES[d]) & 0xFFFFFFFF)
    return (index & 0xFFFFFFFF) % level.n_entries


# A handful of grids is in use at a time (one per matrix size). Points are compared by value, so a stale entry cannot be
# used by mistake; the comparison costs microseconds.
_CACHE: list[tuple[Tensor, tuple[Level, ...], SparseMatrix]] = []
_CACHE_SIZE = 4
# Of each such matrix, the columns that are used and the matrix of these; goes when the matrix goes.
_COMPACT: weakref.WeakKeyDictionary[SparseMatrix, tuple[Tensor, SparseMatrix]] = weakref.WeakKeyDictionary()


def expand_grids(network: nn.Module) -> None:
    """Undo :func:`compact_grids`, so that a fitted network can be asked anywhere (by gathering: once each)."""
    for module in network.modules():
        if isinstance(module, HashGrid):
            module.expand()
            module.fixed_points = False


# The shared and the subject encoder of a network look at the same points one after the other.
_STREAMED: list[tuple[weakref.ref[Tensor], int, tuple[Level, ...], tuple[Tensor, Tensor]]] = []


def _streamed_corners(points: Tensor, levels: tuple[Level, ...]) -> tuple[Tensor, Tensor]:
    for known, version, known_levels, corners in _STREAMED:
        if known() is points and version == points._version and known_levels == levels:
            return corners
    corners = cell_corners(points.detach().as_subclass(Tensor), levels)
    _STREAMED[:] = [(weakref.ref(points, lambda _: _STREAMED.clear()), points._version, levels, corners)]
    return corners


def compact_grids(network: nn.Module, points: Tensor) -> None:
    """Make every hash grid of a network that is fitted compact (see :meth:`HashGrid.compact`)."""
    for module in network.modules():
        if isinstance(module, HashGrid) and module.table.requires_grad:
            module.compact(points)


def _interpolation_matrix(points: Tensor, levels: tuple[Level, ...], dtype: torch.dtype) -> SparseMatrix:
    for entry in _CACHE:
        known, known_levels, matrix = entry
        if (
            known_levels == levels
            and known.device == points.device
            and known.shape == points.shape
            and matrix.dtype == dtype
            and torch.equal(known, points)
        ):
            return matrix
    rows, weights = interpolation(points.detach(), levels)
    n_rows = rows.shape[0] * rows.shape[1]
    n_corners = rows.shape[2]
    csr = scipy.sparse.csr_matrix(
        (
            weights.reshape(-1).cpu().numpy(),
            rows.reshape(-1).to(torch.int32).cpu().numpy(),
            np.arange(n_rows + 1, dtype=np.int64) * n_corners,
        ),
        shape=(n_rows, levels[-1].offset + levels[-1].n_entries),
    )
    csr.sum_duplicates()
    matrix = SparseMatrix(csr, dtype=dtype).to(points.device)
    _CACHE.insert(0, (points.detach().clone(), levels, matrix))
    del _CACHE[_CACHE_SIZE:]
    return matrix
