"""A constant sparse matrix that is fast to apply and to differentiate through.

PyTorch's own backward pass of ``sparse @ dense`` rebuilds and converts the transpose at every call (seconds for a CT
system matrix). Here the matrix and its transpose are both kept in CSR form with 32-bit indices, which MKL takes without
a conversion, so forward and backward each cost one pass over the non-zeros.
"""

from __future__ import annotations

import warnings
import weakref
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import numpy as np
import scipy.sparse
import torch
from torch import Tensor, nn

from disinr_monai.numerics.linear_map import LinearMap


def _to_torch_csr(matrix: scipy.sparse.csr_matrix, dtype: torch.dtype) -> Tensor:
    with warnings.catch_warnings():
        # PyTorch announces at first use that its CSR support is in beta; a user can do nothing about it.
        warnings.filterwarnings("ignore", message="Sparse CSR tensor support is in beta state")
        return torch.sparse_csr_tensor(
            torch.from_numpy(matrix.indptr.astype(np.int32)),
            torch.from_numpy(matrix.indices.astype(np.int32)),
            torch.from_numpy(matrix.data).to(dtype),
            size=matrix.shape,
            check_invariants=False,
        )


@dataclass(eq=False)
class _Pair:
    """A matrix and its transpose on one device in one dtype."""

    matrix: Tensor
    transpose: Tensor


def _multiply(matrix: Tensor, dense: Tensor) -> Tensor:
    dense = dense.contiguous()
    # The vector kernel is up to twice as fast as the matrix kernel with one column.
    return torch.mv(matrix, dense[:, 0])[:, None] if dense.shape[1] == 1 else matrix @ dense


class SparseMatrix(nn.Module):
    """Constant real matrix of shape ``(m, n)``; ``matrix(dense)`` is ``matrix @ dense`` with a fast gradient.

    Args:
        matrix: any SciPy sparse matrix; values are kept as ``dtype``.
        dtype: ``torch.float32`` or ``torch.float64``.
    """

    def __init__(self, matrix: scipy.sparse.spmatrix, dtype: torch.dtype = torch.float32) -> None:
        super().__init__()
        csr = scipy.sparse.csr_matrix(matrix)
        self.shape = csr.shape
        # A plain attribute moved by `_apply`: buffers would be copied into every state_dict by some tools.
        self._pair = _Pair(_to_torch_csr(csr, dtype), _to_torch_csr(csr.T.tocsr(), dtype))
        self._versions = weakref.WeakValueDictionary()
        self._remember()

    def shared(self) -> SparseMatrix:
        """Second module on the same memory; moving one leaves the other, equal moves share memory again."""
        copy = SparseMatrix.__new__(SparseMatrix)
        nn.Module.__init__(copy)
        copy.shape, copy._pair, copy._versions = self.shape, self._pair, self._versions
        return copy

    def rows(self, rows: np.ndarray) -> SparseMatrix:
        """A new matrix with some of the rows, in the order given."""
        matrix = self._pair.matrix.cpu()
        parts = (matrix.values().numpy(), matrix.col_indices().numpy(), matrix.crow_indices().numpy())
        return SparseMatrix(scipy.sparse.csr_matrix(parts, shape=self.shape, copy=False)[rows], self.dtype)

    def without_empty_columns(self) -> tuple[Tensor, SparseMatrix]:
        """The columns that are not all zero (their numbers, ascending) and the matrix of these alone."""
        matrix = self._pair.matrix.cpu()
        indices = matrix.col_indices().numpy()
        used = np.zeros(self.shape[1], dtype=bool)
        used[indices] = True
        place = np.cumsum(used, dtype=np.int32) - 1
        parts = (matrix.values().numpy(), place[indices], matrix.crow_indices().numpy())
        part = scipy.sparse.csr_matrix(parts, shape=(self.shape[0], int(used.sum())), copy=False)
        device = self._pair.matrix.device
        return torch.from_numpy(np.flatnonzero(used)).to(device), SparseMatrix(part, self.dtype).to(device)

    def __deepcopy__(self, memo: dict) -> SparseMatrix:
        # A constant need not be copied, and a CT system matrix is large.
        return self.shared()

    def __getstate__(self) -> dict:
        return {key: value for key, value in self.__dict__.items() if key != "_versions"}

    def __setstate__(self, state: dict) -> None:
        self.__dict__.update(state)
        self._versions = weakref.WeakValueDictionary()
        self._remember()

    def _remember(self) -> None:
        self._versions[self._pair.matrix.device, self._pair.matrix.dtype] = self._pair

    def _apply(self, fn, recurse: bool = True):
        super()._apply(fn, recurse)
        probe = fn(torch.empty(0, dtype=self._pair.matrix.dtype, device=self._pair.matrix.device))
        pair = self._versions.get((probe.device, probe.dtype))
        self._pair = pair if pair is not None else _Pair(fn(self._pair.matrix), fn(self._pair.transpose))
        self._remember()
        return self

    @property
    def dtype(self) -> torch.dtype:
        return self._pair.matrix.dtype

    def forward(self, dense: Tensor) -> Tensor:
        """Multiply by the matrix, ``(n, k)`` to ``(m, k)``."""
        return LinearMap.apply(dense, *self._products())

    def transposed(self, dense: Tensor) -> Tensor:
        """Multiply by the transpose, ``(m, k)`` to ``(n, k)``."""
        return LinearMap.apply(dense, *reversed(self._products()))

    def _products(self) -> tuple[Callable[[Tensor], Tensor], Callable[[Tensor], Tensor]]:
        return partial(_multiply, self._pair.matrix), partial(_multiply, self._pair.transpose)
