from __future__ import annotations

import logging
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from disinr_monai.operators.tomography.view_operator import ViewOperator
from disinr_monai.scan import Scan

# What good scans stay below and most mismatches exceed, by measurement: docs/decisions/0014-the-self-check.md.
KSPACE_UNEXPLAINED, KSPACE_OVER_NOISE = 0.05, 1.5
INTEGRALS_UNEXPLAINED, INTEGRALS_STRUCTURED, FINE_RAYS = 0.01, 0.5, 4.0
COUNTS_UNEXPLAINED, COUNTS_STRUCTURED, COUNTS_SCATTERED = 0.03, 0.15, 1.3


@dataclass(frozen=True)
class Residual:
    """Fit of an image to the measurement that it was made from.

    Attributes:
        kind: what was compared: ``"k-space"``, ``"integrals"``, ``"counts"``, or ``"samples"`` of the image itself, of
            which nothing is known to compare with.
        unexplained: root mean square of what is left over, without the noise, over that of the measurement.
        over_noise: power of the whole residual over that of the noise; NaN where the noise is not known.
        structured: share of the residual's power that neighbours have in common; NaN for k-space.
        rays_per_pixel: rays across a pixel, 1 where they are not finer than that.
    """

    kind: str
    unexplained: float
    over_noise: float = math.nan
    structured: float = math.nan
    rays_per_pixel: float = 1.0


@torch.no_grad()
def measure_residual(scan: Scan, image: Tensor) -> Residual:
    r"""Compare an image with its measurement, :math:`r = A x - y`.

    * k-space: the noise is that of the edge of the readout, :math:`u^2 = (\|r\|^2 - n σ^2)_+ / \|y\|^2`;
    * line integrals: neighbouring rays have independent noise, but what an image gets wrong is seen by several, in one
      view or, as a dead cell, in one view after the other. The power that has no noise in it is the mean product
      of neighbours, along the detector or along the views in the order of their angles, whichever is larger. Rays
      finer than the pixels are taken together, as many as pass through one: no image of such pixels shows more;
      :math:`u^2 = \langle r_i r_{i+1} \rangle_+ / \langle y_i^2 \rangle`, with the statistical weights;
    * counts: the same with :math:`r = (\hat y - y) / \sqrt{\hat y}`, whose power is 1 if noise is all of it.

    Args:
        scan: the measurement and its forward model.
        image: ``(C, *S)`` on the operator's grid.
    """
    operator, measured, model = scan.operator, scan.measurement, scan.counts
    if model is not None:
        # An image of counts is read as max(x, 0), see PoissonLoss.
        expected = model.expected(operator(image.clamp(min=0)))
        deviation = expected.clamp(min=0.01 * float(measured.mean())).sqrt()
        residual, signal = (expected - measured) / deviation, (measured - model.background) / deviation
        n_rays = _rays_per_pixel(operator)
        residual, signal = (_take_together(values, operator, n_rays) for values in (residual, signal))
        return Residual("counts", *_by_neighbours(residual, signal), rays_per_pixel=n_rays)
    residual = scan.residual(image)
    left, whole = float(residual.abs().square().mean()), float(measured.abs().square().mean())
    if measured.is_complex():
        noise = operator.noise.energy(operator.noise.variance(measured))
        left, whole = float(operator.noise.residual_energy(residual)), float(operator.noise.residual_energy(measured))
        share = math.sqrt(max(left - noise, 0) / max(whole, 1e-30))
        return Residual("k-space", share, left / noise if noise > 0 else math.nan)
    if not isinstance(operator, ViewOperator):
        return Residual("samples", math.sqrt(left / max(whole, 1e-30)))
    root = 1.0 if scan.weights is None else scan.weights.sqrt()
    n_rays = _rays_per_pixel(operator)
    residual, signal = (_take_together(root * values, operator, n_rays) for values in (residual, measured))
    unexplained, _, structured = _by_neighbours(residual, signal)
    return Residual("integrals", unexplained, structured=structured, rays_per_pixel=n_rays)


def poor_fit(residual: Residual, unfinished: str = "") -> str:
    """Describe a residual that noise does not explain; empty if it does or if the noise is unknown.

    Args:
        residual: of the image.
        unfinished: of a fit that has not converged (:func:`still_falling`): then that is the first cause to name.
    """
    left = f"{100 * residual.unexplained:.2g} % of the measurement"
    if residual.kind == "k-space":
        # Unknown noise (NaN) is no excuse.
        is_poor = residual.unexplained > KSPACE_UNEXPLAINED and not residual.over_noise <= KSPACE_OVER_NOISE
        times = f"{residual.over_noise:.3g} times the power of noise"
        found = f"{left} is left over, {times if math.isfinite(residual.over_noise) else 'of noise nothing is known'}"
        usual = f"at most {100 * KSPACE_UNEXPLAINED:g} %"
        causes = "coil maps (try --maps joint), motion, wrong lines or trajectory, a bad coil"
    elif residual.kind == "integrals":
        # Coarse pixels draw edges as steps, which no other image of them would do better.
        most = INTEGRALS_UNEXPLAINED * max(1.0, residual.rays_per_pixel / FINE_RAYS)
        is_poor = residual.unexplained > most and residual.structured > INTEGRALS_STRUCTURED
        found = f"{left} is left over, {100 * residual.structured:.0f} % of that in common to neighbouring rays"
        usual = f"at most {100 * most:.2g} % left over, or less than {100 * INTEGRALS_STRUCTURED:g} %"
        usual += " in common"
        causes = "order or direction of the angles, axis of rotation, air calibration, dead cells, motion"
    elif residual.kind == "counts":
        structured = residual.structured * residual.over_noise
        scattered = residual.over_noise - structured
        is_poor = residual.unexplained > COUNTS_UNEXPLAINED and structured > COUNTS_STRUCTURED
        is_poor |= scattered > COUNTS_SCATTERED
        found = f"{left} is left over, {structured:.2g} times the power of Poisson noise in common to neighbouring "
        found += f"lines and {scattered:.2g} times in single ones"
        usual = f"at most {100 * COUNTS_UNEXPLAINED:g} % or {COUNTS_STRUCTURED:g} times, and {COUNTS_SCATTERED:g} times"
        causes = "background, attenuation or blank scan, counts that were scaled or corrected, dead bins, motion"
    else:
        return ""
    if not is_poor:
        return ""
    if unfinished:
        causes = f"too few iterations or too little pre-training ({unfinished}); if more change nothing, {causes}"
    return f"the residual is not explained by noise: {found} (scans that fit: {usual}); it may be {causes}"


