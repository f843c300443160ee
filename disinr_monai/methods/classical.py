"""What the classical methods share: their call and the check of what they are given."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable
from typing import Any

import torch
from monai.inferers import Inferer
from torch import Tensor

from disinr_monai.operators.linear_operator import LinearOperator


class ClassicalMethod(Inferer):
    """A reconstruction without a network, called like one with a network.

    ``method(points, network, operator=..., measurement=..., weights=...)`` gives the image ``(C, *S)``; ``points`` and
    ``network`` are ignored. Subclasses write :meth:`reconstruct`.
    """

    def __call__(  # type: ignore[override]
        self,
        points: Tensor | None = None,
        network: Callable[..., Tensor] | None = None,
        *,
        operator: LinearOperator,
        measurement: Tensor,
        weights: Tensor | None = None,
        **kwargs: Any,
    ) -> Tensor:
        """Reconstruct one image ``(C, *S)`` from one measurement.

        Raises:
            ValueError: measurement or weights do not have the shape of the operator's range.
        """
        for name, tensor in (("measurement", measurement), ("weights", weights)):
            if tensor is not None and tuple(tensor.shape) != operator.range_shape:
                raise ValueError(
                    f"{type(self).__name__}: {name} must have the operator's shape {operator.range_shape}, "
                    f"found {tuple(tensor.shape)}"
                )
        with torch.no_grad():
            return self.reconstruct(operator, measurement, weights)

    @abstractmethod
    def reconstruct(self, operator: LinearOperator, measurement: Tensor, weights: Tensor | None) -> Tensor:
        """The image ``(C, *S)`` of a checked measurement; runs without gradients."""
