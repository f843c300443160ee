from __future__ import annotations

import copy
import math
from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any, Self

import torch
from torch import Tensor, nn

from disinr_monai.operators.noise import CompositionNoise, Noise
from disinr_monai.operators.partition import Partition


class LinearOperator(nn.Module, ABC):
    r"""Forward model :math:`A`: image :math:`x` to noise-free measurement :math:`A x`.

    ``forward`` takes a real image ``(..., *domain_shape)`` and gives ``(..., *range_shape)``; leading axes are a
    batch. A complex image is two real channels (real, imaginary) in front of the spatial axes. ``adjoint`` is the
    adjoint for the real inner product

    .. math:: \langle A x, y \rangle = \mathrm{Re} \sum_i \overline{(Ax)_i}\, y_i = \langle x, A^H y \rangle .

    ``A @ B`` is the operator that applies ``B`` first. How a measurement is divided for validation and what its noise
    amounts to is asked of :attr:`partition` and :attr:`noise`; both work for every operator, and a family that knows
    better names its own classes in ``partition_type`` and ``noise_type``.

    Args:
        domain_shape: shape of one image, channels first.
        range_shape: shape of one measurement.
    """

    # True where no entry of A is negative (tomography): A^T W A 1 is then a diagonal that majorises A^T W A.
    is_additive = False

    partition_type: type[Partition] = Partition
    noise_type: type[Noise] = Noise

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

    def gram(self, image: Tensor, weights: Tensor | None = None) -> Tensor:
        """Apply ``A^H W A``, the main operation of iterative solvers."""
        values = self(image)
        return self.adjoint(values if weights is None else values * weights)

    def precondition(self, residual: Tensor) -> Tensor:
        """Equalise the conditioning of a measurement residual before a norm is taken (identity by default)."""
        return residual

    def direct_inverse(self, measurement: Tensor) -> Tensor:
        """The modality's one-step reconstruction, e.g. zero-filled or filtered back-projection (adjoint by default)."""
        return self.adjoint(measurement)

    @property
    def n_measured(self) -> int:
        """Number of values that one scan measures (all of ``range_shape`` by default)."""
        return math.prod(self.range_shape)

    def undersampling(self) -> float:
        """One number of order 1 that says how little was measured."""
        return math.prod(self.domain_shape[1:]) / max(self.n_measured, 1)

    def phase_reference(self, measurement: Tensor) -> Tensor | None:
        """Phase of the image at low resolution, complex of size 1, where images are complex and it is known."""
        return None

    def visible(self, image: Tensor) -> Tensor:
        """Set to 0 the parts of an image that no measurement can depend on (the image itself by default)."""
        return image

    def norm_squared(self, n_iterations: int = 20) -> float:
        r"""Largest eigenvalue of :math:`A^H A` by power iteration from a fixed start (deterministic)."""
        like = next((b for b in self.buffers() if b.is_floating_point() or b.is_complex()), torch.zeros(()))
        generator = torch.Generator().manual_seed(0)
        x = torch.randn(self.domain_shape, generator=generator).to(like.device, like.dtype.to_real())
        value = torch.zeros(())
        with torch.no_grad():
            for _ in range(n_iterations):
                x = self.gram(x / torch.linalg.vector_norm(x))
                value = torch.linalg.vector_norm(x)
        return float(value)

    @property
    def partition(self) -> Partition:
        """Parts of the measurement: held-out samples, subsets, and the operators that explain them."""
        return self.partition_type(self)

    @property
    def noise(self) -> Noise:
        """Statistics of noise and residuals, in the measurement and in the image."""
        return self.noise_type(self)

    def masked(self, keep: Tensor) -> LinearOperator:
        """The operator with the samples outside the boolean mask ``keep`` over ``range_shape`` set to 0."""
        return Masked(self, keep)

    def __matmul__(self, inner: LinearOperator) -> LinearOperator:
        return Composition(self, inner)

    def _with(self, **values: Any) -> Self:
        """A shallow copy with other buffers, modules or attributes; all else is shared."""
        other = copy.copy(self)
        other._buffers, other._modules = dict(self._buffers), dict(self._modules)
        for name, value in values.items():
            setattr(other, name, value)
        return other

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


class Masked(LinearOperator):
    """An operator of which some samples are ignored: they are 0 in the measurement and do not reach the adjoint.

    Args:
        operator: the whole.
        keep: boolean mask over its ``range_shape``.
    """

    def __init__(self, operator: LinearOperator, keep: Tensor) -> None:
        super().__init__(operator.domain_shape, operator.range_shape)
        self.operator = operator
        self.register_buffer("keep", keep.clone(), persistent=False)

    def forward(self, image: Tensor) -> Tensor:
        self._check_domain(image)
        return self.operator(image) * self.keep

    def adjoint(self, measurement: Tensor) -> Tensor:
        self._check_range(measurement)
        return self.operator.adjoint(measurement * self.keep)

    @property
    def n_measured(self) -> int:
        return max(int(self.keep.sum()), 1)

    def masked(self, keep: Tensor) -> Masked:
        return Masked(self.operator, self.keep & keep.to(self.keep.device))


class Composition(LinearOperator):
    r"""Two operators after each other, ``outer @ inner``: :math:`y = A\,(B\, x)`.

    The measurement is that of ``outer``, which therefore says how it is preconditioned and divided.

    Args:
        outer: :math:`A`.
        inner: :math:`B`.

    Raises:
        ValueError: a measurement of ``inner`` is no image of ``outer``.
    """

    noise_type = CompositionNoise

    def __init__(self, outer: LinearOperator, inner: LinearOperator) -> None:
        names = f"{type(outer).__name__} @ {type(inner).__name__}"
        if inner.range_shape != outer.domain_shape:
            raise ValueError(
                f"{names}: the first takes images of shape {outer.domain_shape}, "
                f"the second must give them, found {inner.range_shape}"
            )
        super().__init__(inner.domain_shape, outer.range_shape)
        self.outer, self.inner = outer, inner
        self.is_additive = outer.is_additive and inner.is_additive

    def forward(self, image: Tensor) -> Tensor:
        self._check_domain(image)
        return self.outer(self.inner(image))

    def adjoint(self, measurement: Tensor) -> Tensor:
        self._check_range(measurement)
        return self.inner.adjoint(self.outer.adjoint(measurement))

    def gram(self, image: Tensor, weights: Tensor | None = None) -> Tensor:
        return self.inner.adjoint(self.outer.gram(self.inner(image), weights))

    def precondition(self, residual: Tensor) -> Tensor:
        return self.outer.precondition(residual)

    def direct_inverse(self, measurement: Tensor) -> Tensor:
        """The one-step reconstructions of both, the outer one's first."""
        self._check_range(measurement)
        return self.inner.direct_inverse(self.outer.direct_inverse(measurement))

    @property
    def n_measured(self) -> int:
        return self.outer.n_measured

    def undersampling(self) -> float:
        return self.outer.undersampling()

    @property
    def partition(self) -> Partition:
        return self.outer.partition.after(self.inner)
