"""Regularisers of an image that is fitted to a scan, each an entry of the loss with a weight."""

from __future__ import annotations

from abc import ABC, abstractmethod

import torch
from torch import Tensor, nn

from disinr_monai.errors import InputError


class Regulariser(nn.Module, ABC):
    r"""Penalty :math:`R(x)` that a loss adds with a weight :math:`\lambda`; weight 0 leaves it out.

    Args:
        weight: :math:`\lambda`, for images of about unit size.

    Raises:
        ValueError: negative weight.
    """

    def __init__(self, weight: float) -> None:
        super().__init__()
        if weight < 0:
            raise ValueError(f"{type(self).__name__}: weight must not be negative, found {weight}")
        self.weight = float(weight)  # whole numbers beyond 64 bits do not multiply a tensor

    @abstractmethod
    def forward(self, image: Tensor) -> Tensor:
        """Penalty of one image ``(C, *S)``, a scalar without the weight."""


class TVRegulariser(Regulariser):
    """Total variation (:func:`tv_value`) of whole images."""

    def forward(self, image: Tensor) -> Tensor:
        """Total variation of ``(C, *S)``.

        Raises:
            InputError: scattered points of a streamed fit ``(C, n)``.
        """
        if image.ndim < 3:
            raise InputError(
                f"tv_weight: total variation needs whole images, found {image.shape[-1]} scattered points of a "
                "streamed fit; set --tv_weight 0"
            )
        return tv_value(image)


def tv_value(image: Tensor, epsilon: float = 1e-6) -> Tensor:
    r"""Mean isotropic total variation, the channels (real, imaginary) jointly.

    .. math:: \frac{1}{N} \sum_p \sqrt{\textstyle\sum_{d,c} |\partial_d x_c(p)|^2 + \epsilon}

    Args:
        image: ``(C, *S)`` with two or three spatial axes.
        epsilon: smoothing, so that the gradient exists where the image is flat.
    """
    squares = torch.zeros_like(image[0])
    for axis in range(1, image.ndim):
        difference = image.diff(dim=axis).square().sum(0)
        pad = [0, 0] * (image.ndim - 1 - axis) + [0, 1]
        squares = squares + nn.functional.pad(difference, pad)
    return (squares + epsilon).sqrt().mean()
