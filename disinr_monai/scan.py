from __future__ import annotations

from torch import Tensor


def tempered(weights: Tensor | None, power: float) -> Tensor | None:
    """Weights to a power, mean 1; None where all are equal."""
    if weights is None or power == 0:
        return None
    weights = weights**power
    return weights / weights.mean()
