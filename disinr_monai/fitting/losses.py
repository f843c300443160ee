"""Losses between an image and a raw measurement. They know the operator's interface, never its physics."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from disinr_monai.errors import InputError
from disinr_monai.operators.count_model import CountModel


def total_variation(image: Tensor, epsilon: float = 1e-6) -> Tensor:
    r"""Mean isotropic total variation, the channels (real, imaginary) jointly.

    .. math:: \frac{1}{N} \sum_p \sqrt{\textstyle\sum_{d,c} |\partial_d x_c(p)|^2 + \epsilon}

    Args:
        image: ``(C, *S)`` with two or three spatial axes.
        epsilon: smoothing, so that the gradient exists where the image is flat.
    """
    squares = torch.zeros_like(image[0])
    for axis in range(1, image.ndim):
        difference = image.diff(dim=axis).square().sum(0)
        pad = [0, 0] * (image.ndim - 1 - axis) + [0, 1]
        squares = squares + nn.functional.pad(difference, pad)
    return (squares + epsilon).sqrt().mean()


class MeasurementLoss(nn.Module):
    r"""Data consistency in the measurement domain, with optional total variation.

    .. math::
        L_1(x) &= \frac{1}{n} \| W P r \|_1 + \lambda\, \mathrm{TV}(x), \qquad r = A x - y \\
        L_2(x) &= \frac{1}{2 n} \langle W^{1/2} r, P W^{1/2} r \rangle + \lambda\, \mathrm{TV}(x)

    :math:`P` is the operator's preconditioner (the ramp filter for CT, the identity for Cartesian MRI), :math:`n` the
    number of measured samples and :math:`W` the statistical weights, if used. The square root of the ramp on the
    residual (:math:`L_2`) makes :math:`A^T P A` nearly the identity and raises the noise less than the whole ramp does
    (:math:`L_1`).

    Args:
        norm: ``"l1"`` (what related work by the same authors uses) or ``"l2"``.
        precondition: apply the operator's preconditioner.
        tv_weight: :math:`\lambda`, for images of about unit size.
        use_weights: use the statistical weights of the measurement where there are any.

    Raises:
        ValueError: unknown norm or negative weight.
    """

    def __init__(
        self, norm: str = "l1", precondition: bool = True, tv_weight: float = 0.0, use_weights: bool = False
    ) -> None:
        super().__init__()
        if norm not in ("l1", "l2"):
            raise ValueError(f"MeasurementLoss: norm must be 'l1' or 'l2', found {norm!r}")
        if tv_weight < 0:
            raise ValueError(f"MeasurementLoss: tv_weight must not be negative, found {tv_weight}")
        self.norm, self.precondition, self.tv_weight, self.use_weights = norm, precondition, tv_weight, use_weights

    def forward(self, images: Tensor, cases: Sequence[Mapping[str, Any]]) -> Tensor:
        """Mean loss over a batch: images ``(B, C, *S)`` against ``B`` cases with ``operator`` and ``measurement``."""
        losses = [self.one(image, **_measured(case)) for image, case in zip(images, cases, strict=True)]
        return torch.stack(losses).mean()

    def one(
        self,
        image: Tensor,
        operator,
        measurement: Tensor,
        weights: Tensor | None,
        keep: Tensor | None = None,
        count_model: CountModel | None = None,
    ) -> Tensor:
        """Loss of one image ``(C, *S)``; ``keep`` masks the measurement (1 = it is used)."""
        loss = self.data(image, operator, measurement, weights, keep, count_model)
        if self.tv_weight > 0:
            if image.ndim < 3:
                raise InputError(
                    f"tv_weight: total variation needs whole images, found {image.shape[-1]} scattered points of a "
                    "streamed fit; set --tv_weight 0"
                )
            loss = loss + self.tv_weight * total_variation(image)
        return loss

    def data(
        self,
        image: Tensor,
        operator,
        measurement: Tensor,
        weights: Tensor | None,
        keep: Tensor | None = None,
        count_model: CountModel | None = None,
    ) -> Tensor:
        """The data term alone."""
        if count_model is not None:
            measurement = count_model.corrected(measurement)
        residual = operator(image) - measurement
        if keep is not None:
            residual = residual * keep
        weights = weights if self.use_weights else None
        if self.norm == "l2":
            residual = residual if weights is None else residual * weights.sqrt()
            filtered = operator.precondition(residual) if self.precondition else residual
            return 0.5 * (residual * filtered.conj()).real.sum() / operator.n_measured
        size = (operator.precondition(residual) if self.precondition else residual).abs()
        if weights is not None:
            size = size * weights
        return size.sum() / operator.n_measured

    @torch.no_grad()
    def prediction_error(
        self, image: Tensor, operator, measurement: Tensor, count_model: CountModel | None = None
    ) -> Tensor:
        """How badly each sample is predicted, of the measurement's shape: here the squared residual."""
        if count_model is not None:
            measurement = count_model.corrected(measurement)
        return (operator(image) - measurement).abs().square()


