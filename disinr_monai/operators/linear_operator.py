from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable

import torch
from torch import Tensor, nn


class LinearOperator(nn.Module, ABC):
    r"""Forward model :math:`A`: image :math:`x` to noise-free measurement :math:`A x`.

    ``forward`` takes a real image ``(..., *domain_shape)`` and gives ``(..., *range_shape)``; leading axes are a
    batch. A complex image is two real channels (real, imaginary) in front of the spatial axes. ``adjoint`` is the
    adjoint for the real inner product

    .. math:: \langle A x, y \rangle = \mathrm{Re} \sum_i \overline{(Ax)_i}\, y_i = \langle x, A^H y \rangle .

    An operator knows geometry and physics only: no noise, no solver, no network, no file.

    Args:
        domain_shape: shape of one image, channels first.
        range_shape: shape of one measurement.
    """

    def __init__(self, domain_shape: tuple[int, ...], range_shape: tuple[int, ...]) -> None:
        super().__init__()
        self.domain_shape = tuple(int(n) for n in domain_shape)
        self.range_shape = tuple(int(n) for n in range_shape)

    @abstractmethod
    def forward(self, image: Tensor) -> Tensor:
        """Measure an image: ``(..., *domain_shape)`` to ``(..., *range_shape)``."""

    @abstractmethod
    def adjoint(self, measurement: Tensor) -> Tensor:
        """Apply the adjoint: ``(..., *range_shape)`` to ``(..., *domain_shape)``."""

    def precondition(self, residual: Tensor) -> Tensor:
        """Equalise the conditioning of a measurement residual before a norm is taken (identity by default)."""
        return residual

    def direct_inverse(self, measurement: Tensor) -> Tensor:
        """The modality's one-step reconstruction, e.g. zero-filled or filtered back-projection (adjoint by default)."""
        return self.adjoint(measurement)

    @property
    def n_measured(self) -> int:
        """How many numbers one scan really measures (all of ``range_shape`` by default)."""
        return math.prod(self.range_shape)

    def hold_out(self, fraction: float, generator: torch.Generator) -> Tensor:
        """Boolean mask over ``range_shape`` of the samples to withhold from a fit.

        Args:
            fraction: share of the measured samples, between 0 and 1.
            generator: random generator on the CPU.
        """
        return torch.rand(self.range_shape, generator=generator) < fraction

    def norm_squared(self, n_iterations: int = 20) -> float:
        r"""Largest eigenvalue of :math:`A^H A` by power iteration from a fixed start (deterministic)."""
        buffer = next(self.buffers(), torch.zeros(()))
        generator = torch.Generator().manual_seed(0)
        dtype = buffer.dtype.to_real() if buffer.is_complex() else buffer.dtype
        x = torch.randn(self.domain_shape, generator=generator).to(buffer.device, dtype)
        value = torch.zeros(())
        with torch.no_grad():
            for _ in range(n_iterations):
                x = self.adjoint(self(x / torch.linalg.vector_norm(x)))
                value = torch.linalg.vector_norm(x)
        return float(value)

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> LinearOperator:
        # `nn.Module.to(torch.float64)` would cast complex buffers to real ones, and `double()` would leave them.
        def keep_complex(tensor: Tensor) -> Tensor:
            if tensor.is_complex():
                return torch.view_as_complex(fn(torch.view_as_real(tensor)))
            return fn(tensor)

        return super()._apply(keep_complex, recurse)

    def _check_domain(self, image: Tensor) -> None:
        self._check("image", image, self.domain_shape)

    def _check_range(self, measurement: Tensor) -> None:
        self._check("measurement", measurement, self.range_shape)

    def _check(self, what: str, tensor: Tensor, shape: tuple[int, ...]) -> None:
        if tuple(tensor.shape[-len(shape) :]) != shape:
            raise ValueError(
                f"{type(self).__name__}: {what} must have shape (..., {', '.join(map(str, shape))}), "
                f"found {tuple(tensor.shape)}"
            )
