"""The networks that DisINR is compared with."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from torch import Tensor, nn

from disinr_monai.errors import InputError
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


class Strainer(Field):
    r"""STRAINER: a shared encoder and one decoder head per subject (Vyas et al., NeurIPS 2024).

    .. math:: x_i(p) = \psi_i\big(\phi(p)\big)

    Pre-training learns the encoder :math:`\phi` (``shared``) together with a head :math:`\psi_i` for every subject. A
    new scan starts from that encoder and a fresh head; as published, both are then fitted.

    Args:
        encoder: makes one encoder, called as ``encoder(seed=...)``.
        out_channels: 1 for a real image, 2 for a complex one.
        hidden_dim: width of the heads.
        n_layers: their hidden layers.
        n_subjects: number of heads.
        freeze_depth: so many of the encoder's layers keep their pre-trained weights at test; the hash grid, if there is
            one, counts as the first. 0 fits them all (as published), ``"all"`` none.
        seed: the encoder starts from ``seed``, head ``i`` from ``seed + 1 + i``.

    Raises:
        ValueError: ``n_subjects`` below 1.
        InputError: ``freeze_depth`` is neither ``"all"`` nor a number of layers.
    """

    def __init__(
        self,
        encoder: Callable[..., nn.Module],
        out_channels: int,
        hidden_dim: int = 128,
        n_layers: int = 2,
        n_subjects: int = 1,
        freeze_depth: int | str = 0,
        seed: int = 0,
    ) -> None:
        if n_subjects < 1:
            raise ValueError(f"Strainer: n_subjects must be at least 1, found {n_subjects}")
        shared_encoder = encoder(seed=seed)
        super().__init__(shared_encoder.in_dim, out_channels, seed)
        self.shared["encoder"] = shared_encoder
        self.subjects.extend(
            MLP(shared_encoder.out_dim, out_channels, hidden_dim, n_layers, seed=seed + 1 + i)
            for i in range(n_subjects)
        )
        depth = len(self._layers())
        allowed = {**{str(k): k for k in range(depth + 1)}, "all": depth}
        if str(freeze_depth) not in allowed:
            raise InputError(f"freeze_depth: expected 0 to {depth} layers or all, found {freeze_depth!r}")
        self.freeze_depth = allowed[str(freeze_depth)]

    def prepare(self, flat: Tensor) -> Tensor:
        """The encoder's features ``(n, F)``."""
        return self.shared["encoder"](flat)

    def render(self, flat: Tensor, prepared: Tensor | None = None, subject: int = 0) -> Tensor:
        """Image values ``(n, C)`` at points ``(n, D)``."""
        return self.subjects[subject](self.prepare(flat) if prepared is None else prepared)

    def fitted_at_test(self) -> Iterator[nn.Parameter]:
        """The encoder's layers from ``freeze_depth`` on, and the head."""
        for layer in self._layers()[self.freeze_depth :]:
            yield from layer
        yield from self.subjects[0].parameters()

    def _layers(self) -> list[list[nn.Parameter]]:
        """The encoder's parameters in the order in which they were made, weight and bias of a layer together."""
        layers: dict[str, list[nn.Parameter]] = {}
        for name, parameter in self.shared["encoder"].named_parameters():
            owner, _, leaf = name.rpartition(".")
            layers.setdefault(owner if leaf in ("weight", "bias") else name, []).append(parameter)
        return list(layers.values())
