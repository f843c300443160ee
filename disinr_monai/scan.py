"""One scan: a measurement with its forward model and statistics."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from disinr_monai.operators.count_model import CountModel
from disinr_monai.operators.linear_operator import LinearOperator


@dataclass(frozen=True, eq=False)
class Scan:
    r"""A measurement :math:`y \approx A x` of an image.

    Args:
        operator: :math:`A`.
        measurement: :math:`y`, ``(..., *range_shape)``; raw counts where there is a count model.
        weights: statistical weights :math:`W` (diagonal), of the measurement's shape; None: all are 1.
        counts: expected counts for :math:`A x` of a scan of counts (PET).
        noise: variance of the noise where it is known: one number, or of a shape that expands to ``range_shape``.

    Raises:
        ValueError: measurement or weights do not have the shape of the operator's range.
    """

    operator: LinearOperator
    measurement: Tensor
    weights: Tensor | None = None
    counts: CountModel | None = None
    noise: Tensor | None = None

    def __post_init__(self) -> None:
        shape = self.operator.range_shape
        for name, tensor in (("measurement", self.measurement), ("weights", self.weights)):
            if tensor is not None and tuple(tensor.shape[-len(shape) :]) != shape:
                raise ValueError(f"Scan: {name} must have the operator's shape {shape}, found {tuple(tensor.shape)}")

    def to(self, device: torch.device | str | None) -> Scan:
        """Move the scan to a device."""
        parts = (self.operator, self.measurement, self.weights, self.counts, self.noise)
        return Scan(*(None if part is None else part.to(device) for part in parts))

    def corrected(self) -> Scan:
        """Replace counts by the estimate of :math:`A x` that linear methods understand."""
        if self.counts is None:
            return self
        return replace(self, measurement=self.counts.corrected(self.measurement), counts=None)

    def tempered(self, power: float) -> Scan:
        """Raise the weights to a power and divide by their mean; power 0 makes all equal (None)."""
        if self.weights is None or power == 0:
            return replace(self, weights=None)
        weights = self.weights**power
        return replace(self, weights=weights / weights.mean())

    def restrict(self, keep: Tensor) -> Scan:
        """Restrict the scan to the samples of a boolean mask over ``range_shape``; the others have no influence."""
        return self._part(*self.operator.partition.restrict(keep))

    def subsets(self, size: int) -> list[Scan]:
        """Divide the scan into ordered subsets of about ``size`` projections; the whole scan if it has none."""
        return [self._part(*part) for part in self.operator.partition.subsets(size)]

    def draw(
        self, generator: torch.Generator | None = None, among: Tensor | None = None
    ) -> tuple[Callable[[Tensor], Tensor], Scan] | None:
        """Draw a random part for one step of a fit.

        Args:
            generator: random generator on the CPU; PyTorch's own by default.
            among: boolean mask over ``range_shape`` of the samples to draw from.

        Returns:
            The function that takes the part's ``n`` points ``(D, n)`` out of the voxel centres ``(D, *S)``, and the
            part as a scan of these points; None where every sample depends on the whole image.
        """
        part = self.operator.partition.draw(generator, among)
        return None if part is None else (part.at, self._part(part.operator, part.select))

    def _part(self, operator: LinearOperator, select: Callable[[Tensor], Tensor]) -> Scan:
        weights = None if self.weights is None else select(self.weights)
        counts = None if self.counts is None else self.counts.part(select)
        noise = self.noise
        if noise is not None and noise.ndim:
            shape = self.operator.range_shape
            # The same in all coils, before and after.
            noise = select(noise.expand(shape))[(0,) * (len(shape) - noise.ndim)]
        return Scan(operator, select(self.measurement), weights, counts, noise)

    def residual(self, image: Tensor) -> Tensor:
        r""":math:`A x - y`."""
        return self.operator(image) - self.measurement

    def adjoint(self) -> Tensor:
        r""":math:`A^H W y`, the right-hand side of the normal equations."""
        return self.operator.adjoint(self.measurement if self.weights is None else self.measurement * self.weights)

    def gram(self, image: Tensor) -> Tensor:
        r""":math:`A^H W A x`, the left-hand side of the normal equations."""
        return self.operator.gram(image, self.weights)

    def residual_image(self, image: Tensor) -> Tensor:
        """Map :math:`y - A x` to the image, in about its units."""
        return self.operator.noise.residual_image(self.measurement - self.operator(image), self.weights)

    def residual_energy(self, image: Tensor) -> Tensor:
        """Estimate the mean squared error of an image, noise included, from its weighted residual."""
        return self.operator.noise.residual_energy(self.residual(image), self.weights)

    def noise_level(self) -> Tensor:
        """Variance of the noise: ``noise`` where it is known, else the best estimate; one number or one a sample."""
        if self.noise is not None:
            return self.noise
        return self.operator.noise.estimate(self.measurement, self.weights)

    def noise_std(self) -> float:
        """Noise over the measurement, root mean squares of the samples, as the option ``noise_std`` counts it."""
        return self.operator.noise.relative(self.noise_level(), self.measurement)

    def noise_energy(self, variance: Tensor) -> float:
        """Expected :meth:`residual_energy` of noise alone, with this variance."""
        return self.operator.noise.energy(variance, self.weights)