def _rays_per_pixel(operator: Any) -> float:
    beam = getattr(operator, "beam", operator)
    geometry = getattr(beam, "geometry", None)
    return 1.0 if geometry is None else max(geometry.pixel_spacing / geometry.ray_spacing, 1.0)


def _take_together(values: Tensor, operator: Any, n_rays: float) -> Tensor:
    """Views in the order of their angles, and the rays of a pixel in one; independent noise keeps its power."""
    angles = getattr(getattr(operator, "beam", operator), "angles", None)
    values = values if angles is None else values[:, torch.argsort(angles % (2 * math.pi), stable=True)]
    n = min(round(n_rays), values.shape[-1])
    whole = values.shape[-1] // n * n
    return values[..., :whole].unflatten(-1, (-1, n)).sum(-1) / math.sqrt(n)


def _by_neighbours(residual: Tensor, signal: Tensor) -> tuple[float, float, float]:
    """Root of the noise-free power over that of the signal, power, and noise-free share of the power."""
    power, whole = float(residual.square().mean()), float(signal.square().mean())
    shared = max(_neighbours(residual, -1), _neighbours(residual, 1), 0.0)
    return math.sqrt(shared / max(whole, 1e-30)), power, shared / max(power, 1e-30)


def _neighbours(values: Tensor, axis: int) -> float:
    n = values.shape[axis]
    return float((values.narrow(axis, 1, n - 1) * values.narrow(axis, 0, n - 1)).mean()) if n > 1 else 0.0


logger = logging.getLogger(__name__)


class SelfCheck:
    """Collect the warnings of a result.

    * what its method found itself (a scan out of the prior's domain, early stopping that never set in);
    * a residual that noise does not explain (:func:`~disinr_monai.fitting.self_check.poor_fit`);
    * orientation, lengths or scale that the file does not hold (``info["unverified"]``). All scans of a folder mostly
      lack the same, so each of these is logged only once a run; the tables have it for every case.
    """

    def __init__(self) -> None:
        self._told: set[str] = set()

    def start(self) -> None:
        """Begin a run: nothing has been said."""
        self._told.clear()

    def __call__(self, case: Mapping[str, Any], inferer: Any) -> list[str]:
        """Return the warnings of a case that ``inferer`` has just reconstructed; those that are new are logged."""
        warnings = list(inferer.warnings)
        misfit = ""
        if inferer.residual is not None and inferer.fits_data:
            misfit = poor_fit(inferer.residual, still_falling(inferer.history))
        if misfit:
            warnings.append(misfit)
            logger.warning("%s: %s", case["name"], misfit)
        for lacking in case["info"].get("unverified", ()):
            warnings.append(f"not verified: {lacking}")
            if lacking not in self._told:
                self._told.add(lacking)
                logger.warning(
                    "%s: not verified: %s (said once; the report has it for every case)", case["name"], lacking
                )
        return warnings


LEAST_FALL = 0.02
"""Relative fall of the withheld error, or of the loss, in the last looks below which a fit counts as done."""


def still_falling(history: Sequence[Mapping[str, float]]) -> str:
    """Describe a fit that has not converged; empty for one that has, and for a method without a loss.

    Args:
        history: of an inferer, with ``iteration`` and ``loss`` at every look.
    """
    looks = [(int(entry["iteration"]), entry["loss"]) for entry in history if "loss" in entry]
    if len(looks) == 1:
        return f"{looks[0][0]} iterations, after which nobody can tell"
    if len(looks) < 2 or not looks[-1][1] < (1 - LEAST_FALL) * looks[-2][1]:
        return ""
    fall = 100 * (1 - looks[-1][1] / looks[-2][1])
    return f"the loss still fell by {fall:.0f} % in the last {looks[-1][0] - looks[-2][0]} of {looks[-1][0]} iterations"


def budget_spent(errors: Sequence[float], patience: int, n_iterations: int) -> str:
    """Describe a fit that used up its iterations before early stopping ended it; empty otherwise.

    Args:
        errors: error on the withheld samples at every look.
        patience: looks without an improvement after which the fit would have stopped.
        n_iterations: that were used up.

    Returns:
        One line; empty where the last look was not the best, or the error fell by less than :data:`LEAST_FALL` in the
        last ``patience`` looks.
    """
    if len(errors) < 2:
        return (
            f"early stopping never set in: {n_iterations} iterations gave one look at the withheld samples; raise "
            "--n_iterations"
        )
    if not errors[-1] < min(errors[:-1]):  # also if it is not a number
        return ""
    n_last = min(patience, len(errors) - 1)
    fall = 1 - errors[-1] / min(errors[:-n_last])
    if not fall > LEAST_FALL:
        return ""
    return (
        f"early stopping never set in: when the {n_iterations} iterations were used up, the error on withheld samples "
        f"was still falling ({100 * fall:.0f} % in the last {n_last} of {len(errors)} looks); raise --n_iterations"
    )
