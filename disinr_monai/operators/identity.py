from __future__ import annotations

from torch import Tensor

from disinr_monai.operators.linear_operator import LinearOperator


class Identity(LinearOperator):
    """The image is measured itself, :math:`y = x`: volume fitting and a check of every other part.

    Args:
        shape: image shape, channels first, e.g. ``(1, H, W)`` or ``(1, D, H, W)``.
    """

    def __init__(self, shape: tuple[int, ...]) -> None:
        super().__init__(shape, shape)

    def forward(self, image: Tensor) -> Tensor:
        """Return the image ``(..., *shape)`` unchanged."""
        self._check_domain(image)
        return image

    def adjoint(self, measurement: Tensor) -> Tensor:
        """Return the measurement ``(..., *shape)`` unchanged."""
        self._check_range(measurement)
        return measurement