class PoissonLoss(MeasurementLoss):
    r"""Negative log-likelihood of counts, with optional total variation.

    .. math:: L(x) = \frac{1}{n} \sum_i d(y_i, \hat y_i) + \lambda\, \mathrm{TV}(x_+), \qquad
        d(y, \hat y) = \hat y - y \log \hat y - (y - y \log y), \qquad \hat y = m(A x_+)

    with the case's count model :math:`m`, e.g. :math:`A x + b`. The term in brackets depends on the data only: the
    minimum is that of :math:`\sum \hat y - y \log \hat y`, and :math:`L` is about a half where the counts are fitted up
    to their noise.

    The image is :math:`x_+ = \max(x, 0)`. Where :math:`x` is negative the gradient passes only if it points up: a pixel
    that should rise can, and one that should be 0 stays there, as for a projected gradient. A softplus in the network
    would put true zeros, most of a PET image, infinitely far away; a plain clamp would never let a pixel return. Below
    ``floor`` times the mean count :math:`d` continues as its parabola, so that a line expected to see nothing, as in
    the first iterations, gives a finite slope.

    Args:
        tv_weight: :math:`\lambda`, for images of about unit size.
        floor: expected counts over the mean count below which the logarithm is replaced.
    """

    def __init__(self, tv_weight: float = 0.0, floor: float = 0.01) -> None:
        super().__init__(tv_weight=tv_weight)
        self.floor = floor

    def one(
        self,
        image: Tensor,
        operator,
        measurement: Tensor,
        weights: Tensor | None,
        keep: Tensor | None = None,
        count_model: CountModel | None = None,
    ) -> Tensor:
        """Loss of one image ``(C, *S)``; the weights have no part in it."""
        return super().one(_NonNegative.apply(image), operator, measurement, weights, keep, count_model)

    def data(
        self,
        image: Tensor,
        operator,
        measurement: Tensor,
        weights: Tensor | None,
        keep: Tensor | None = None,
        count_model: CountModel | None = None,
    ) -> Tensor:
        """The data term alone."""
        size = self._deviance(image, operator, measurement, count_model)
        return (size if keep is None else size * keep).sum() / operator.n_measured

    @torch.no_grad()
    def prediction_error(
        self, image: Tensor, operator, measurement: Tensor, count_model: CountModel | None = None
    ) -> Tensor:
        """The term :math:`d` of each sample."""
        return self._deviance(image.clamp(min=0), operator, measurement, count_model)

    def _deviance(self, image: Tensor, operator, counts: Tensor, count_model: CountModel | None) -> Tensor:
        integrals = operator(image)
        expected = integrals if count_model is None else count_model.expected(integrals)
        floor = self.floor * counts.mean().clamp(min=1e-12)
        safe = expected.clamp(min=float(floor))
        value = safe - torch.xlogy(counts, safe) - (counts - torch.xlogy(counts, counts))
        # Taylor's parabola around the floor, for what lies below it.
        below = (expected - floor).clamp(max=0)
        return value + below * (1 - counts / floor) + below.square() * counts / (2 * floor**2)


class _NonNegative(torch.autograd.Function):
    """``max(x, 0)``; where x is negative only a gradient that raises it passes."""

    @staticmethod
    def forward(ctx, x: Tensor) -> Tensor:
        ctx.save_for_backward(x)
        return x.clamp(min=0)

    @staticmethod
    def backward(ctx, gradient: Tensor) -> Tensor:
        (x,) = ctx.saved_tensors
        return torch.where((x > 0) | (gradient < 0), gradient, 0)


def _measured(case: Mapping[str, Any]) -> dict[str, Any]:
    return {key: case.get(key) for key in ("operator", "measurement", "weights", "count_model")}
