"""A constant sparse matrix that is fast to apply and to differentiate through.

PyTorch's own backward pass of ``sparse @ dense`` rebuilds and converts the transpose at every call (seconds for a CT
system matrix). Here the matrix and its transpose are both kept in CSR form with 32-bit indices, which MKL takes without
a conversion, so forward and backward each cost one pass over the non-zeros.
"""

from __future__ import annotations

import warnings

import numpy as np
import scipy.sparse
import torch
from torch import Tensor, nn


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


class _SparseProduct(torch.autograd.Function):
    """``matrix @ dense``; the gradient is ``transpose @ gradient``. Both matrices are constants."""

    @staticmethod
    def forward(ctx, matrix: Tensor, transpose: Tensor, dense: Tensor) -> Tensor:
        ctx.matrices = (matrix, transpose)
        return matrix @ dense

    @staticmethod
    def backward(ctx, gradient: Tensor):
        matrix, transpose = ctx.matrices
        # The gradient is itself a product of the same kind, so second derivatives (MAML) work too.
        return None, None, _SparseProduct.apply(transpose, matrix, gradient.contiguous())


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
        # Plain attributes moved by `_apply`: buffers would be copied into every state_dict by some tools.
        self._matrix = _to_torch_csr(csr, dtype)
        self._transpose = _to_torch_csr(csr.T.tocsr(), dtype)

    def _apply(self, fn, recurse: bool = True):
        super()._apply(fn, recurse)
        self._matrix, self._transpose = fn(self._matrix), fn(self._transpose)
        return self

    @property
    def dtype(self) -> torch.dtype:
        return self._matrix.dtype

    @property
    def n_nonzero(self) -> int:
        return self._matrix.values().numel()

    def forward(self, dense: Tensor) -> Tensor:
        """``(n, k)`` to ``(m, k)``."""
        return _SparseProduct.apply(self._matrix, self._transpose, dense)

    def transposed(self, dense: Tensor) -> Tensor:
        """``(m, k)`` to ``(n, k)``."""
        return _SparseProduct.apply(self._transpose, self._matrix, dense)
