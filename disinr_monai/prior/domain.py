"""Ranges of the prior's training scans, to warn of a scan outside of them."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from disinr_monai.scan import Scan

Domain = dict[str, list[float]]
"""Smallest and largest value of each number over the training scans."""

# A scan is unlike the others where a number leaves their range by more than this part of it and this factor.
_MARGIN_SHARE, _MARGIN_FACTOR = 0.25, 1.25


def characterise(scan: Scan, initial: Tensor, weight_power: float) -> dict[str, float]:
    r"""Characterise a scan by numbers, from its measurement and its classical image :math:`x_0` alone.

    * ``undersampling``: the operator's own number;
    * ``noise``: standard deviation of the noise in the image over the root mean square of :math:`x_0`;
    * ``misfit``: :math:`\|W^{1/2}(A x_0 - y)\|^2` over what noise alone makes of it (wrong geometry, scale or coil maps
      raise it; absent where the noise cannot be told);
    * ``roughness``: root mean square of the gradient of :math:`x_0` over that of :math:`x_0`;
    * ``filling``: share of pixels above a tenth of the 99th percentile.

    Args:
        scan: weights as measured.
        initial: :math:`x_0`, ``(C, *S)``.
        weight_power: of the statistical weights, as in the initial image.
    """
    size = torch.linalg.vector_norm(initial, dim=0)
    power = float(initial.square().sum(0).mean()) + 1e-20
    gradient = sum(float(torch.diff(initial, dim=axis).square().sum(0).mean()) for axis in range(1, initial.ndim))
    variance, tempered = scan.noise_level(), scan.tempered(weight_power)
    noise = float(scan.operator.noise.image(variance).square().mean())
    found = {
        "undersampling": scan.operator.undersampling(),
        "noise": math.sqrt(noise / power),
        "roughness": math.sqrt(gradient / power),
        "filling": float((size > 0.1 * _percentile(size, 0.99)).float().mean()),
    }
    expected = tempered.noise_energy(variance)
    if expected > 0:
        found["misfit"] = float(tempered.residual_energy(initial)) / expected
    return found


def include(domain: Domain, numbers: dict[str, float]) -> None:
    """Widen the range of each number so that it holds this one."""
    for name, value in numbers.items():
        low, high = domain.get(name, (value, value))
        domain[name] = [min(low, value), max(high, value)]


def outside(domain: Domain, numbers: dict[str, float]) -> list[str]:
    """List the numbers out of the training scans' ranges, as ``"undersampling 5.1 (trained on 0.9 to 2.1)"``."""
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
