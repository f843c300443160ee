from __future__ import annotations

from torch import Tensor

from disinr_monai.methods.classical import ClassicalMethod
from disinr_monai.operators.linear_operator import LinearOperator


class DirectInverse(ClassicalMethod):
    """The operator's one-step reconstruction: zero-filled for MRI, filtered back-projection for CT."""

    fits_data = False

    def solve(self, operator: LinearOperator, measurement: Tensor, weights: Tensor | None) -> Tensor:
        """``operator.direct_inverse(measurement)``; the weights have no part in it."""
        return operator.direct_inverse(measurement).clone()
