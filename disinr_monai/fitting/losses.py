"""Losses between an image and a raw measurement. They know the operator's interface, never its physics."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from disinr_monai.fitting.regularisers import Regulariser
from disinr_monai.scan import Scan


class MeasurementLoss(nn.Module):
    r"""Data consistency in the measurement domain plus regularisers, :math:`L(x) = D(x) + \sum_k \lambda_k R_k(x)`.

    .. math::
        D_1(x) &= \frac{1}{n} \| W P r \|_1, \qquad r = A x - y \\
        D_2(x) &= \frac{1}{2 n} \langle W^{1/2} r, P W^{1/2} r \rangle

    :math:`P` is the operator's preconditioner (the ramp filter for CT, the identity for Cartesian MRI), :math:`n` the
    number of measured samples and :math:`W` the statistical weights, if used. The square root of the ramp on the
    residual (:math:`D_2`) makes :math:`A^T P A` nearly the identity and raises the noise less than the whole ramp does
    (:math:`D_1`).

    Args:
        norm: ``"l1"`` (what related work by the same authors uses) or ``"l2"``.
        precondition: apply the operator's preconditioner.
        regularisers: :math:`R_k`, each with its own weight (:mod:`disinr_monai.fitting.regularisers`).
        use_weights: use the statistical weights of the measurement where there are any.

    Raises:
        ValueError: unknown norm.
    """

    def __init__(
        self,
        norm: str = "l1",
        precondition: bool = True,
        regularisers: Sequence[Regulariser] = (),
        use_weights: bool = False,
    ) -> None:
        super().__init__()
        if norm not in ("l1", "l2"):
            raise ValueError(f"MeasurementLoss: norm must be 'l1' or 'l2', found {norm!r}")
        self.norm, self.precondition, self.use_weights = norm, precondition, use_weights
        self.regularisers = nn.ModuleList(regularisers)

    def forward(self, images: Tensor, cases: Sequence[Mapping[str, Any]]) -> Tensor:
        """Mean loss over a batch: images ``(B, C, *S)`` against the scans of ``B`` cases."""
        losses = [self.one(image, case["scan"]) for image, case in zip(images, cases, strict=True)]
        return torch.stack(losses).mean()

    def one(self, image: Tensor, scan: Scan, keep: Tensor | None = None) -> Tensor:
        """Loss of one image ``(C, *S)``; ``keep`` masks the measurement (1 = it is used)."""
        loss = self.data(image, scan, keep)
        for regulariser in self.regularisers:
            if regulariser.weight > 0:
                loss = loss + regulariser.weight * regulariser(image)
        return loss

    def data(self, image: Tensor, scan: Scan, keep: Tensor | None = None) -> Tensor:
        """Data term of one image, without the regularisers."""
        operator, residual = scan.operator, scan.corrected().residual(image)
        if keep is not None:
            residual = residual * keep
        weights = scan.weights if self.use_weights else None
        if self.norm == "l2":
            residual = residual if weights is None else residual * weights.sqrt()
            filtered = operator.precondition(residual) if self.precondition else residual
            return 0.5 * (residual * filtered.conj()).real.sum() / operator.n_measured
        size = (operator.precondition(residual) if self.precondition else residual).abs()
        if weights is not None:
            size = size * weights
        return size.sum() / operator.n_measured

    @torch.no_grad()
    def prediction_error(self, image: Tensor, scan: Scan) -> Tensor:
        """Error with which each sample is predicted, of the measurement's shape: here the squared residual."""
        return scan.corrected().residual(image).abs().square()


class PoissonLoss(MeasurementLoss):
    r"""Negative log-likelihood of counts plus regularisers.

    .. math:: L(x) = \frac{1}{n} \sum_i d(y_i, \hat y_i) + \sum_k \lambda_k R_k(x_+), \qquad
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
        regularisers: :math:`R_k`, as for :class:`MeasurementLoss`.
        floor: expected counts over the mean count below which the logarithm is replaced.
    """

    def __init__(self, regularisers: Sequence[Regulariser] = (), floor: float = 0.01) -> None:
        super().__init__(regularisers=regularisers)
        self.floor = floor

    def one(self, image: Tensor, scan: Scan, keep: Tensor | None = None) -> Tensor:
        """Loss of one image ``(C, *S)``; the statistical weights are not used."""
        return super().one(_NonNegative.apply(image), scan, keep)

    def data(self, image: Tensor, scan: Scan, keep: Tensor | None = None) -> Tensor:
        """Data term of one image, without the regularisers."""
        size = self._deviance(image, scan)
        return (size if keep is None else size * keep).sum() / scan.operator.n_measured

    @torch.no_grad()
    def prediction_error(self, image: Tensor, scan: Scan) -> Tensor:
        """Term :math:`d` of each sample."""
        return self._deviance(image.clamp(min=0), scan)

    def _deviance(self, image: Tensor, scan: Scan) -> Tensor:
        integrals, counts = scan.operator(image), scan.measurement
        expected = integrals if scan.counts is None else scan.counts.expected(integrals)
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
