"""What the prior's training scans were like, so that a scan unlike all of them does not pass without a word."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from disinr_monai.operators import LinearOperator
from disinr_monai.scan import tempered

Domain = dict[str, list[float]]
"""Name of a number to its smallest and largest value over the training scans."""

# A scan is unlike the others where a number leaves their range by more than this part of it and this factor.
_MARGIN_SHARE, _MARGIN_FACTOR = 0.25, 1.25


def describe(
    operator: LinearOperator, measurement: Tensor, weights: Tensor | None, start: Tensor, weight_power: float
) -> dict[str, float]:
    r"""Numbers that say what a scan is like, from its measurement and its classical image :math:`x_0` alone.

    * ``undersampling``: the operator's own number;
    * ``noise``: standard deviation of the noise in the image over the root mean square of :math:`x_0`;
    * ``misfit``: :math:`\|W^{1/2}(A x_0 - y)\|^2` over what noise alone makes of it (wrong geometry, scale or coil maps
      raise it; absent where the noise cannot be told);
    * ``roughness``: root mean square of the gradient of :math:`x_0` over that of :math:`x_0`;
    * ``filling``: share of pixels above a tenth of the 99th percentile.

    Args:
        operator, measurement, weights: of the scan.
        start: :math:`x_0`, ``(C, *S)``.
        weight_power: of the statistical weights, as in the start.
    """
    size = torch.linalg.vector_norm(start, dim=0)
    power = float(start.square().sum(0).mean()) + 1e-20
    gradient = sum(float(torch.diff(start, dim=axis).square().sum(0).mean()) for axis in range(1, start.ndim))
    variance = operator.noise.variance(measurement, weights)
    fair = tempered(weights, weight_power)
    noise = float(operator.noise.image(variance).square().mean())
    found = {
        "undersampling": operator.undersampling(),
        "noise": math.sqrt(noise / power),
        "roughness": math.sqrt(gradient / power),
        "filling": float((size > 0.1 * _percentile(size, 0.99)).float().mean()),
    }
    expected = operator.noise.energy(variance, fair)
    if expected > 0:
        found["misfit"] = float(operator.noise.residual_energy(operator(start) - measurement, fair)) / expected
    return found


def include(domain: Domain, numbers: dict[str, float]) -> None:
    """Widen the range of each number so that it holds this one."""
    for name, value in numbers.items():
        low, high = domain.get(name, (value, value))
        domain[name] = [min(low, value), max(high, value)]


def outside(domain: Domain, numbers: dict[str, float]) -> list[str]:
    """What is unlike the training scans, as ``"undersampling 5.1 (trained on 0.9 to 2.1)"``; empty if nothing is."""
    found = []
    for name, (low, high) in domain.items():
        value = numbers.get(name)
        if value is None:
            continue
        margin = _MARGIN_SHARE * (high - low)
        if not min(low - margin, low / _MARGIN_FACTOR) <= value <= max(high + margin, high * _MARGIN_FACTOR):
            found.append(f"{name} {value:.3g} (trained on {low:.3g} to {high:.3g})")
    return found


def _percentile(values: Tensor, share: float) -> float:
    flat = values.flatten()
    return float(flat.kthvalue(max(int(share * flat.numel()), 1)).values)
