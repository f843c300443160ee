from __future__ import annotations

import copy
import logging
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from disinr_monai.fitting.case_inferer import CaseInferer
from disinr_monai.numerics.side_by_side import SideBySide
from disinr_monai.prior.domain import characterise, outside
from disinr_monai.prior.learned_prior import LearnedPrior, PriorInputs
from disinr_monai.prior.training import prior_of
from disinr_monai.scan import Scan

logger = logging.getLogger(__name__)


class LearnedReconstruction(CaseInferer):
    r"""The classical image, corrected by the learned prior (:class:`~disinr_monai.prior.LearnedPrior`).

    .. math:: \hat x = (1 - s)\, x_\text{learned} + s\, x_\text{TV}

    The guard needs no ground truth: some measured samples are held out, and images made from the rest must predict
    them. Beside the learned image there are classical ones: the initial one, and total variation with ``tv_candidates``
    of its weight, because a weight that suits one pattern and noise does not suit another. If one of them is better
    than the learned image by more than ``tolerance``, it is returned (cross-validation). ``history`` then says
    ``fallback`` 1, and the log why. It more than doubles the work; on a CPU with two or more threads both halves run
    side by side.

    Args:
        tv_fraction: :math:`s`.
        non_negative: clip the image at 0 (CT).
        guard: see above.
        holdout: fraction of the views or lines to hold out for it.
        tolerance: how much worse, relatively, the learned image may predict them.
        tv_candidates: weights of the other classical images, in units of the initial one's.
        tv_iterations: their iterations, from the initial image.
        tv_fraction_by_gap: by what the scan leaves out (``partition.gaps`` of its operator), a fixed fraction of
            cross-validated total variation in the result, in the place of a choice between the two. Where gaps are
            two-dimensional, held-out samples judge the learned image too kindly. On pre-training subjects it was level
            with total variation there (samples; their mean 0.3 dB better), or up to 6 dB worse (readouts).
        amp: network in bfloat16; None: where the device is faster with it.
        seed: of the held-out samples.

    The prior and its initial method are those of ``network.shared["prior"]``.
    """

    n_iterations = 1

    def __init__(
        self,
        *,
        tv_fraction: float = 0.0,
        non_negative: bool = False,
        guard: bool = True,
        holdout: float = 0.1,
        tolerance: float = 0.05,
        tv_candidates: Sequence[float] = (0.3, 3.0, 9.0),
        tv_iterations: int = 60,
        tv_fraction_by_gap: Mapping[str, float] | None = None,
        amp: bool | None = None,
        seed: int = 0,
    ) -> None:
        super().__init__()
        if not 0 <= tv_fraction <= 1 or not 0 < holdout < 1:
            raise ValueError(
                "LearnedReconstruction: expected tv_fraction from 0 to 1 and holdout between 0 and 1, "
                f"found {tv_fraction}, {holdout}"
            )
        self.tv_fraction = tv_fraction
        self.non_negative, self.guard, self.amp, self.seed = non_negative, guard, amp, seed
        self.holdout, self.tolerance = holdout, tolerance
        self.tv_candidates, self.tv_iterations = tuple(tv_candidates), tv_iterations
        self.tv_fraction_by_gap = dict(tv_fraction_by_gap or {})

    @torch.no_grad()
    def reconstruct(self, points: Tensor | None, network: nn.Module, case: Mapping[str, Any]) -> Tensor:
        """Reconstruct the image ``(C, *S)`` of a case's scan; ``points`` are ignored."""
        scan, prior = case["scan"], prior_of(network)
        network.set_amp(self.amp)
        self.iterations_run = 1
        with SideBySide(scan.measurement.device) as pool:
            result = pool.submit(self.both, prior, scan)
            errors = self.cross_validate(prior, scan, pool) if self.guard else {}
            initial, learned = result.result()
        unlike = outside(prior.domain, characterise(scan, initial, prior.initial.weight_power))
        if unlike:
            self.warn(f"this scan is unlike those that the prior was trained on: {', '.join(unlike)}")
        if not self.guard:
            return learned
        best = min(errors, key=lambda k: errors[k] if k else float("inf"))
        entry = {"iteration": 1, "held_out": errors[0.0], "held_out_classical": errors[best]}
        fraction = self.tv_fraction_by_gap.get(scan.operator.partition.gaps)
        if fraction is not None:
            self.history.append({**entry, "classical_share": fraction, "fallback": float(fraction >= 1)})
            logger.info("%.3g of the result is total variation with %.3g of its usual weight", fraction, best)
            return torch.lerp(learned, self._classical(prior, best, initial, scan), fraction)
        # Also if it is not a number. A few held-out lines are a noisy judge: near a tie the learned image is kept.
        fallback = not errors[0.0] <= (1 + self.tolerance) * errors[best]
        self.history.append({**entry, "fallback": float(fallback)})
        if not fallback:
            return learned
        logger.warning(
            "guard: the learned image predicts held-out samples worse than the classical one (%.4g against %.4g); "
            "the classical one is returned (total variation, %.3g of its usual weight)",
            errors[0.0],
            errors[best],
            best,
        )
        return self._classical(prior, best, initial, scan)

    def both(self, prior: LearnedPrior, scan: Scan) -> tuple[Tensor, Tensor]:
        """Reconstruct the initial and the learned image ``(C, *S)``."""
        inputs = prior.inputs(scan)
        return prior.initial_image(inputs), self._learned(prior, inputs, scan)

    def _learned(self, prior: LearnedPrior, inputs: PriorInputs, scan: Scan) -> Tensor:
        image = prior.reconstruct(inputs, prior.tempered(scan))
        learned = torch.lerp(image, prior.initial_image(inputs), self.tv_fraction)
        return learned.clamp(min=0) if self.non_negative else learned

    def _classical(self, prior: LearnedPrior, candidate: float, initial: Tensor, scan: Scan) -> Tensor:
        """Total variation with a candidate of the weight, from the initial image (which is candidate 1)."""
        if candidate == 1.0:
            return initial
        method = copy.copy(prior.initial)
        method.factor, method.n_iterations = candidate * prior.initial.factor, self.tv_iterations
        return method.solve(scan, initial)

    def cross_validate(self, prior: LearnedPrior, scan: Scan, pool: SideBySide) -> dict[float, float]:
        r"""Compare images made without the held-out samples by how they predict these and explain the others.

        .. math:: E_\text{held-out}(x) + \max(E_\text{kept}(x) - ε, 0)

        with the noise :math:`ε`. The second term is for MRI: held-out lines lie far out, where noise rules and the
        smoothest image wins; that it does not fit the others is what speaks against it. In CT what a grid of pixels
        cannot explain is left over by every good image.

        Returns:
            That number for the learned image (key 0) and for total variation by its fraction of the initial weight.
        """
        generator = torch.Generator().manual_seed(self.seed)
        held_out = scan.operator.partition.held_out_blocks(self.holdout, generator).to(scan.measurement.device)
        kept, tempered = scan.restrict(~held_out), prior.tempered(scan)
        inputs = pool.submit(prior.inputs, kept).result()
        initial = prior.initial_image(inputs)
        made = {0.0: pool.submit(self._learned, prior, inputs, kept)}
        made |= {k: pool.submit(self._classical, prior, k, initial, kept) for k in self.tv_candidates}
        images = {1.0: initial} | {k: image.result() for k, image in made.items()}
        test, train = tempered.restrict(held_out), tempered.restrict(~held_out)
        noise = train.noise_energy(kept.noise_level())
        errors = {}
        for key, image in images.items():
            errors[key] = float(test.residual_energy(image))
            if not scan.operator.partition.is_typical:
                errors[key] += max(float(train.residual_energy(image)) - noise, 0.0)
        return errors
