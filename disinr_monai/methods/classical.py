"""What the classical methods share: the check of what they are given."""

from __future__ import annotations

from abc import abstractmethod

import torch
from torch import Tensor, nn

from disinr_monai.case_inferer import CaseInferer
from disinr_monai.count_model import CountModel
from disinr_monai.operators.linear_operator import LinearOperator


class ClassicalMethod(CaseInferer):
    """A reconstruction without a network; subclasses write :meth:`solve`."""

    def reconstruct(
        self,
        points: Tensor | None = None,
        network: nn.Module | None = None,
        *,
        operator: LinearOperator,
        measurement: Tensor,
        weights: Tensor | None = None,
        **counts: CountModel,
    ) -> Tensor:
        """Reconstruct one image ``(C, *S)`` from one measurement; ``points`` and ``network`` are ignored.

        ``counts`` holds the ``count_model`` for a method with ``takes_counts`` and is empty for others.

        Raises:
            ValueError: measurement or weights do not have the shape of the operator's range.
        """
        for name, tensor in (("measurement", measurement), ("weights", weights)):
            if tensor is not None and tuple(tensor.shape) != operator.range_shape:
                raise ValueError(
                    f"{type(self).__name__}: {name} must have the operator's shape {operator.range_shape}, "
                    f"found {tuple(tensor.shape)}"
                )
        self.iterations_run = getattr(self, "n_iterations", 0)
        with torch.no_grad():
            return self.solve(operator, measurement, weights, **counts)

    @abstractmethod
    def solve(self, operator: LinearOperator, measurement: Tensor, weights: Tensor | None) -> Tensor:
        """The image ``(C, *S)`` of a checked measurement; runs without gradients."""
