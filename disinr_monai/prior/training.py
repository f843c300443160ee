"""The pieces of MONAI's trainer that are special to the prior."""

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
from disinr_monai.prior.data_consistency import data_consistency
from disinr_monai.prior.learned_prior import LearnedPrior, apply_symmetry, undo_symmetry
from disinr_monai.prior.splits import held_out, kept


def prior_of(network: nn.Module) -> LearnedPrior:
    """The learned prior of a network.

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
    """Batch for the trainer: features ``(B, F, *S)`` as the prior shall see them, and the cases to predict.

    Raises:
        InputError: cases of different matrix sizes in one batch.
    """
    cases, features = [], []
    for case in batch:
        case = {k: v.to(device) if isinstance(v, (Tensor, nn.Module)) else v for k, v in case.items()}
        split = case["split"]
        seen = split["inputs"].features.to(device)
        n = seen.shape[0] - 1
        # Brighter or darker: all but the last feature (undersampling) scale with the image.
        seen = torch.cat((seen[:n] * split["boost"], seen[n:]))
        features.append(apply_symmetry(seen, split["symmetry"]).contiguous())
        cases.append(case)
    if len({tuple(seen.shape) for seen in features}) > 1:
        sizes = sorted({tuple(seen.shape[1:]) for seen in features})
        raise InputError(f"batch_size: scans of different matrix sizes {sizes} in one batch; use --batch_size 1")
    return torch.stack(features), cases


class PriorInferer(Inferer):
    """Run the prior of the trained network on a batch of features."""

    def __call__(self, inputs: Tensor, network: nn.Module, *args: Any, **kwargs: Any) -> Tensor:
        """Images in the prior's frame, as the batch was turned and brightened."""
        return prior_of(network)(inputs)


class HeldOutLoss(nn.Module):
    r"""How well images predict what was held out of their scans, in units of the classical start.

    .. math:: L = \frac{1}{B} \sum_b \frac{E_b(x_b) - ε_b}{E_b(x_{b,\text{TV}}) - ε_b}

    with :math:`E` the operator's ``residual_energy`` on the held-out samples (an estimate of the image's squared error,
    shifted by a constant) and :math:`ε` what noise alone makes of it (at most 95 % of the start's). 1 is the start, 0
    the truth.

    Images are first made consistent with the input part (:func:`~disinr_monai.prior.data_consistency`) where the
    held-out part alone says too little: in MRI it has none of the middle of k-space, and a network that is judged on
    the outer lines alone forgets the rest.

    Args:
        weight_power: of the statistical weights, as in the start.
        dc_weight: of the consistency; 0 leaves it out.
        dc_iterations: its conjugate gradient steps.
    """

    def __init__(self, weight_power: float = 0.5, dc_weight: float = 0.0, dc_iterations: int = 5) -> None:
        super().__init__()
        self.weight_power, self.dc_weight, self.dc_iterations = weight_power, dc_weight, dc_iterations

    def forward(self, images: Tensor, cases: Sequence[dict[str, Any]]) -> Tensor:
        """Mean over images ``(B, C, *S)`` from :class:`PriorInferer` and their cases."""
        losses = []
        for image, case in zip(images, cases, strict=True):
            split = case["split"]
            inputs = split["inputs"]
            values = undo_symmetry(image, split["symmetry"]) / split["boost"]
            values = _to(inputs, values.device).image(values)
            scan = (case["operator"], case["measurement"], case.get("weights"))
            if self.dc_weight > 0:
                values = data_consistency(
                    values, *kept(*scan, split["keep"], self.weight_power), self.dc_weight, self.dc_iterations
                )
            held = held_out(*scan, split["keep"], self.weight_power)
            losses.append((held.energy(values) - split["floor"]) / split["scale"])
        return torch.stack(losses).mean()


def _to(inputs, device):
    if inputs.phase is not None and inputs.phase.device != device:
        inputs.phase = inputs.phase.to(device)
    return inputs


def cosine_schedule(optimizer: Optimizer, n_steps: int, warm_up: int = 50, last: float = 0.02) -> LambdaLR:
    """Learning rate up over ``warm_up`` steps, then down a half cosine to ``last`` of it at ``n_steps``."""

    def factor(step: int) -> float:
        cosine = 0.5 * (1 + math.cos(math.pi * min(step / max(n_steps, 1), 1)))
        return min(1.0, (step + 1) / warm_up) * (last + (1 - last) * cosine)

    return LambdaLR(optimizer, factor)
