from __future__ import annotations

import copy
import logging
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from disinr_monai.fitting.case_inferer import CaseInferer
from disinr_monai.numerics.side_by_side import SideBySide
from disinr_monai.operators import LinearOperator
from disinr_monai.prior.domain import describe, outside
from disinr_monai.prior.learned_prior import LearnedPrior, PriorInputs, Scan
from disinr_monai.prior.training import prior_of
from disinr_monai.scan import tempered

logger = logging.getLogger(__name__)


class LearnedReconstruction(CaseInferer):
    r"""The classical image, corrected by the learned prior (:class:`~disinr_monai.prior.LearnedPrior`).

    .. math:: \hat x = (1 - s)\, x_\text{learned} + s\, x_\text{TV}

    The guard needs no ground truth: some measured samples are withheld, and images made from the rest must predict
    them. Beside the learned image there are classical ones: the start, and total variation with ``tv_shares`` of its
    weight, because a weight that suits one pattern and noise does not suit another. If one of them is better than the
    learned image by more than ``tolerance``, it is returned (cross-validation). ``history`` then says ``fallback`` 1,
    and the log why. It more than doubles the work; on a CPU with two or more threads both halves run side by side.

    Args:
        tv_share: :math:`s`.
        non_negative: clip the image at 0 (CT).
        guard: see above.
        holdout: share of the views or lines to withhold for it.
        tolerance: how much worse, relatively, the learned image may predict them.
        tv_shares: weights of the other classical images, in units of the start's.
        tv_iterations: their iterations, from the start.
        mixes: by what the scan leaves out (``partition.gaps``), a fixed share of cross-validated total variation in the
            result, in the place of a choice between the two. Where gaps are two-dimensional, withheld samples judge the
            learned image too kindly. On pre-training subjects it was level with total variation there (samples; their
            mean 0.3 dB better), or up to 6 dB worse (readouts).
        amp: network in bfloat16; None: where the device is faster with it.
        seed: of the withheld samples.

    The prior and its start are those of ``network.shared["prior"]``.
    """

    n_iterations = 1

    def __init__(
        self,
        *,
        tv_share: float = 0.0,
        non_negative: bool = False,
        guard: bool = True,
        holdout: float = 0.1,
        tolerance: float = 0.05,
        tv_shares: Sequence[float] = (0.3, 3.0, 9.0),
        tv_iterations: int = 60,
        mixes: Mapping[str, float] | None = None,
        amp: bool | None = None,
        seed: int = 0,
    ) -> None:
        super().__init__()
        if not 0 <= tv_share <= 1 or not 0 < holdout < 1:
            raise ValueError(
                "LearnedReconstruction: expected tv_share from 0 to 1 and holdout between 0 and 1, "
                f"found {tv_share}, {holdout}"
            )
        self.tv_share = tv_share
        self.non_negative, self.guard, self.amp, self.seed = non_negative, guard, amp, seed
        self.holdout, self.tolerance = holdout, tolerance
        self.tv_shares, self.tv_iterations = tuple(tv_shares), tv_iterations
        self.mixes = dict(mixes or {})

    @torch.no_grad()
    def reconstruct(
        self,
        points: Tensor | None,
        network: nn.Module,
        *,
        operator: LinearOperator,
        measurement: Tensor,
        weights: Tensor | None = None,
    ) -> Tensor:
        """Image ``(C, *S)`` from one measurement; ``points`` are ignored."""
        prior = prior_of(network)
        network.set_amp(self.amp)
        self.iterations_run = 1
        with SideBySide(measurement.device) as pool:
            result = pool.submit(self.both, prior, operator, measurement, weights)
            errors = self.check(prior, operator, measurement, weights, pool) if self.guard else {}
            classical, learned = result.result()
        unlike = outside(prior.domain, describe(operator, measurement, weights, classical, prior.start.weight_power))
        if unlike:
            self.mark(f"this scan is unlike those that the prior was trained on: {', '.join(unlike)}")
        if not self.guard:
            return learned
        share = min(errors, key=lambda k: errors[k] if k else float("inf"))
        entry = {"iteration": 1, "held_out": errors[0.0], "held_out_classical": errors[share]}
        mix = self.mixes.get(operator.partition.gaps)
        if mix is not None:
            self.history.append({**entry, "classical_share": mix, "fallback": float(mix >= 1)})
            logger.info("%.3g of the result is total variation with %.3g of its usual weight", mix, share)
            image = self._classical(prior, share, classical, operator, measurement, weights)
            return torch.lerp(learned, image, mix)
        # Also if it is not a number. A few withheld lines are a noisy judge: near a tie the learned image is kept.
        fallback = not errors[0.0] <= (1 + self.tolerance) * errors[share]
        self.history.append({**entry, "fallback": float(fallback)})
        if not fallback:
            return learned
        logger.warning(
            "guard: the learned image predicts withheld samples worse than the classical one (%.4g against %.4g); "
            "the classical one is returned (total variation, %.3g of its usual weight)",
            errors[0.0],
            errors[share],
            share,
        )
        return self._classical(prior, share, classical, operator, measurement, weights)

    def both(
        self, prior: LearnedPrior, operator: LinearOperator, measurement: Tensor, weights: Tensor | None
    ) -> tuple[Tensor, Tensor]:
        """The classical and the learned image ``(C, *S)``."""
        inputs = prior.inputs(operator, measurement, weights)
        classical = prior.start_image(inputs)
        return classical, self._learned(prior, inputs, classical, operator, measurement, weights)

    def _learned(
        self,
        prior: LearnedPrior,
        inputs: PriorInputs,
        classical: Tensor,
        operator: LinearOperator,
        measurement: Tensor,
        weights: Tensor | None,
    ) -> Tensor:
        scan = Scan(operator, measurement, tempered(weights, prior.start.weight_power))
        learned = torch.lerp(prior.reconstruct(inputs, scan), classical, self.tv_share)
        return learned.clamp(min=0) if self.non_negative else learned

    def _classical(
        self,
        prior: LearnedPrior,
        share: float,
        start: Tensor,
        operator: LinearOperator,
        measurement: Tensor,
        weights: Tensor | None,
    ) -> Tensor:
        """Total variation with a share of the start's weight, from the start."""
        if share == 1.0:
            return start
        method = copy.copy(prior.start)
        method.tv_weight, method.n_iterations = share * prior.start.tv_weight, self.tv_iterations
        return method.solve(operator, measurement, weights, start)

    def check(
        self,
        prior: LearnedPrior,
        operator: LinearOperator,
        measurement: Tensor,
        weights: Tensor | None,
        pool: SideBySide,
    ) -> dict[float, float]:
        r"""How images predict withheld samples that they were made without, and explain those that they were made from.

        .. math:: E_\text{held}(x) + \max(E_\text{kept}(x) - ε, 0)

        with the noise :math:`ε`. The second term is for MRI: withheld lines lie far out, where noise rules and the
        smoothest image wins; that it does not fit the others is what speaks against it. In CT what a grid of pixels
        cannot explain is left over by every good image.

        Returns:
            That number for the learned image (key 0) and for total variation by its share of the start's weight.
        """
        held = operator.partition.held_out_blocks(self.holdout, torch.Generator().manual_seed(self.seed))
        held = held.to(measurement.device)
        part, select = operator.partition.restrict(~held)
        test, take = operator.partition.restrict(held)
        scan = (part, select(measurement), None if weights is None else select(weights))
        inputs = pool.submit(prior.inputs, *scan).result()
        classical = prior.start_image(inputs)
        made = {0.0: pool.submit(self._learned, prior, inputs, classical, *scan)}
        made |= {share: pool.submit(self._classical, prior, share, classical, *scan) for share in self.tv_shares}
        images = {1.0: classical} | {share: image.result() for share, image in made.items()}
        fair = tempered(weights, prior.start.weight_power)
        y = scan[1]
        kept_fair, held_fair = (None, None) if fair is None else (select(fair), take(fair))
        noise = part.noise.energy(part.noise.variance(y, scan[2]), kept_fair)
        errors = {}
        for share, image in images.items():
            errors[share] = float(test.noise.residual_energy(test(image) - take(measurement), held_fair))
            if not operator.partition.is_typical:
                unexplained = float(part.noise.residual_energy(part(image) - y, kept_fair)) - noise
                errors[share] += max(unexplained, 0.0)
        return errors
