"""Losses between an image and a raw measurement. They know the operator's interface, never its physics."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from disinr_monai.errors import InputError


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

    def one(self, image: Tensor, operator, measurement: Tensor, weights: Tensor | None, keep: Tensor | None = None):
        """Loss of one image ``(C, *S)``; ``keep`` masks the measurement (1 = counts)."""
        loss = self.data(image, operator, measurement, weights, keep)
        if self.tv_weight > 0:
            if image.ndim < 3:
                raise InputError(
                    f"tv_weight: total variation needs whole images, found {image.shape[-1]} scattered points of a "
                    "streamed fit; set --tv_weight 0"
                )
            loss = loss + self.tv_weight * total_variation(image)
        return loss

    def data(self, image: Tensor, operator, measurement: Tensor, weights: Tensor | None, keep: Tensor | None = None):
        """The data term alone."""
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


def _measured(case: Mapping[str, Any]) -> dict[str, Any]:
    return {"operator": case["operator"], "measurement": case["measurement"], "weights": case.get("weights")}
