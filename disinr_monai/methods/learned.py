from __future__ import annotations

import logging

import torch
from torch import Tensor, nn

from disinr_monai.case_inferer import CaseInferer
from disinr_monai.methods.total_variation import tempered
from disinr_monai.operators import LinearOperator
from disinr_monai.prior import LearnedPrior, Scan, prior_of

logger = logging.getLogger(__name__)


class LearnedReconstruction(CaseInferer):
    r"""The classical image, corrected by the learned prior (:class:`~disinr_monai.prior.LearnedPrior`).

    .. math:: \hat x = (1 - s)\, x_\text{learned} + s\, x_\text{TV}

    The guard needs no ground truth: some measured samples are withheld, both the classical and the learned image are
    made from the rest, and if the learned one predicts the withheld samples worse, the classical image is returned.
    ``history`` then says ``fallback`` 1, and the log why. It doubles the time.

    Args:
        tv_share: :math:`s`.
        non_negative: clip the image at 0 (CT).
        guard: see above.
        holdout: share of the views or lines to withhold for it.
        tolerance: how much worse, relatively, the learned image may predict them.
        amp: network in bfloat16.
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
        tolerance: float = 0.01,
        amp: bool = True,
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
        classical, learned = self.both(prior, operator, measurement, weights)
        self.iterations_run = 1
        if not self.guard:
            return learned
        errors = self.check(prior, operator, measurement, weights)
        # Also if it is not a number. A few withheld lines are a noisy judge: near a tie the learned image is kept.
        fallback = not errors["learned"] <= (1 + self.tolerance) * errors["classical"]
        entry = {"iteration": 1, "held_out": errors["learned"], "held_out_classical": errors["classical"]}
        self.history.append({**entry, "fallback": float(fallback)})
        if fallback:
            logger.warning(
                "guard: the learned image predicts withheld samples worse than the classical one (%.4g against %.4g); "
                "the classical one is returned",
                errors["learned"],
                errors["classical"],
            )
        return classical if fallback else learned

    def both(
        self, prior: LearnedPrior, operator: LinearOperator, measurement: Tensor, weights: Tensor | None
    ) -> tuple[Tensor, Tensor]:
        """The classical and the learned image ``(C, *S)``."""
        inputs = prior.inputs(operator, measurement, weights)
        classical = prior.start_image(inputs)
        scan = Scan(operator, measurement, tempered(weights, prior.start.weight_power))
        learned = torch.lerp(prior.reconstruct(inputs, scan), classical, self.tv_share)
        return classical, learned.clamp(min=0) if self.non_negative else learned

    def check(
        self, prior: LearnedPrior, operator: LinearOperator, measurement: Tensor, weights: Tensor | None
    ) -> dict[str, float]:
        """How both images predict withheld samples that they were made without."""
        held = operator.withhold(self.holdout, torch.Generator().manual_seed(self.seed)).to(measurement.device)
        part, select = operator.restrict(~held)
        test, take = operator.restrict(held)
        images = self.both(prior, part, select(measurement), None if weights is None else select(weights))
        fair = tempered(weights, prior.start.weight_power)
        fair = None if fair is None else take(fair)
        errors = [float(test.residual_energy(test(image) - take(measurement), fair)) for image in images]
        return dict(zip(("classical", "learned"), errors, strict=True))
