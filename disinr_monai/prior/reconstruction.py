from __future__ import annotations

import copy
import logging
import math
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from disinr_monai.fitting.case_inferer import CaseInferer
from disinr_monai.numerics.side_by_side import SideBySide
from disinr_monai.prior.domain import characterise, outside
from disinr_monai.prior.learned_prior import LearnedPrior
from disinr_monai.prior.training import prior_of
from disinr_monai.scan import Scan

logger = logging.getLogger(__name__)

Errors = tuple[float, float, float]  # of the learned and the classical image, and of their mean


class LearnedReconstruction(CaseInferer):
    r"""The image of the learned prior (:class:`~disinr_monai.prior.LearnedPrior`), mixed with total variation.

    .. math:: \hat x = (1 - s)\, x_\text{learned} + s\, x_\text{TV}, \qquad
        s = \arg\min_{0 \le s \le 1} E\big((1 - s)\, x'_\text{learned} + s\, x'_\text{TV}\big)

    with total variation whose weight is chosen from the scan. The guard needs no ground truth: both images
    :math:`x'` are also made without some of the measured samples, and :math:`E` is the error (the operator's
    ``residual_energy``) with which their mixture predicts these. Noise adds a constant to it. Whole views or lines are
    held out, and in Cartesian MRI also a part of the fully sampled centre, which is left as sparse as the rest
    (``partition.held_out_centre``): lines of the outer grid do not see the ghosts that this grid makes. The errors of
    centre and rest count by their shares of k-space. :math:`s` is at least so large that the weighted residual of the
    held-out samples stays near that of total variation (:func:`least_share`). ``history`` says ``classical_share``.
    The guard more than doubles the work; on a CPU with two or more threads both halves run side by side.

    Args:
        non_negative: clip the image at 0 (CT).
        guard: see above; without it :math:`s = 0`.
        holdout: fraction of the views or lines to hold out for it.
        classical_iterations: iterations of total variation from the initial image, where that has another weight.
        amp: network in bfloat16; None: where the device is faster with it.
        seed: of the held-out samples.

    The prior and its initial method are those of ``network.shared["prior"]``.
    """

    n_iterations = 1

    def __init__(
        self,
        *,
        non_negative: bool = False,
        guard: bool = True,
        holdout: float = 0.1,
        classical_iterations: int = 60,
        amp: bool | None = None,
        seed: int = 0,
    ) -> None:
        super().__init__()
        if not 0 < holdout < 1 or classical_iterations < 1:
            raise ValueError(
                "LearnedReconstruction: expected holdout between 0 and 1 and classical_iterations >= 1, "
                f"found {holdout}, {classical_iterations}"
            )
        self.non_negative, self.guard, self.amp, self.seed = non_negative, guard, amp, seed
        self.holdout, self.classical_iterations = holdout, classical_iterations

    @torch.no_grad()
    def reconstruct(self, points: Tensor | None, network: nn.Module, case: Mapping[str, Any]) -> Tensor:
        """Reconstruct the image ``(C, *S)`` of a case's scan; ``points`` are ignored."""
        scan, prior = case["scan"], prior_of(network)
        network.set_amp(self.amp)
        self.iterations_run = 1
        with SideBySide(scan.measurement.device) as pool:
            result = pool.submit(self.both, prior, scan)
            errors = self.cross_validate(prior, scan, pool) if self.guard else None
            classical, learned, initial = result.result()
        unlike = outside(prior.domain, characterise(scan, initial, prior.initial.weight_power))
        if unlike:
            self.warn(f"this scan is unlike those that the prior was trained on: {', '.join(unlike)}")
        if errors is None:
            return learned
        held_out, misfits = errors
        share = max(best_share(*held_out), least_share(*misfits))
        self.history.append(
            {"iteration": 1, "held_out": held_out[0], "held_out_classical": held_out[1], "classical_share": share}
        )
        logger.info("%s: %.0f %% of the result is total variation", self.case_name, 100 * share)
        return torch.lerp(learned, classical, share)

    def both(self, prior: LearnedPrior, scan: Scan) -> tuple[Tensor, Tensor, Tensor]:
        """Reconstruct the classical, the learned and the prior's initial image ``(C, *S)``."""
        inputs = prior.inputs(scan)
        initial, learned = prior.initial_image(inputs), prior.reconstruct(inputs, prior.tempered(scan))
        if self.non_negative:
            learned = learned.clamp(min=0)
        if prior.initial.tv_weight is None:
            return initial, learned, initial
        method = copy.copy(prior.initial)
        method.tv_weight, method.n_iterations = None, self.classical_iterations
        return method.solve(scan, initial), learned, initial

    def cross_validate(self, prior: LearnedPrior, scan: Scan, pool: SideBySide) -> tuple[Errors, Errors]:
        """Predict held-out samples by the learned and the classical image and their mean: errors, squared residuals."""
        partition, generator = scan.operator.partition, torch.Generator().manual_seed(self.seed)
        blocks = partition.held_out_blocks(self.holdout, generator).to(scan.measurement.device)
        parts, held_out = [(blocks, 1.0)], blocks
        centre = partition.held_out_centre(generator)
        if centre is not None:
            mask, share = centre[0].to(blocks), centre[1]
            parts, held_out = [(mask, share), (blocks & ~mask, 1 - share)], blocks | mask
        classical, learned, _ = pool.submit(self.both, prior, scan.restrict(~held_out)).result()
        images, tempered = (learned, classical, 0.5 * (learned + classical)), prior.tempered(scan)
        errors = [0.0, 0.0, 0.0]
        for mask, share in parts:
            test = tempered.restrict(mask)
            errors = [e + share * float(test.residual_energy(x)) for e, x in zip(errors, images, strict=True)]
        test = scan.restrict(held_out)
        weights = 1.0 if test.weights is None else test.weights
        return tuple(errors), tuple(float((test.residual(x).abs().square() * weights).mean()) for x in images)


def least_share(learned: float, classical: float, mean: float, tolerance: float = 1.2) -> float:
    """Find the least share of the classical image with which the residual is no larger than it should be.

    The error that :func:`best_share` minimises hardly sees low frequencies where few photons arrive; the residual does.

    Args:
        learned: weighted residual of the learned image, squared.
        classical: that of the classical image.
        mean: that of their mean.
        tolerance: how many times that of the classical image the mixture may have.

    Returns:
        The share, in steps of 0.01; 1 if a residual is not a number.
    """
    mixed = 2 * mean - 0.5 * (learned + classical)
    shares = [i / 100 for i in range(101)]
    residuals = [(1 - s) ** 2 * learned + s**2 * classical + 2 * s * (1 - s) * mixed for s in shares]
    return next((s for s, r in zip(shares, residuals, strict=True) if r <= tolerance * classical), 1.0)


def best_share(learned: float, classical: float, mean: float) -> float:
    r"""Share :math:`s` of the classical image from 0 to 1 that minimises a quadratic error of the mixture.

    .. math:: E(s) = (1 - s)^2 E_0 + s^2 E_1 + 2 s (1 - s)\, C, \qquad C = 2 E(\tfrac12) - \tfrac12 (E_0 + E_1)

    Args:
        learned: :math:`E_0`.
        classical: :math:`E_1`.
        mean: :math:`E(1/2)`.

    Returns:
        The share; 1 if an error is not a number.
    """
    curvature = 2 * (learned + classical) - 4 * mean
    if not math.isfinite(curvature):
        return 1.0
    if curvature <= 0:  # the images are the same
        return float(classical < learned)
    mixed = 2 * mean - 0.5 * (learned + classical)
    return min(max((learned - mixed) / curvature, 0.0), 1.0)
