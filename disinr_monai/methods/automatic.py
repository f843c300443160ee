r"""How strongly a classical method regularises a scan, chosen from the scan itself.

.. math:: λ = c\, \Big(\frac{σ^2}{s^2} + σ_0^2\Big)^{a/2}\, u^b\, s

with the standard deviation :math:`σ` of the noise of one measured sample, the undersampling :math:`u` and the size
:math:`s` of the image (as last factor only where :math:`λ` has its units), so that a scan in other units gives the
same image. :math:`σ_0` stands for what the forward model leaves over without noise. The numbers are fitted by
``scripts/fit_weights.py`` (see there), one set for each method and kind of gap that a scan has
(``operator.partition.gaps``).
"""

from __future__ import annotations

import logging
import math
from dataclasses import dataclass

import torch

from disinr_monai.errors import InputError
from disinr_monai.scan import Scan

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Rule:
    """One set of numbers of the rule.

    Attributes:
        factor: :math:`c`.
        noise_power: :math:`a`.
        floor: :math:`σ_0`.
        gap_power: :math:`b`.
    """

    factor: float
    noise_power: float
    floor: float
    gap_power: float

    def __call__(self, noise: float, gap: float) -> float:
        """The weight, of relative noise and undersampling."""
        return self.factor * (noise**2 + self.floor**2) ** (self.noise_power / 2) * gap**self.gap_power


# Weights of a norm of the image, not of its square: they have its units.
HAVE_UNITS = ("tv", "l1_wavelet")

# Of scripts/fit_weights.py, seed 0, one slice of each pre-training person. MRI (ARC_M2265, openms_lg09, elastix head,
# SWastling; T1, T2, FLAIR; 8 simulated coils, ESPIRiT maps; noise 0.01 to 0.2): 32 scans with lines (acceleration 3 to
# 8), 8 of samples (6 and 20), 7 of readouts (6 and 10); L1-wavelet 7, 2 and 1. CT (LIDC-IDRI-0001, KiTS-00072,
# TCGA-17-Z013, TCGA-50-8460): 30 to 90 views, 5e3 to 1e6 photons, 19 scans, SIRT 16.
RULES: dict[str, dict[str, Rule]] = {
    "tv": {
        "lines": Rule(0.303, 1.291, 2.95e-4, 0.199),
        "samples": Rule(4.13, 1.418, 3.13e-3, -0.859),
        "readouts": Rule(0.301, 1.373, 2.78e-3, 0.0),
        "views": Rule(5.44, 2.0, 0.469, -0.569),
    },
    "l1_wavelet": {
        "lines": Rule(3.48, 1.742, 4.54e-4, 0.0),
        "samples": Rule(0.931, 1.372, 6.29e-3, 0.0),
        "readouts": Rule(0.632, 1.376, 0.0123, 0.0),
    },
    "sense": {
        "lines": Rule(7.51, 1.473, 2.95e-4, -0.278),
        "samples": Rule(4.65, 0.931, 2.81e-3, -0.776),
        "readouts": Rule(0.624, 0.894, 2.78e-3, 0.0),
    },
    "sirt": {"views": Rule(79.3, -1.117, 0.0262, 0.00516)},
}


def features(scan: Scan) -> tuple[float, float, float]:
    r"""Relative noise :math:`σ / s`, undersampling :math:`u` and size :math:`s` of a scan.

    Of k-space, :math:`σ` belongs to a sample of the orthonormal transform and :math:`s` is the 99.9th percentile of the
    zero-filled magnitude; :math:`u` is pixels over samples. Of line integrals, :math:`σ^2` is the mean of the variance
    times the weights and :math:`s = 1`, because the image has units; :math:`u` is 60 over the number of views.
    """
    operator = scan.operator
    variance = scan.noise_level()
    if scan.measurement.is_complex():
        image = torch.linalg.vector_norm(operator.adjoint(scan.measurement), dim=0)
        size = max(float(torch.quantile(image.flatten(), 0.999)), 1e-30)
        density = getattr(operator, "root_density", None)
        if variance.ndim and density is not None:
            variance = (variance * (density > 0)).sum() / density.square().sum().clamp(min=1e-12)
        return math.sqrt(float(variance.mean())) / size, 4 * operator.undersampling(), size
    weighted = variance if scan.weights is None else variance * scan.weights
    return math.sqrt(float(weighted.mean())), 2 * operator.undersampling(), 1.0


def automatic(method: str, scan: Scan) -> float:
    """Choose the weight of a method for a scan.

    Args:
        method: key of :data:`RULES`.
        scan: as the method uses it (its weights tempered).

    Raises:
        InputError: no rule for such scans.
    """
    gaps = scan.operator.partition.gaps
    kind = gaps if gaps == "views" or scan.measurement.is_complex() else "none"
    if kind not in RULES[method]:
        raise InputError(
            f"{method}: no weight is known for a measurement of {type(scan.operator).__name__}; give a number"
        )
    noise, gap, size = features(scan)
    weight = RULES[method][kind](noise, gap)
    return weight * size if method in HAVE_UNITS else weight
