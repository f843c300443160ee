from __future__ import annotations

import math

import torch
from scipy.ndimage import distance_transform_edt
from torch import Tensor

from disinr_monai.operators.linear_operator import LinearOperator
from disinr_monai.operators.partition import Part, Partition


class SamplesPartition(Partition):
    """Partition of measured voxels: any of them can be drawn."""

    def draw(self, generator: torch.Generator | None = None, among: Tensor | None = None) -> Part | None:
        """Voxels one by one from equal stretches of the list of measured ones: spread evenly, and in memory order."""
        if self.inner is not None:
            return None
        operator = self.operator
        chosen = None if among is None else among[0].nonzero().flatten().cpu()
        n_measured = operator.range_shape[1] if chosen is None else len(chosen)
        n_drawn = min(operator.n_drawn, n_measured)
        places = (torch.arange(n_drawn, dtype=torch.float64) + torch.rand(n_drawn, generator=generator).double()) * (
            n_measured / n_drawn
        )
        places = places.long().clamp_(max=n_measured - 1)
        places = (places if chosen is None else chosen[places]).to(operator._anchor.device)
        pixels = places if operator.pixels is None else operator.pixels[places]
        return Part(
            lambda points: points.as_subclass(Tensor).flatten(1)[:, pixels],
            Identity((operator.domain_shape[0], n_drawn)).to(pixels.device),
            lambda values: values[..., places],
        )


class Samples(LinearOperator):
    r"""Some voxels of the image are measured themselves, :math:`y = x_I`: volume fitting.

    A fit can go through them in random parts (:meth:`SamplesPartition.draw`), so that its time and memory do
    not grow with the volume.

    Args:
        shape: image shape ``(C, *S)``.
        pixels: flat numbers :math:`I` of the measured voxels, ascending; None for all of them.
        n_drawn: voxels of a random part.

    Raises:
        ValueError: no voxel.
    """

    partition_type = SamplesPartition

    def __init__(self, shape: tuple[int, ...], pixels: Tensor | None = None, n_drawn: int = 2**14) -> None:
        n_pixels = math.prod(shape[1:])
        n_measured = n_pixels if pixels is None else len(pixels)
        if n_measured < 1 or n_drawn < 1:
            raise ValueError(
                f"Samples: expected at least one voxel measured and drawn, found {n_measured} measured, {n_drawn} drawn"
            )
        super().__init__(shape, (shape[0], n_measured))
        self.n_drawn = min(n_drawn, n_measured)
        self.register_buffer("pixels", pixels, persistent=False)
        self.register_buffer("_anchor", torch.zeros(()), persistent=False)  # says on which device this is

    def forward(self, image: Tensor) -> Tensor:
        """``(..., C, *S)`` to the measured voxels ``(..., C, m)``."""
        self._check_domain(image)
        flat = image.flatten(-len(self.domain_shape) + 1)
        return flat if self.pixels is None else flat[..., self.pixels]

    def adjoint(self, measurement: Tensor) -> Tensor:
        """Voxels where they were measured, 0 elsewhere."""
        self._check_range(measurement)
        if self.pixels is None:
            flat = measurement
        else:
            flat = measurement.new_zeros((*measurement.shape[:-1], math.prod(self.domain_shape[1:])))
            flat = flat.index_copy(-1, self.pixels, measurement)
        return flat.reshape(*measurement.shape[:-1], *self.domain_shape[1:])

    def direct_inverse(self, measurement: Tensor) -> Tensor:
        """The nearest measured voxel, everywhere."""
        self._check_range(measurement)
        image = self.adjoint(measurement)
        return (
            image
            if self.pixels is None
            else image.flatten(-len(self.domain_shape) + 1)[..., self._nearest()].reshape(image.shape)
        )

    def norm_squared(self, n_iterations: int = 20) -> float:
        """1: every voxel is measured once or not at all."""
        return 1.0

    def _nearest(self) -> Tensor:
        missing = torch.ones(math.prod(self.domain_shape[1:]), dtype=torch.bool)
        missing[self.pixels.cpu()] = False
        missing = missing.reshape(self.domain_shape[1:]).numpy()
        indices = distance_transform_edt(missing, return_distances=False, return_indices=True)
        flat = torch.zeros(missing.shape, dtype=torch.int64)
        for axis, n in enumerate(missing.shape):
            flat = flat * n + torch.from_numpy(indices[axis])
        return flat.flatten().to(self.pixels.device)


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
