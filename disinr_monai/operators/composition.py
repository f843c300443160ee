"""Block-diagonal operators: one block a frame. For ``A @ B`` see :class:`LinearOperator`."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

from disinr_monai.operators.linear_operator import LinearOperator
from disinr_monai.operators.noise import Noise
from disinr_monai.operators.partition import Partition, Restriction


class FramePartition(Partition):
    """Partition of frames, each divided as its own operator does."""

    def __init__(self, operator: PerFrame, inner: LinearOperator | None = None) -> None:
        super().__init__(operator, inner)
        self.each = [frame.partition for frame in operator.each]
        self.gaps, self.is_typical = self.each[0].gaps, self.each[0].is_typical

    def held_out_samples(self, fraction: float, generator: torch.Generator) -> Tensor:
        return torch.stack([frame.held_out_samples(fraction, generator) for frame in self.each])

    def held_out_blocks(self, fraction: float, generator: torch.Generator) -> Tensor:
        return torch.stack([frame.held_out_blocks(fraction, generator) for frame in self.each])

    def training_split(self, index: int, generator: torch.Generator) -> Tensor:
        return torch.stack([frame.training_split(index, generator) for frame in self.each])

    def restrict(self, keep: Tensor) -> Restriction:
        """The restricted operators of the frames; a mask over the whole where these would measure unlike shapes."""
        masks = keep.expand(self.operator.range_shape)
        if masks.flatten(1).any(1).all():
            parts = [frame.restrict(mask) for frame, mask in zip(self.each, masks, strict=True)]
            if len({part.range_shape for part, _ in parts}) == 1:
                return self._joined(parts)
        return super().restrict(keep)

    def subsets(self, size: int) -> list[Restriction]:
        """The first parts of all frames, the second ones, and so on."""
        parts = zip(*(frame.partition.subsets(size) for frame in self.operator.frames), strict=True)
        return [self._joined(list(part) * (len(self.each) // len(part))) for part in parts]

    def _joined(self, parts: list[Restriction]) -> Restriction:
        shape = self.operator.range_shape

        def select(values: Tensor) -> Tensor:
            frames = values.expand(torch.broadcast_shapes(values.shape, shape)).unbind(-len(shape))
            return torch.stack([take(frame) for (_, take), frame in zip(parts, frames, strict=True)], -len(shape))

        return self._composed(PerFrame([part for part, _ in parts])), select


class FrameNoise(Noise):
    """Noise of frames: energies are means over them."""

    def variance(self, measurement: Tensor, weights: Tensor | None = None) -> Tensor:
        frames = self._frames(measurement, weights)
        return torch.stack([f.noise.variance(y, w).expand(f.range_shape) for f, y, w in frames])

    def estimate(self, measurement: Tensor, weights: Tensor | None = None) -> Tensor:
        frames = self._frames(measurement, weights)
        return torch.stack([f.noise.estimate(y, w).expand(f.range_shape) for f, y, w in frames])

    def energy(self, variance: Tensor | None, weights: Tensor | None = None) -> float:
        if variance is None:
            return 0.0
        frames = self._frames(torch.as_tensor(variance), weights)
        return sum(f.noise.energy(v, w) for f, v, w in frames) / len(frames)

    def image(self, variance: Tensor) -> Tensor:
        return torch.stack([f.noise.image(v) for f, v, _ in self._frames(variance)], 1)

    def residual_energy(self, residual: Tensor, weights: Tensor | None = None) -> Tensor:
        return torch.stack([f.noise.residual_energy(r, w) for f, r, w in self._frames(residual, weights)]).mean()

    def residual_image(self, residual: Tensor, weights: Tensor | None = None) -> Tensor:
        return torch.stack([f.noise.residual_image(r, w) for f, r, w in self._frames(residual, weights)], 1)

    def _frames(self, values: Tensor, weights: Tensor | None = None) -> list[tuple[LinearOperator, Tensor, Tensor]]:
        """Operator, values and weights of every frame."""
        shape, each = self.operator.range_shape, self.operator.each
        seen = [None] * len(each) if weights is None else weights.expand(shape)
        return list(zip(each, values.expand(shape), seen, strict=True))


class PerFrame(LinearOperator):
    r"""One operator a frame, e.g. of dynamic MRI or CT.

    .. math:: y_t = A_t\, x_t, \qquad t = 1 \dots T

    The image is ``(C, T, *S)``: time is the first of the axes that a field is drawn over. The measurement is
    ``(T, *R)`` with ``R`` the range of one frame. One operator for all frames is applied to all at once. What the
    operators of the frames share (coil maps, made with ``with_samples`` or ``with_maps``) they also share after a move.

    Args:
        operators: of the frames, ``[operator] * T`` if all are alike.

    Raises:
        ValueError: no frame, or frames of different shapes.
    """

    partition_type, noise_type = FramePartition, FrameNoise

    def __init__(self, operators: Sequence[LinearOperator]) -> None:
        shapes = {(operator.domain_shape, operator.range_shape) for operator in operators}
        if len(shapes) != 1:
            raise ValueError(
                "PerFrame: expected at least one operator and the same shapes of image and measurement in all, "
                f"found {sorted(shapes) or 'none'}"
            )
        ((n_channels, *space), range_shape), n_frames = shapes.pop(), len(operators)
        super().__init__((n_channels, n_frames, *space), (n_frames, *range_shape))
        is_shared = all(operator is operators[0] for operator in operators)
        self.frames = nn.ModuleList(operators[:1] if is_shared else operators)
        self.is_additive = all(operator.is_additive for operator in operators)
        self._time_in_image, self._time_in_measurement = -1 - len(space), -1 - len(range_shape)

    @property
    def each(self) -> list[LinearOperator]:
        """The operator of every frame."""
        return list(self.frames) * (self.range_shape[0] // len(self.frames))

    def forward(self, image: Tensor) -> Tensor:
        """Image ``(..., C, T, *S)`` to measurement ``(..., T, *R)``."""
        self._check_domain(image)
        return self._of_frames("forward", image, self._time_in_image, self._time_in_measurement)

    def adjoint(self, measurement: Tensor) -> Tensor:
        """Measurement ``(..., T, *R)`` to image ``(..., C, T, *S)``."""
        self._check_range(measurement)
        return self._of_frames("adjoint", measurement, self._time_in_measurement, self._time_in_image)

    def gram(self, image: Tensor, weights: Tensor | None = None) -> Tensor:
        if weights is not None:
            return super().gram(image, weights)
        return self._of_frames("gram", image, self._time_in_image, self._time_in_image)

    def precondition(self, residual: Tensor) -> Tensor:
        return self._of_frames("precondition", residual, self._time_in_measurement, self._time_in_measurement)

    def direct_inverse(self, measurement: Tensor) -> Tensor:
        return self._of_frames("direct_inverse", measurement, self._time_in_measurement, self._time_in_image)

    def phase_reference(self, measurement: Tensor) -> Tensor | None:
        """Phase reference of every frame, complex ``(T, *S)``."""
        phases = [frame.phase_reference(values) for frame, values in zip(self.each, measurement, strict=True)]
        return None if any(phase is None for phase in phases) else torch.stack(phases)

    @property
    def n_measured(self) -> int:
        return sum(frame.n_measured for frame in self.each)

    def undersampling(self) -> float:
        """Mean of the frames."""
        return sum(frame.undersampling() for frame in self.each) / len(self.each)

    def norm_squared(self, n_iterations: int = 20) -> float:
        """The largest of the frames."""
        return max(frame.norm_squared(n_iterations) for frame in self.frames)

    def _of_frames(self, method: str, values: Tensor, axis: int, to: int) -> Tensor:
        """Apply a method of each frame's operator; frames are taken from one axis and put on another."""
        if len(self.frames) == 1:
            return getattr(self.frames[0], method)(values.movedim(axis, 0)).movedim(0, to)
        frames = zip(self.frames, values.unbind(axis), strict=True)
        return torch.stack([getattr(frame, method)(value) for frame, value in frames], to)

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> PerFrame:
        done: dict[tuple, tuple[Tensor, Tensor]] = {}

        def once(tensor: Tensor) -> Tensor:
            if tensor.layout is not torch.strided:
                return fn(tensor)  # matrices share by themselves
            key = (tensor.data_ptr(), tensor.shape, tensor.stride(), tensor.dtype, tensor.device)
            if key not in done:
                done[key] = (tensor, fn(tensor))  # with the tensor itself: its memory must not be used again meanwhile
            return done[key][1]

        return super()._apply(once, recurse)
