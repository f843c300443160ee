from __future__ import annotations

import copy
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from itertools import chain
from typing import Any

import torch
from torch import Tensor, nn

from disinr_monai.errors import InputError
from disinr_monai.runtime.device import bfloat16_pays
from disinr_monai.runtime.memory import in_parts


class Field(nn.Module, ABC):
    """A network from points to image values, in two parts that never mix.

    ``shared`` (a ``ModuleDict``) is pre-trained on all subjects and released; ``subjects`` (a ``ModuleList``) holds
    what belongs to one person each and never leaves. Either may be empty. A subclass fills both and says in three
    methods what it computes and what is fitted to a new scan.

    Args:
        in_dim: number of coordinates.
        out_channels: 1 for a real image, 2 for a complex one.
        seed: start of the weights.
    """

    # Whether subjects' parts are made one at a time and can be kept elsewhere than in memory.
    subjects_on_disk = False

    def __init__(self, in_dim: int, out_channels: int, seed: int) -> None:
        super().__init__()
        self.in_dim, self.out_channels, self.seed = in_dim, out_channels, seed
        self.shared, self.subjects = nn.ModuleDict(), nn.ModuleList()

    @abstractmethod
    def render(self, flat: Tensor, prepared: Tensor | None = None, subject: int = 0) -> Tensor:
        """Image values ``(n, C)`` at points ``(n, D)``, from the result of :meth:`prepare` if it is at hand."""

    def prepare(self, flat: Tensor) -> Tensor | None:
        """Compute the part that all subjects share at these points (None if there is none); constant while frozen."""
        return None

    def fitted_at_test(self) -> Iterator[nn.Parameter]:
        """The parameters that are fitted to a new scan; by default the subject's part alone."""
        return self.subjects[0].parameters()

    def forward(self, points: Tensor, subject: int | Tensor = 0) -> Tensor:
        """Images ``(B, C, *S)`` at points ``(B, D, *S)``; where they are the same for all, shared work is done once.

        Args:
            points: coordinates in [-1, 1].
            subject: index of the subject, one for all or one per batch item.
        """
        flat = self._flatten(points)
        indices = torch.as_tensor(subject).flatten().tolist()
        if len(indices) == 1:
            indices = indices * points.shape[0]
        if any(not torch.equal(points[0], other) for other in points[1:]):
            return torch.cat([self(one[None], i) for one, i in zip(points, indices, strict=True)])
        prepared = self.prepare(flat)
        images = {i: self.render(flat, prepared, i) for i in set(indices)}
        shape = (self.out_channels, *points.shape[2:])
        return torch.stack([images[i].t().reshape(shape) for i in indices])

    @torch.no_grad()
    def image(self, points: Tensor, subject: int = 0, chunk: int = 2**16) -> Tensor:
        """Image ``(C, *S)`` at points ``(D, *S)``, ``chunk`` of them at a time so that memory stays bounded.

        Where even that does not fit, fewer at a time.
        """
        points = torch.as_tensor(points)
        columns = points.flatten(1)

        def rendered(chunk: int) -> Tensor:
            values = [self.render(part.t().contiguous(), subject=subject).t() for part in columns.split(chunk, dim=1)]
            return torch.cat(values, 1)

        return in_parts(rendered, chunk).reshape(self.out_channels, *points.shape[1:])

    def fresh_subject(self) -> nn.Module:
        """A copy of the first subject's part."""
        return copy.deepcopy(self.subjects[0]).requires_grad_(True)

    def set_amp(self, amp: bool | None) -> None:
        """Run hidden layers in bfloat16 (True) or everything in float32 (False), in every module with a switch ``amp``.

        None: in bfloat16 where the network's device is faster with it.
        """
        if amp is None:
            amp = bfloat16_pays(next(self.parameters()).device)
        for module in self.modules():
            if hasattr(module, "amp"):
                module.amp = amp

    def architecture(self) -> dict[str, Any]:
        """Names and shapes of the shared part and of one subject's, to recognise a checkpoint by."""
        return {
            "network": type(self).__name__,
            "shared": {k: list(v.shape) for k, v in self.shared.state_dict().items()},
            "subject": {k: list(v.shape) for s in self.subjects[:1] for k, v in s.state_dict().items()},
        }

    def _flatten(self, points: Tensor) -> Tensor:
        """``(B, D, *S)`` of one and the same grid to ``(n, D)``."""
        if points.ndim < 3 or points.shape[1] != self.in_dim:
            raise ValueError(
                f"{type(self).__name__}: points must have shape (B, {self.in_dim}, *S), found {tuple(points.shape)}"
            )
        first = torch.as_tensor(points[0])
        return first.flatten(1).t().contiguous()


class FieldSets(Field):
    """One field for each set of coil maps, where an object wraps around the field of view: channels after each other.

    Args:
        fields: one a set, alike.
    """

    def __init__(self, fields: Sequence[Field]) -> None:
        first = fields[0]
        super().__init__(first.in_dim, len(fields) * first.out_channels, first.seed)
        self.subjects.extend(fields)

    def prepare(self, flat: Tensor) -> Tensor | None:
        parts = [field.prepare(flat) for field in self.subjects]
        return None if parts[0] is None else torch.cat(parts, 1)

    def render(self, flat: Tensor, prepared: Tensor | None = None, subject: int = 0) -> Tensor:
        parts = [None] * len(self.subjects) if prepared is None else prepared.chunk(len(self.subjects), 1)
        return torch.cat([f.render(flat, part, subject) for f, part in zip(self.subjects, parts, strict=True)], 1)

    def fitted_at_test(self) -> Iterator[nn.Parameter]:
        return chain.from_iterable(field.fitted_at_test() for field in self.subjects)


def one_field_a_set(network: Field, channels: int) -> Field:
    """Repeat a network for an image of several sets of channels; the network itself where one is enough.

    Raises:
        InputError: the channels are no multiple of the network's.
    """
    n_sets, rest = divmod(channels, network.out_channels)
    if rest:
        raise InputError(f"out_channels: expected a divisor of the image's {channels}, found {network.out_channels}")
    return network if n_sets == 1 else FieldSets([copy.deepcopy(network) for _ in range(n_sets)])
