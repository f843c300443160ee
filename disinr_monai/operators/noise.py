"""Size of noise and residuals, in the measurement and in the image."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import torch
from torch import Tensor

from disinr_monai.operators.noise_level import kspace_noise, ray_noise


class Noise:
    """Statistics of an operator's noise and residuals, for independent noise in every sample.

    Weights are those of least squares, of the measurement's shape; None is 1 everywhere.

    Args:
        operator: any :class:`~disinr_monai.operators.LinearOperator`.
    """

    def __init__(self, operator: Any) -> None:
        self.operator = operator

    def variance(self, measurement: Tensor, weights: Tensor | None = None) -> Tensor:
        """Variance of the noise as the measurement shows it, one number or one a sample (0 if it cannot tell).

        With the signal of the samples that it looks at: what the released prior was trained with. :meth:`estimate` is
        nearer to the truth.
        """
        return torch.zeros((), device=measurement.device)

    def estimate(self, measurement: Tensor, weights: Tensor | None = None) -> Tensor:
        """Variance of the noise, as near to the truth as the measurement tells; one number or one a sample."""
        return self.variance(measurement, weights)

    def relative(self, variance: Tensor, measurement: Tensor) -> float:
        """Noise over the measurement, root mean squares, as the option ``noise_std`` counts it."""
        power = float(measurement.abs().square().sum()) / self.operator.n_measured
        return math.sqrt(self.energy(variance) / power) if power > 0 else 0.0

    def energy(self, variance: Tensor | None, weights: Tensor | None = None) -> float:
        """Expected :meth:`residual_energy` of noise with this variance (of the samples, or one for all)."""
        return 0.0 if variance is None else float(self._weighted(variance, weights).mean())

    def image(self, variance: Tensor) -> Tensor:
        """Rough standard deviation of the noise in each pixel, ``(1, *S)``; by default the same in all."""
        return variance.mean().sqrt().expand(1, *self.operator.domain_shape[1:])

    def residual_energy(self, residual: Tensor, weights: Tensor | None = None) -> Tensor:
        r"""Squared size of a residual, about the mean squared error of the image that it comes from."""
        size = (residual * residual.conj()).real
        return (size if weights is None else size * weights).sum() / self.operator.n_measured

    def residual_image(self, residual: Tensor, weights: Tensor | None = None) -> Tensor:
        """A measurement residual as an image ``domain_shape``, in about its units (the adjoint by default)."""
        return self.operator.adjoint(residual if weights is None else residual * weights)

    def _weighted(self, variance: Tensor, weights: Tensor | None) -> Tensor:
        size = torch.as_tensor(variance).expand(self.operator.range_shape)
        return size if weights is None else size * weights


class KspaceNoise(Noise):
    """Noise of Cartesian k-space: the same in every sample."""

    def variance(self, measurement: Tensor, weights: Tensor | None = None) -> Tensor:
        """Median power in the outermost twelfth of the readout, where there is hardly any signal."""
        edge = max(self.operator.range_shape[1] // 12, 1)
        kept = self.operator.sampled > 0
        kept[edge:-edge] = False
        power = measurement[:, kept].abs().square()
        return power.median() / math.log(2) if power.numel() else torch.zeros((), device=measurement.device)

    def estimate(self, measurement: Tensor, weights: Tensor | None = None) -> Tensor:
        """As :func:`~disinr_monai.operators.noise_level.kspace_noise` finds it."""
        rows, columns = (torch.linspace(-1, 1, n, device=measurement.device) for n in self.operator.range_shape[1:])
        sampled = self.operator.sampled > 0
        return kspace_noise(measurement * sampled, torch.hypot(rows[:, None], columns))


class TrajectoryNoise(Noise):
    """Noise of k-space along a trajectory, times the root of its density."""

    def variance(self, measurement: Tensor, weights: Tensor | None = None) -> Tensor:
        """Median power in the outermost twelfth of k-space, where there is hardly any signal."""
        operator = self.operator
        reach = (np.abs(operator.trajectory) / (np.array(operator.domain_shape[1:]) / 2)).max(-1)
        outer = torch.from_numpy(reach > 1 - 1 / 12).to(measurement.device) & (operator.root_density > 0)
        density = operator.root_density.square()
        power = measurement[:, outer].abs().square() / density[outer]
        return density * (power.median() / math.log(2) if power.numel() else 0)

    def estimate(self, measurement: Tensor, weights: Tensor | None = None) -> Tensor:
        """As :func:`~disinr_monai.operators.noise_level.kspace_noise` finds it; straight readouts are lines."""
        operator = self.operator
        root, trajectory = operator.root_density, operator.trajectory
        bend = np.abs(np.diff(trajectory, 2, axis=1)).max(initial=0.0)
        radius = torch.from_numpy(np.linalg.norm(trajectory / (np.array(operator.domain_shape[1:]) / 2), axis=-1))
        samples = torch.where(root > 0, measurement / root.clamp(min=1e-12), 0)
        return root.square() * kspace_noise(samples, radius.to(root), (2,) if bend < 1e-3 else ())

    def relative(self, variance: Tensor, measurement: Tensor) -> float:
        """Noise over the measurement, of the samples before they are multiplied by the root of the density."""
        density = self.operator.root_density.square()
        power = measurement.abs().square() / density.clamp(min=1e-12)
        noise = (torch.as_tensor(variance) / density.clamp(min=1e-12)).expand(density.shape)[density > 0]
        power = power[:, density > 0]
        return math.sqrt(float(noise.mean() / power.mean())) if float(power.sum()) > 0 else 0.0

    def energy(self, variance: Tensor | None, weights: Tensor | None = None) -> float:
        """Expected :meth:`residual_energy` of noise with this variance, over the cells measured."""
        return 0.0 if variance is None else float(self._weighted(variance, weights).sum()) / self.operator.n_measured

    def image(self, variance: Tensor) -> Tensor:
        """Root of the mean variance of the measured cells, the same in every pixel."""
        density = self.operator.root_density.square()
        mean = (variance * density).sum() / density.sum().clamp(min=1e-12)
        return mean.sqrt().expand(1, *self.operator.domain_shape[1:])


class ViewNoise(Noise):
    """Noise of line integrals; the ramp filter along the detector gives residuals the units of the image."""

    def variance(self, measurement: Tensor, weights: Tensor | None = None) -> Tensor:
        r"""Variances :math:`c / w`, with :math:`c` from the rays that miss the image and hence measure only noise."""
        weights = torch.ones_like(measurement) if weights is None else weights
        missing = self.operator(torch.ones(self.operator.domain_shape).to(measurement)) == 0
        if not bool(missing.any()):
            return torch.zeros_like(measurement)
        return (weights * measurement.square())[missing].mean() / weights

    def estimate(self, measurement: Tensor, weights: Tensor | None = None) -> Tensor:
        """By :func:`~disinr_monai.operators.noise_level.ray_noise`, or of the rays that miss the image if that is less.

        Weights say how the noise of the rays compares; without them it grows with the attenuation.
        """
        found = ray_noise(measurement, weights)
        if weights is None:
            return found
        missing = self.variance(measurement, weights)
        return torch.minimum(found, missing) if bool((missing > 0).any()) else found

    def energy(self, variance: Tensor | None, weights: Tensor | None = None) -> float:
        """Expected :meth:`residual_energy` of independent noise: the filter's centre tap times the variances."""
        if variance is None:
            return 0.0
        total, n_pixels = float(self._weighted(variance, weights).sum()), math.prod(self.operator.domain_shape)
        return total * torch.pi * self.operator.ramp.sharp_centre * self.operator.image_per_view / n_pixels

    def image(self, variance: Tensor) -> Tensor:
        """Root of the back-projected variances, over the number of views."""
        views = self.operator.range_shape
        return 10 * self.operator.adjoint(variance.expand(views)).clamp(min=0).sqrt() / views[1]

    def residual_energy(self, residual: Tensor, weights: Tensor | None = None) -> Tensor:
        r"""Mean squared error of the image, estimated from the residual of its projections.

        .. math:: \frac{π\, τ}{V\, N Δ^2} \sum_v \langle W^{1/2} r_v,\; \tilde R\, W^{1/2} r_v\rangle

        with the ramp over the fourth power of the blur of a cell, :math:`\tilde R = R / \mathrm{sinc}^4`. By Parseval
        :math:`A^T \tilde R A` is about the identity up to the highest frequency of the detector, so that details count
        as much as in the image's own mean square, and zero-mean noise in the residual only adds a constant.
        """
        self.operator._check_range(residual)
        if weights is not None:
            residual = residual * weights.sqrt()
        sharp = torch.pi * self.operator.ramp.sharpened(residual)
        return (residual * sharp).sum() * (self.operator.image_per_view / math.prod(self.operator.domain_shape))

    def residual_image(self, residual: Tensor, weights: Tensor | None = None) -> Tensor:
        r"""Back-projection of :math:`W^{1/2} R W^{1/2} r` with a smoothed ramp :math:`R`, in image units."""
        self.operator._check_range(residual)
        root = 1.0 if weights is None else weights.sqrt()
        # Binomial smoothing along the detector: the highest frequencies of a residual are noise.
        values = root * residual
        padded = torch.nn.functional.pad(values, (1, 1))
        smooth = 0.5 * values + 0.25 * (padded[..., :-2] + padded[..., 2:])
        return self.operator.adjoint(root * self.operator.precondition(smooth)) * self.operator.image_per_view


class CompositionNoise(Noise):
    """Of ``A @ B``: the measurement, its noise and the size of its residuals are those of ``A``."""

    def __init__(self, operator: Any) -> None:
        super().__init__(operator)
        self.outer = outer = operator.outer.noise
        self.variance, self.energy, self.residual_energy = outer.variance, outer.energy, outer.residual_energy
        self.estimate, self.relative = outer.estimate, outer.relative

    def image(self, variance: Tensor) -> Tensor:
        """Noise image of ``A`` if both have the same pixels, else its mean square everywhere."""
        image, shape = self.outer.image(variance), self.operator.domain_shape[1:]
        return image if image.shape[1:] == shape else image.square().mean().sqrt().expand(1, *shape)

    def residual_image(self, residual: Tensor, weights: Tensor | None = None) -> Tensor:
        return self.operator.inner.adjoint(self.outer.residual_image(residual, weights))
