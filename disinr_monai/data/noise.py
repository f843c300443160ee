"""Noise of a case's scan: from the file where it says so, else from the measurement."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import torch

from disinr_monai.scan import Scan

# A noise scan with another bandwidth than the image's is off by the root of their ratio.
_AGREES = 1.5


def with_kspace_noise(scan: Scan, known: float | None = None) -> tuple[Scan, dict[str, Any]]:
    """Keep the noise with an MRI scan.

    Args:
        scan: in its final units.
        known: standard deviation of one complex sample, in these units, from a noise scan. It is used unless the
            measurement shows a noise that differs by more than a factor of 1.5: noise scans often have another
            bandwidth.

    Returns:
        The scan, and for ``info``: ``noise_estimate``, relative to the root mean square of the sampled k-space as
        ``noise_std`` of a simulation is, and ``noise_from``, ``"noise scan"`` or ``"measurement"``.
    """
    estimate, origin = scan.noise_level(), "measurement"
    if known is not None:
        measured = replace(scan, noise=estimate).noise_std()
        density = getattr(scan.operator, "root_density", None)
        variance = torch.tensor(known**2) if density is None else known**2 * density.square()
        told = replace(scan, noise=variance).noise_std()
        if measured == 0 or 1 / _AGREES < told / measured < _AGREES:
            estimate, origin = variance, "noise scan"
    scan = replace(scan, noise=estimate)
    return scan, {"noise_estimate": scan.noise_std(), "noise_from": origin}


def with_ray_noise(scan: Scan, nepers: float) -> tuple[Scan, dict[str, Any]]:
    """Keep the noise with a scan of line integrals.

    Args:
        scan: in its final units.
        nepers: factor from its values to :math:`-\\log(n / n_0)`.

    Returns:
        The scan, and for ``info``: ``photons_estimate``, the photons of a ray through air that give this noise (absent
        where there is none).
    """
    variance = scan.noise_level()
    scan = replace(scan, noise=variance)
    least = float(variance.min()) * nepers**2
    return scan, {"photons_estimate": 1 / least} if least > 0 and math.isfinite(1 / least) else {}
