from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor


@dataclass(frozen=True)
class Residual:
    """How an image fits the measurement that it was made from.

    Attributes:
        unexplained: root mean square of what is left over, without the noise, over that of the measurement.
        over_noise: power of the whole residual over that of the noise; infinite where no noise was found.
        kind: what was compared: ``"k-space"``, ``"integrals"``, ``"counts"`` or ``"samples"``.
    """

    unexplained: float
    over_noise: float
    kind: str


@torch.no_grad()
def measure_residual(case: Mapping[str, Any], image: Tensor) -> Residual:
    r"""How an image fits its measurement.

    * k-space: the noise :math:`σ^2` is that of the edge of the readout, :math:`u^2 = (\|Ax - y\|^2 - nσ^2)_+ / \|y\|^2`;
    * line integrals and counts: neighbouring cells of a detector have independent noise, but what an image gets wrong
      spreads over several. The power without the noise is the mean product of neighbours,
      :math:`u^2 = \big(\sum_i r_i r_{i+1}\big)_+ / \sum_i y_i^2` with the statistical weights; of counts
      :math:`r = \hat y - y` in units of :math:`\sqrt{\hat y}`.

    Args:
        case: ``operator``, ``measurement`` and, if it has them, ``weights`` and ``count_model``.
        image: ``(C, *S)`` on the operator's grid.
    """
    operator, measured = case["operator"], case["measurement"]
    model = case.get("count_model")
    if model is not None:
        expected = model.expected(operator(image.clamp(min=0)))
        deviation = expected.clamp(min=0.01 * float(measured.mean())).sqrt()
        return _by_neighbours((expected - measured) / deviation, (expected - model.background) / deviation, "counts")
    residual = operator(image) - measured
    if measured.is_complex():
        noise = operator.noise_energy(operator.noise_variance(measured))
        left, whole = float(operator.residual_energy(residual)), float(operator.residual_energy(measured))
        share = math.sqrt(max(left - noise, 0) / max(whole, 1e-30))
        return Residual(share, left / noise if noise > 0 else math.inf, "k-space")
    root = 1.0 if case.get("weights") is None else case["weights"].sqrt()
    return _by_neighbours(root * residual, root * measured, "integrals")


def _by_neighbours(residual: Tensor, signal: Tensor, kind: str) -> Residual:
    power = float(residual.square().mean())
    structured = float((residual[..., 1:] * residual[..., :-1]).mean())
    whole = float(signal.square().mean())
    noise = power - max(structured, 0)
    return Residual(
        math.sqrt(max(structured, 0) / max(whole, 1e-30)), power / noise if noise > 0 else math.inf, kind
    )


def poor_fit(residual: Residual) -> str:
    return ""
