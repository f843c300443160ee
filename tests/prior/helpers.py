"""Small learned priors and networks that hold them."""

from collections.abc import Callable
from typing import Any

import torch

from disinr_monai.methods import TotalVariation
from disinr_monai.networks import DisINR
from disinr_monai.prior import LearnedPrior
from tests.problems import ENCODER, ct_case, mri_case

FIRM = 1e9
"""So much weight on the network's image that data consistency changes nothing."""


def make_prior(modality: str, dc_weight: float | None = None) -> LearnedPrior:
    options = {"weaker_iterations": 5, "widths": (8, 12), "n_blocks": 1}
    if modality == "ct":
        initial = TotalVariation(tv_weight=2.0, absolute=True, non_negative=True, n_iterations=30)
        return LearnedPrior(1, initial, dc_weight or 100.0, turns=True, **options)
    initial = TotalVariation(tv_weight=2e-3, n_iterations=30)
    return LearnedPrior(2, initial, dc_weight or 0.3, normalise=True, **options)


def case_of(modality: str, **options: Any) -> dict[str, Any]:
    return ct_case(**options) if modality == "ct" else mri_case(**options)


def network_of(prior: LearnedPrior) -> torch.nn.Module:
    network = torch.nn.Module()
    network.shared = torch.nn.ModuleDict({"prior": prior})
    return network


def network_with(prior: Callable[[], LearnedPrior]) -> DisINR:
    return DisINR(ENCODER, prior().channels, hidden_dim=16, prior=prior)
