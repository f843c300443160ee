from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor, nn


class Part(NamedTuple):
    """A part of a measurement that depends on few points of the image (:meth:`LinearOperator.draw`).

    Attributes:
        at: takes the ``n`` points ``(D, n)`` that the part depends on out of the voxel centres ``(D, *S)``.
        operator: image values ``(C, n)`` there to the part.
        select: takes the part out of the measurement (or out of its weights).
    """

    at: Callable[[Tensor], Tensor]
    operator: LinearOperator
    select: Callable[[Tensor], Tensor]


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

    # True where no entry of A is negative (tomography): A^T W A 1 is then a diagonal that majorises A^T W A.
    is_additive = False

    # What a scan leaves out: "samples" of it anywhere, "lines" of k-space, "readouts" of a trajectory or "views".
    gaps = "samples"

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
        """``A^H W A x``, what iterative solvers need most."""
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
        """How many numbers one scan really measures (all of ``range_shape`` by default)."""
        return math.prod(self.range_shape)

    def hold_out(self, fraction: float, generator: torch.Generator) -> Tensor:
        """Boolean mask over ``range_shape`` of the samples to withhold from a fit.

        Args:
            fraction: share of the measured samples, between 0 and 1.
            generator: random generator on the CPU.
        """
        return torch.rand(self.range_shape, generator=generator) < fraction

    # Whether what `withhold` takes says as much of every frequency of the image as what it leaves: a projection does, a
    # line beside the centre of k-space does not.
    withheld_is_typical = False

    def withhold(self, fraction: float, generator: torch.Generator) -> Tensor:
        """As :meth:`hold_out`, but of whole projections or lines: gaps of the kind that the scan itself has."""
        return self.hold_out(fraction, generator)

    def restrict(self, keep: Tensor) -> Restriction:
        """The operator of a part of the measurement, and the function that takes this part out of one.

        Args:
            keep: boolean mask over ``range_shape``; what it leaves out has no influence on the part.
        """
        return Masked(self, keep), lambda values: values * keep.to(values.device)

    def draw(self, generator: torch.Generator | None = None, among: Tensor | None = None) -> Part | None:
        """A random part of the measurement for one step of a fit; None (default) if each depends on the whole image.

        Args:
            generator: random generator on the CPU; PyTorch's own by default.
            among: boolean mask over ``range_shape``; what it leaves out is not drawn.
        """
        return None

    def subsets(self, size: int) -> list[Restriction]:
        """Parts of the measurement, each about ``size`` projections and alike in what it sees; [all] by default."""
        return [(self, lambda values: values)]

    def split(self, index: int, generator: torch.Generator) -> Tensor:
        """Boolean mask over ``range_shape``: the part of a scan to reconstruct from when the rest is to be predicted.

        Args:
            index: number of the split; operators may have a fixed series of them.
            generator: random generator on the CPU.
        """
        return ~self.hold_out(0.3, generator)

    def residual_image(self, residual: Tensor, weights: Tensor | None = None) -> Tensor:
        """A measurement residual as an image ``domain_shape``, in about its units (the adjoint by default)."""
        return self.adjoint(residual if weights is None else residual * weights)

    def residual_energy(self, residual: Tensor, weights: Tensor | None = None) -> Tensor:
        r"""Squared size of a residual, about the mean squared error of the image that it comes from."""
        size = (residual * residual.conj()).real
        return (size if weights is None else size * weights).sum() / self.n_measured

    def noise_energy(self, variance: Tensor | None, weights: Tensor | None = None) -> float:
        """Expected :meth:`residual_energy` of noise with this variance (of the samples, or one for all)."""
        if variance is None:
            return 0.0
        size = torch.as_tensor(variance).expand(self.range_shape)
        return float((size if weights is None else size * weights).mean())

    def noise_variance(self, measurement: Tensor, weights: Tensor | None = None) -> Tensor:
        """Variance of the noise as the measurement shows it, one number or one a sample (0 if it cannot tell)."""
        return torch.zeros((), device=measurement.device)

    def noise_image(self, variance: Tensor) -> Tensor:
        """Rough standard deviation of the noise in each pixel of the image, ``(1, *S)``."""
        return torch.sqrt(variance).expand(1, *self.domain_shape[1:])

    def undersampling(self) -> float:
        """One number of order 1 that says how little was measured."""
        return math.prod(self.domain_shape[1:]) / max(self.n_measured, 1)

    def phase_reference(self, measurement: Tensor) -> Tensor | None:
        """Phase of the image at low resolution, complex ``S`` of size 1, where images are complex and it is known."""
        return None

    def norm_squared(self, n_iterations: int = 20) -> float:
        r"""Largest eigenvalue of :math:`A^H A` by power iteration from a fixed start (deterministic)."""
        buffer = next(self.buffers(), torch.zeros(()))
        generator = torch.Generator().manual_seed(0)
        dtype = buffer.dtype.to_real() if buffer.is_complex() else buffer.dtype
        x = torch.randn(self.domain_shape, generator=generator).to(buffer.device, dtype)
        value = torch.zeros(())
        with torch.no_grad():
            for _ in range(n_iterations):
                x = self.gram(x / torch.linalg.vector_norm(x))
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
        return self.operator(image) * self.keep

    def adjoint(self, measurement: Tensor) -> Tensor:
        return self.operator.adjoint(measurement * self.keep)

    @property
    def n_measured(self) -> int:
        return max(int(self.keep.sum()), 1)


Restriction = tuple[LinearOperator, Callable[[Tensor], Tensor]]
