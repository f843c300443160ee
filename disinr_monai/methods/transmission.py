from __future__ import annotations

import torch
from torch import Tensor

from disinr_monai.count_model import CountModel, TransmissionCounts
from disinr_monai.errors import InputError
from disinr_monai.methods.classical import ClassicalMethod
from disinr_monai.methods.tv_prox import TotalVariationProx
from disinr_monai.operators.linear_operator import LinearOperator


class SeparableSurrogates(ClassicalMethod):
    r"""Poisson likelihood of a transmission scan, :math:`\hat y = c\, e^{-A x} + b`, with total variation if wanted.

    .. math:: x \leftarrow \Big[x - \frac{A^T \dot h(A x)}{A^T (κ \odot A 1)}\Big]_+, \qquad
        κ(l) = \Big[\frac{2}{l^2}\big(h(0) - h(l) + \dot h(l)\, l\big)\Big]_+

    with :math:`h(l) = \hat y(l) - y \log \hat y(l)` of each line: separable paraboloidal surrogates with the optimal
    curvature, so that the likelihood never falls (Erdogan and Fessler, IEEE Trans. Med. Imaging 18:801, 1999). TV is a
    proximal step in the metric of the surrogate.

    Args:
        n_iterations: number of iterations.
        tv_weight: of the total variation, over the root of the largest entry of the first :math:`A^T (κ \odot A 1)`,
            for an image of about 1.
        n_prox_iterations: dual steps of each TV step.
    """

    takes_counts = True

    def __init__(self, *, n_iterations: int = 60, tv_weight: float = 0.0, n_prox_iterations: int = 10) -> None:
        super().__init__()
        if n_iterations < 1 or tv_weight < 0 or n_prox_iterations < 1:
            raise ValueError(
                "SeparableSurrogates: expected n_iterations and n_prox_iterations of at least 1 and tv_weight >= 0, "
                f"found {n_iterations}, {n_prox_iterations} and {tv_weight}"
            )
        self.n_iterations, self.tv_weight, self.n_prox_iterations = n_iterations, tv_weight, n_prox_iterations

    def solve(
        self,
        operator: LinearOperator,
        measurement: Tensor,
        weights: Tensor | None,
        count_model: CountModel | None = None,
    ) -> Tensor:
        """Iterate from filtered back-projection; the weights have no part in it.

        Raises:
            InputError: the scan is no transmission scan.
        """
        if not isinstance(count_model, TransmissionCounts):
            raise InputError(
                "SeparableSurrogates: expected a transmission scan, found another; add configs/transmission.json"
            )
        lengths = operator(torch.ones(operator.domain_shape).to(measurement))
        image = operator.direct_inverse(count_model.corrected(measurement)).clamp(min=0)
        prox = TotalVariationProx(operator.domain_shape, image, non_negative=True) if self.tv_weight > 0 else None
        unit = None
        for _ in range(self.n_iterations):
            slope, curvature = _surrogate(operator(image), measurement, count_model)
            metric = operator.adjoint(curvature * lengths)
            metric = metric.clamp(min=1e-4 * float(metric.max()))
            image = image - operator.adjoint(slope) / metric
            if prox is None:
                image = image.clamp(min=0)
            else:
                unit = float(metric.max()) ** 0.5 if unit is None else unit
                prox.set_metric(metric)
                image = prox(image, self.tv_weight * unit, self.n_prox_iterations)
        return image


def _surrogate(integrals: Tensor, counts: Tensor, model: TransmissionCounts) -> tuple[Tensor, Tensor]:
    """Slope and optimal curvature of each line's negative log-likelihood at ``integrals`` (not negative)."""
    blank, background, y, l = (t.double() for t in (model.blank, model.background, counts, integrals))  # noqa: E741
    through = blank * torch.exp(-l)
    expected = (through + background).clamp(min=1e-9)
    slope = through * (y / expected - 1)
    start = blank + background
    # h(0) - h(l): two nearly equal numbers for thin lines, hence double precision, and the second derivative there.
    drop = (start - torch.xlogy(y, start)) - (expected - torch.xlogy(y, expected))
    at_zero = blank * (1 - y * background / start.square())
    curvature = torch.where(l > 1e-3, 2 * (drop + slope * l) / l.square().clamp(min=1e-6), at_zero)
    return slope.to(counts), curvature.clamp(min=0).to(counts)
