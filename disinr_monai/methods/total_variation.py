from __future__ import annotations

from dataclasses import replace
from typing import Literal

import torch
from torch import Tensor

from disinr_monai.methods.classical import ClassicalMethod, far_apart
from disinr_monai.methods.tv_prox import TotalVariationProx
from disinr_monai.scan import Scan


class TotalVariation(ClassicalMethod):
    r"""Least squares with isotropic total variation, the strongest baseline.

    .. math:: \min_x \; \frac{1}{2L} \|W^{1/2}(A x - y)\|^2 + λ \sum_i |(\nabla x)_i|, \qquad L = \|A^H A\|

    Dividing by :math:`L` makes ``tv_weight`` mean the same for every operator and number of views; ``absolute`` leaves
    it out (:math:`L = 1`), which suits a given noise: more views, more weight on the data. The two channels of a
    complex image share one gradient norm.

    Two solvers, both with momentum and a warm-started proximal step:

    * FISTA (Beck and Teboulle, SIAM J. Imaging Sci. 2:183, 2009) with restarts (O'Donoghue and Candes, Found. Comput.
      Math. 15:715, 2015);
    * for operators that only add (CT): the diagonal majoriser :math:`D = A^T W A 1 \succeq A^T W A` in place of the
      scalar :math:`L` and ordered subsets of the views in the first iterations (Erdogan and Fessler, Phys. Med. Biol.
      44:2835, 1999; with momentum: Kim, Ramani and Fessler, IEEE Trans. Med. Imaging 34:167, 2015). With weights, the
      scalar bound is that of the air around the patient: 150 plain FISTA steps stay up to 1 dB short of the minimum.

    Args:
        tv_weight: :math:`λ`, for an image of about 1: 1e-4 suits CT with 60 views and 1e5 photons,
            MRI needs 5 to 50 times as much (in CT, :math:`L` belongs to the mean of the image, far above its details).
            None or ``"auto"``: chosen from noise and undersampling of each scan
            (:mod:`disinr_monai.methods.automatic`); ``absolute`` is then of no importance.
        n_iterations: gradient steps (of which the first use a part of the views where the operator has subsets).
        n_prox_iterations: dual steps inside each proximal step.
        non_negative: constrain the image (CT, not MRI).
        weight_power: the statistical weights :math:`w` of a case enter as :math:`W = w^p`, mean 1. With :math:`p = 1`
            rays through air, whose error is that of the pixel grid and not of the photons, count too much; 0 ignores
            the weights.
        absolute: ``tv_weight`` for the data term without :math:`1/L`.
        factor: of the weight, given or chosen.
    """

    def __init__(
        self,
        *,
        tv_weight: float | Literal["auto"] | None = 1e-4,
        n_iterations: int = 150,
        n_prox_iterations: int = 5,
        non_negative: bool = False,
        weight_power: float = 0.5,
        absolute: bool = False,
        factor: float = 1.0,
    ) -> None:
        super().__init__()
        tv_weight = None if tv_weight == "auto" else tv_weight
        if (tv_weight is not None and tv_weight < 0) or n_iterations < 1 or n_prox_iterations < 1:
            raise ValueError(
                "TotalVariation: expected tv_weight >= 0, n_iterations >= 1 and n_prox_iterations >= 1, "
                f"found {tv_weight}, {n_iterations}, {n_prox_iterations}"
            )
        self.tv_weight = tv_weight
        self.n_iterations = n_iterations
        self.n_prox_iterations = n_prox_iterations
        self.non_negative = non_negative
        self.weight_power = weight_power
        self.absolute = absolute
        self.factor = factor

    def solve(self, scan: Scan, initial: Tensor | None = None) -> Tensor:
        """Minimise from ``initial``, by default the direct inverse."""
        scan = scan.tempered(self.weight_power)
        weight, absolute = self.tv_weight, self.absolute
        if weight is None:
            weight, absolute = self.chosen("tv", scan), scan.operator.partition.gaps == "views"
        weight *= self.factor
        image = scan.operator.direct_inverse(scan.measurement) if initial is None else initial.clone()
        if scan.operator.is_additive and not scan.measurement.is_complex():
            return self._subsets(scan, image, weight, absolute)
        return self._fista(scan, image, weight, absolute)

    def _fista(self, scan: Scan, image: Tensor, weight: float, absolute: bool) -> Tensor:
        norm = scan.operator.norm_squared()
        tv_weight = weight / norm if absolute else weight
        # The power method approaches the norm from below.
        step = 0.95
        if scan.weights is not None:
            step *= norm / _weighted_norm(scan)
        prox = TotalVariationProx(scan.operator.domain_shape, image, self.non_negative)
        target = scan.adjoint()
        momentum, t = image, 1.0
        for _ in range(self.n_iterations):
            slope = scan.gram(momentum) - target
            following = prox(torch.add(momentum, slope, alpha=-step / norm), step * tv_weight, self.n_prox_iterations)
            image, momentum, t = _accelerate(image, following, momentum, t)
        return image

    def _subsets(self, scan: Scan, image: Tensor, weight: float, absolute: bool) -> Tensor:
        if scan.weights is None:
            scan = replace(scan, weights=torch.ones_like(scan.measurement))
        operator = scan.operator
        metric = operator.adjoint(scan.weights * operator(torch.ones_like(image)))
        # A pixel that hardly any ray meets would take a step without bounds.
        metric = metric.clamp(min=1e-3 * float(metric.max()))
        tv_weight = weight if absolute else weight * operator.norm_squared()
        if self.non_negative:
            image = image.clamp(min=0)
        prox = TotalVariationProx(operator.domain_shape, image, self.non_negative, metric)
        for parts, n_iterations in self._plan(scan):
            momentum, t = image, 1.0
            for i in range(n_iterations):
                part = parts[i % len(parts)]
                slope = part.operator.adjoint(part.weights * part.residual(momentum)).mul_(len(parts)).div_(metric)
                following = prox(momentum - slope, tv_weight, self.n_prox_iterations)
                # Gradients of subsets disagree at random: only those of all views may ask for a restart.
                image, momentum, t = _accelerate(image, following, momentum, t, restart=len(parts) == 1)
        return image

    def _plan(self, scan: Scan) -> list[tuple[list[Scan], int]]:
        """Ordered subsets of each phase and its number of iterations: small ones, three times as large, all views."""
        small, large = far_apart(scan.subsets(6)), far_apart(scan.subsets(18))
        if len(small) < 2:
            return [([scan], self.n_iterations)]
        n = self.n_iterations
        # Small subsets with momentum drift away from the minimum after some hundred steps: their number is bounded.
        first = min(round(0.64 * n), 160)
        middle = round(0.8 * (n - first))
        return [(small, first), (large, middle), ([scan], n - first - middle)]


def _accelerate(
    image: Tensor, following: Tensor, momentum: Tensor, t: float, restart: bool = True
) -> tuple[Tensor, Tensor, float]:
    """Nesterov's step: the new image, the point of the next gradient and the new ``t``."""
    change = following - image
    if restart and torch.dot((momentum - following).flatten(), change.flatten()) > 0:
        t = 1.0
    t, previous_t = (1 + (1 + 4 * t * t) ** 0.5) / 2, t
    return following, torch.add(following, change, alpha=(previous_t - 1) / t), t


def _weighted_norm(scan: Scan, n_iterations: int = 20) -> float:
    operator, value = scan.operator, torch.zeros(())
    x = operator.adjoint(scan.weights)
    for _ in range(n_iterations):
        x = operator.adjoint(scan.weights * operator(x / torch.linalg.vector_norm(x)))
        value = torch.linalg.vector_norm(x)
    return float(value)
