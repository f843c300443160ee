from __future__ import annotations

from collections.abc import Sequence

LEAST_FALL = 0.02
"""Relative fall of the withheld error in the last looks below which a fit counts as done."""


def budget_spent(errors: Sequence[float], patience: int, n_iterations: int) -> str:
    """What to say of a fit that early stopping did not end before its iterations were used up.

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
