from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from torch import Tensor, nn

from disinr_monai.networks.field import Field
from disinr_monai.networks.mlp import MLP


class NaiveINR(Field):
    """One encoder and one decoder fitted to one scan from scratch: NGP, SIREN or NeRF, by the encoder given.

    All of it is the subject's: nothing is shared.

    Args:
        encoder: makes the encoder, called as ``encoder(seed=...)``.
        out_channels: 1 for a real image, 2 for a complex one.
        hidden_dim: width of the head after the encoder; None for a head that is the encoder's own output (the encoder
            is then called as ``encoder(seed=..., out_dim=out_channels)``).
        n_layers: hidden layers of that head.
        seed: seed of the start.
    """

    def __init__(
        self,
        encoder: Callable[..., nn.Module],
        out_channels: int,
        hidden_dim: int | None = None,
        n_layers: int = 2,
        seed: int = 0,
    ) -> None:
        if hidden_dim is None:
            field = encoder(seed=seed, out_dim=out_channels)
            in_dim = field.in_dim
        else:
            first = encoder(seed=seed)
            field = nn.Sequential(first, MLP(first.out_dim, out_channels, hidden_dim, n_layers, seed=seed + 101))
            in_dim = first.in_dim
        super().__init__(in_dim, out_channels, seed)
        self.subjects.append(field)

    def render(self, flat: Tensor, prepared: Tensor | None = None, subject: int = 0) -> Tensor:
        """Image values ``(n, C)`` at points ``(n, D)``."""
        return self.subjects[subject](flat)


class MetaINR(NaiveINR):
    """The network of :class:`NaiveINR` with a pre-trained start: all of it is shared, all of it is fitted at test.

    :class:`disinr_monai.fitting.meta.MetaUpdate` learns the start. Its arguments are those of :class:`NaiveINR`.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.shared["start"] = self.subjects.pop(0)

    def forward(self, points: Tensor, subject: int | Tensor = 0) -> Tensor:
        """Images ``(B, C, *S)`` on a grid of points ``(B, D, *S)``, the same for every ``subject``."""
        return super().forward(points, 0)

    def render(self, flat: Tensor, prepared: Tensor | None = None, subject: int = 0) -> Tensor:
        """Image values ``(n, C)`` at points ``(n, D)``."""
        return self.shared["start"](flat)

    def fitted_at_test(self) -> Iterator[nn.Parameter]:
        """Everything."""
        return self.shared.parameters()
