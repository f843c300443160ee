from __future__ import annotations

import torch
from torch import Tensor

from disinr_monai.errors import InputError
from disinr_monai.methods.classical import ClassicalMethod
from disinr_monai.methods.tv_prox import TotalVariationProx
from disinr_monai.operators.count_model import CountModel, EmissionCounts, TransmissionCounts
from disinr_monai.operators.linear_operator import LinearOperator


class MLEM(ClassicalMethod):
    r"""Expectation maximisation of the Poisson likelihood, with ordered subsets and total variation if wanted.

    .. math:: x \leftarrow \frac{x}{A_s^T 1}\, A_s^T \frac{y_s}{A_s x + b_s}

    (Shepp and Vardi, IEEE Trans. Med. Imaging 1:113, 1982); with subsets :math:`s` of the views one after the other it
    is OSEM (Hudson and Larkin, IEEE Trans. Med. Imaging 13:601, 1994). The iteration count is the regulariser.
    With ``tv_weight`` each step ends with

    .. math:: x \leftarrow \arg\min_{u \ge 0} \tfrac12 \|u - x\|_D^2 + λ \sum_i |(\nabla u)_i|, \qquad D = A_s^T 1 / x

    which minimises the negative log-likelihood plus TV (EM-TV: Sawatzky et al., IEEE NSS 2008, 5133).

    Args:
        n_iterations: passes over all views.
        n_subsets: parts of the views; the nearest smaller number that divides their number is taken.
        tv_weight: :math:`λ / \sqrt{\max A^T 1}`, for an image of about 1. A pixel of value 1 has a noise of about
            :math:`1 / \sqrt{A^T 1}`, so the same number suits few and many counts.
        n_prox_iterations: dual steps of each TV step.
    """

    takes_counts = True

    def __init__(
        self, *, n_iterations: int = 40, n_subsets: int = 1, tv_weight: float = 0.0, n_prox_iterations: int = 10
    ) -> None:
        super().__init__()
        if n_iterations < 1 or n_subsets < 1 or tv_weight < 0 or n_prox_iterations < 1:
            raise ValueError(
                "MLEM: expected n_iterations, n_subsets and n_prox_iterations of at least 1 and tv_weight >= 0, found "
                f"{n_iterations}, {n_subsets}, {n_prox_iterations} and {tv_weight}"
            )
        self.n_iterations, self.n_subsets = n_iterations, n_subsets
        self.tv_weight, self.n_prox_iterations = tv_weight, n_prox_iterations

    def solve(
        self,
        operator: LinearOperator,
        measurement: Tensor,
        weights: Tensor | None,
        count_model: CountModel | None = None,
    ) -> Tensor:
        """Iterate from a uniform image; the weights have no part in it.

        Raises:
            InputError: the operator or the counts have negative entries, or the scan is no emission scan.
        """
        model = EmissionCounts() if count_model is None else count_model
        if not operator.is_additive or not isinstance(model, EmissionCounts):
            raise InputError("MLEM: expected an emission scan (PET), found another; use a method of its own modality")
        if float(measurement.min()) < 0:
            raise InputError(f"MLEM: expected counts of at least 0, found {float(measurement.min()):g}")
        size = max(measurement.shape[1] // self.n_subsets, 1)
        parts = [(operator, lambda values: values)] if self.n_subsets == 1 else operator.partition.subsets(size)
        order = sorted(range(len(parts)), key=lambda i: (i * 0.6180339887) % 1.0)  # neighbours far apart in angle
        steps = [(part, select(measurement), model.part(select)) for part, select in (parts[i] for i in order)]
        sums = [part.adjoint(torch.ones_like(y)) for part, y, _ in steps]
        tv_weight = self.tv_weight * float(torch.stack(sums).sum(0).max()) ** 0.5 / len(steps)
        seen = torch.stack(sums).amin(0) > 1e-4 * torch.stack(sums).max()
        image = torch.where(seen, 1.0, 0.0)
        prox = TotalVariationProx(operator.domain_shape, image, non_negative=True) if self.tv_weight > 0 else None
        for _ in range(self.n_iterations):
            for (part, y, here), total in zip(steps, sums, strict=True):
                expected = here.expected(part(image))
                ratio = torch.where(expected > 0, y / expected.clamp(min=1e-12), 0.0)
                image = torch.where(seen, image * part.adjoint(ratio) / total.clamp(min=1e-12), 0.0)
                if prox is not None:
                    metric = total / image.clamp(min=1e-3 * float(image.max()))
                    prox.set_metric(metric.clamp(min=1e-6 * float(metric.max())))
                    image = prox(image, tv_weight, self.n_prox_iterations)
        return image


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
