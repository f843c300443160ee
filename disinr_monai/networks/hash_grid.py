from __future__ import annotations

import math
import weakref
from typing import NamedTuple

import numpy as np
import scipy.sparse
import torch
from torch import Tensor, nn
from torch.nn import functional

from disinr_monai.networks import tcnn_backend
from disinr_monai.numerics.linear_map import LinearMap
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
            return tcnn_backend.encode(self.table, self._options(), (points + 1) / 2)
        if self.fixed_points:
            matrix = _interpolation_matrix(points, self.levels, self.table.dtype)
            return matrix(self.table).view(points.shape[0], self.out_dim)
        rows, weights = _streamed_corners(points, self.levels)
        sums = weighted_sums(rows.flatten(0, 1), weights.flatten(0, 1).to(self.table.dtype), self.table)
        return sums.view(points.shape[0], self.out_dim)

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

    def extra_repr(self) -> str:
        return ", ".join(f"{name}={value}" for name, value in (("in_dim", self.in_dim), *self._options()))

    def _options(self) -> tuple[tuple[str, float], ...]:
        names = ("n_levels", "n_features_per_level", "log2_hashmap_size", "base_resolution", "per_level_scale")
        return tuple((name, getattr(self, name)) for name in names)


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


def cell_corners(points: Tensor, levels: list[tuple[float, int, int, int]]) -> tuple[Tensor, Tensor]:
    """Table rows and interpolation weights of the corners of the cells that points lie in.

    In 32-bit integers that wrap as on a GPU. TorchScript compiles this function too.

    Args:
        points: ``(n, D)`` in [-1, 1].
        levels: the grid's, see :class:`Level`.

    Returns:
        ``rows`` (int32) and ``weights`` (float32), both ``(n, n_levels, 2**D)``.
    """
    primes = [1, 2654435761 - (1 << 32), 805459861, 3674653429 - (1 << 32)]  # tiny-cuda-nn's, as signed numbers
    n_points, in_dim = points.shape
    unit = ((points.float() + 1) / 2).t().contiguous()
    rows = torch.empty([n_points, len(levels), 1 << in_dim], dtype=torch.int32, device=points.device)
    weights = torch.empty([n_points, len(levels), 1 << in_dim], device=points.device)
    for number, (scale, resolution, offset, n_entries) in enumerate(levels):
        position = unit * scale + 0.5
        cell = position.floor()
        fraction = position - cell
        cell = cell.int()
        hashed, stride = float(resolution) ** in_dim > n_entries, 1
        index: list[Tensor] = []
        weight: list[Tensor] = []
        for axis in range(in_dim):
            step = primes[axis] if hashed else stride
            stride *= resolution
            low = cell[axis] * step
            ends, shares = [low, low + step], [1 - fraction[axis], fraction[axis]]
            inner, inner_weight = index, weight
            if axis == 0:
                index, weight = ends, shares
                continue
            index, weight = [], []
            # Corner c takes the upper end of axis d where bit d of c is set: the later axis is the outer loop.
            for end, share in zip(ends, shares):  # noqa: B905 (TorchScript knows no strict)
                index += [old ^ end if hashed else old + end for old in inner]
                weight += [old * share for old in inner_weight]
        corners = torch.stack(index, 1)
        rows[:, number] = (corners & (n_entries - 1) if hashed else corners % n_entries) + offset
        weights[:, number] = torch.stack(weight, 1)
    return rows, weights


def weighted_sums(rows: Tensor, weights: Tensor, table: Tensor) -> Tensor:
    r"""Sums of table rows, :math:`\sum_k w_{ik}\, t_{r_{ik}}`, differentiable in the table.

    Args:
        rows: ``(m, K)``, int32.
        weights: ``(m, K)``, of the table's dtype.
        table: ``(n, F)``.

    Returns:
        ``(m, F)``.
    """
    n_entries = len(table)

    def gather(table: Tensor) -> Tensor:
        return functional.embedding_bag(rows, table, per_sample_weights=weights, mode="sum")

    def spread(gradient: Tensor) -> Tensor:
        if gradient.device.type != "cpu":
            values = (weights.unsqueeze(-1) * gradient.unsqueeze(1)).flatten(0, 1)
            return gradient.new_zeros(n_entries, gradient.shape[1]).index_add_(0, rows.flatten(), values)
        # PyTorch's own backward pass of embedding_bag sorts the rows first, which takes ten times as long.
        return torch.from_numpy(_matrix(rows, weights, n_entries).T @ gradient.detach().contiguous().numpy())

    return LinearMap.apply(table, gather, spread)


def _matrix(rows: Tensor, weights: Tensor, n_entries: int) -> scipy.sparse.csr_matrix:
    """Sparse ``(m, n_entries)`` with weights in the columns ``rows``, both ``(m, K)``, whose memory it uses."""
    ends = np.arange(0, rows.numel() + 1, rows.shape[1])
    parts = (weights.cpu().numpy().ravel(), rows.cpu().numpy().ravel(), ends)
    return scipy.sparse.csr_matrix(parts, shape=(len(rows), n_entries), copy=False)


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
    for known, known_levels, matrix in _CACHE:
        if (
            known_levels == levels
            and known.device == points.device
            and known.shape == points.shape
            and matrix.dtype == dtype
            and torch.equal(known, points)
        ):
            return matrix
    rows, weights = cell_corners(points.detach().as_subclass(Tensor), levels)
    csr = _matrix(rows.flatten(0, 1), weights.flatten(0, 1), levels[-1].offset + levels[-1].n_entries)
    csr.sum_duplicates()
    matrix = SparseMatrix(csr, dtype=dtype).to(points.device)
    _CACHE.insert(0, (points.detach().clone(), levels, matrix))
    del _CACHE[_CACHE_SIZE:]
    return matrix
