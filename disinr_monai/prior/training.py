"""Batch, inferer, loss and schedule for the prior in MONAI's trainer."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from monai.inferers import Inferer
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR

from disinr_monai.errors import InputError
from disinr_monai.fitting.prepare_batch import to_device
from disinr_monai.prior.learned_prior import LearnedPrior


def prior_of(network: nn.Module) -> LearnedPrior:
    """Get the learned prior of a network.

    Raises:
        InputError: it has none.
    """
    shared = getattr(network, "shared", {})
    if "prior" not in shared:
        raise InputError("network_def: no learned prior in this network; train one with the overlay configs/prior.json")
    return shared["prior"]


def prepare_prior_batch(
    batch: list[dict[str, Any]], device: torch.device | str | None = None, non_blocking: bool = False, **_: Any
):
    """Batch for the trainer: the cases to look at, and again as those to predict."""
    cases = [to_device(case, device) for case in batch]
    if device is not None:
        cases = [{**case, "split": {**case["split"], "inputs": case["split"]["inputs"].to(device)}} for case in cases]
    return cases, cases


class PriorInferer(Inferer):
    """Run the prior in training on the kept part of each split.

    A random number of passes, at most the prior's: what comes in is what the passes before give, without a gradient
    through them, so that memory and time do not grow with the passes.
    """

    def __call__(self, inputs: list[dict[str, Any]], network: nn.Module, *args: Any, **kwargs: Any) -> list[Tensor]:
        """Images ``(C, *S)`` of the cases from :func:`prepare_prior_batch`."""
        prior = prior_of(network)
        return [self._one(prior, case) for case in inputs]

    @staticmethod
    def _one(prior: LearnedPrior, case: dict[str, Any]) -> Tensor:
        split, image = case["split"], None
        scan = prior.tempered(case["scan"]).restrict(split["keep"])
        n_passes = 1 + int(torch.randint(prior.n_passes, ()))
        for i in range(n_passes):
            with torch.set_grad_enabled(i == n_passes - 1):
                image = prior.step(split["inputs"], scan, image, i, (split["symmetry"],), split["boost"])
        return image


class HeldOutLoss(nn.Module):
    r"""Error with which images predict the held-out part of their scans, in units of the initial image's error.

    .. math:: L = \frac{1}{B} \sum_b \frac{E_b(x_b) - ε_b}{E_b(x_{b,\text{TV}}) - ε_b}

    with :math:`E` the operator's ``residual_energy`` on the held-out samples (an estimate of the image's squared error,
    shifted by a constant) and :math:`ε` its value for noise alone (at most 95 % of the initial image's). 1 is the
    initial image, 0 the truth.

    The images are consistent with the part that was kept (:meth:`LearnedPrior.step`): in MRI the held-out part has none
    of the middle of k-space, and a network that is judged on the outer lines alone forgets the rest.

    Args:
        weight_power: of the statistical weights, as in the initial image.
    """

    def __init__(self, weight_power: float = 0.5) -> None:
        super().__init__()
        self.weight_power = weight_power

    def forward(self, images: Sequence[Tensor], cases: Sequence[dict[str, Any]]) -> Tensor:
        """Mean over images from :class:`PriorInferer` and their cases."""
        losses = []
        for image, case in zip(images, cases, strict=True):
            split = case["split"]
            held_out = case["scan"].tempered(self.weight_power).restrict(~split["keep"])
            losses.append((held_out.residual_energy(image) - split["floor"]) / split["scale"])
        return torch.stack(losses).mean()


def cosine_schedule(optimizer: Optimizer, n_steps: int, warm_up: int = 50, last: float = 0.02) -> LambdaLR:
    """Learning rate up over ``warm_up`` steps, then down a half cosine to ``last`` of it at ``n_steps``."""

    def factor(step: int) -> float:
        cosine = 0.5 * (1 + math.cos(math.pi * min(step / max(n_steps, 1), 1)))
        return min(1.0, (step + 1) / warm_up) * (last + (1 - last) * cosine)

    return LambdaLR(optimizer, factor)
