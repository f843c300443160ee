from __future__ import annotations

from collections.abc import Callable, Iterator

from torch import Tensor, nn

from disinr_monai.networks.field import Field
from disinr_monai.networks.mlp import MLP


def _single_field(
    encoder: Callable[..., nn.Module], out_channels: int, hidden_dim: int | None, n_layers: int, seed: int
) -> tuple[nn.Module, int]:
    """One encoder with its head, and its number of coordinates."""
    if hidden_dim is None:
        field = encoder(seed=seed, out_dim=out_channels)
        return field, field.in_dim
    first = encoder(seed=seed)
    return nn.Sequential(first, MLP(first.out_dim, out_channels, hidden_dim, n_layers, seed=seed + 101)), first.in_dim


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
        field, in_dim = _single_field(encoder, out_channels, hidden_dim, n_layers, seed)
        super().__init__(in_dim, out_channels, seed)
        self.subjects.append(field)

    def render(self, flat: Tensor, prepared: Tensor | None = None, subject: int = 0) -> Tensor:
        """Image values ``(n, C)`` at points ``(n, D)``."""
        return self.subjects[subject](flat)


class MetaINR(Field):
    """The network of :class:`NaiveINR` with a pre-trained start: all of it is shared, all of it is fitted at test.

    :class:`disinr_monai.meta.MetaUpdate` learns the start.

    Args:
        encoder: see :class:`NaiveINR`, as all others.
        out_channels: see there.
        hidden_dim: see there.
        n_layers: see there.
        seed: see there.
    """

    def __init__(
        self,
        encoder: Callable[..., nn.Module],
        out_channels: int,
        hidden_dim: int | None = None,
        n_layers: int = 2,
        seed: int = 0,
    ) -> None:
        field, in_dim = _single_field(encoder, out_channels, hidden_dim, n_layers, seed)
        super().__init__(in_dim, out_channels, seed)
        self.shared["start"] = field

    def forward(self, points: Tensor, subject: int | Tensor = 0) -> Tensor:
        """Images ``(B, C, *S)`` on a grid of points ``(B, D, *S)``, the same for every ``subject``."""
        return super().forward(points, 0)

    def render(self, flat: Tensor, prepared: Tensor | None = None, subject: int = 0) -> Tensor:
        """Image values ``(n, C)`` at points ``(n, D)``."""
        return self.shared["start"](flat)

    def fitted_at_test(self) -> Iterator[nn.Parameter]:
        """Everything."""
        return self.shared.parameters()
