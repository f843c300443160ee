from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor, nn

from disinr_monai.networks.mlp import MLP
from disinr_monai.networks.refiner import Refiner


class _Field(nn.Module):
    """What the shared and the from-scratch networks have in common: points in image layout, precision, architecture."""

    in_dim: int
    out_channels: int

    def _flatten(self, points: Tensor) -> Tensor:
        """``(B, D, *S)`` of one and the same grid to ``(n, D)``."""
        if points.ndim < 3 or points.shape[1] != self.in_dim:
            raise ValueError(
                f"{type(self).__name__}: points must have shape (B, {self.in_dim}, *S), found {tuple(points.shape)}"
            )
        first = torch.as_tensor(points[0])
        return first.flatten(1).t().contiguous()

    def set_amp(self, amp: bool) -> None:
        """Run hidden layers (MLPs, the prior's) in bfloat16 (True) or everything in float32 (False)."""
        for module in self.modules():
            if isinstance(module, (MLP, Refiner)):
                module.amp = amp

    def architecture(self) -> dict[str, Any]:
        """Names and shapes of the shared part and of one subject encoder, to recognise a checkpoint by."""
        raise NotImplementedError


class DisINR(_Field):
    r"""Disentangled implicit neural representation (arXiv 2605.04234).

    .. math:: x_i(p) = \psi\big(\phi(p) \oplus \phi_i(p)\big)

    with the shared encoder :math:`\phi`, the shared decoder :math:`\psi` and one encoder :math:`\phi_i` per subject.
    ``shared`` holds the pair that is pre-trained, frozen and released; ``subjects`` holds what belongs to persons.

    Args:
        encoder: makes one encoder, called as ``encoder(seed=...)``; in a config, a component with
            ``"_mode_": "callable"``.
        out_channels: 1 for a real image, 2 for a complex one.
        hidden_dim: width of the decoder.
        n_layers: hidden layers of the decoder.
        n_subjects: number of subject encoders.
        prior: makes a learned image prior (:class:`disinr_monai.prior.LearnedPrior`), called without arguments; it
            becomes ``shared["prior"]``: pre-trained, frozen and released with the pair.
        seed: the shared part starts from ``seed``, all subject encoders from ``seed + 1`` (a common start, so that
            their mean is meaningful; different from the shared one, or the two would learn the same).

    Raises:
        ValueError: ``n_subjects`` below 1.
    """

    def __init__(
        self,
        encoder: Callable[..., nn.Module],
        out_channels: int,
        hidden_dim: int = 128,
        n_layers: int = 2,
        n_subjects: int = 1,
        seed: int = 0,
        prior: Callable[[], nn.Module] | None = None,
    ) -> None:
        super().__init__()
        if n_subjects < 1:
            raise ValueError(f"DisINR: n_subjects must be at least 1, found {n_subjects}")
        shared_encoder = encoder(seed=seed)
        self.in_dim, self.out_channels, self.seed = shared_encoder.in_dim, out_channels, seed
        self._feature_dim = shared_encoder.out_dim
        decoder = MLP(2 * self._feature_dim, out_channels, hidden_dim, n_layers, seed=seed + 101)
        self.shared = nn.ModuleDict({"encoder": shared_encoder, "decoder": decoder})
        if prior is not None:
            self.shared["prior"] = prior()
        self.subjects = nn.ModuleList(encoder(seed=seed + 1) for _ in range(n_subjects))

    def forward(self, points: Tensor, subject: int | Tensor = 0) -> Tensor:
        """Images ``(B, C, *S)`` on a grid of points ``(B, D, *S)`` (the same grid for the whole batch).

        Args:
            points: coordinates in [-1, 1].
            subject: index of the subject encoder, one for all or one per batch item.
        """
        flat = self._flatten(points)
        indices = torch.as_tensor(subject).flatten().tolist()
        if len(indices) == 1:
            indices = indices * points.shape[0]
        prepared = self.prepare(flat)
        images = [self.render(flat, self.subjects[i], prepared) for i in indices]
        return torch.stack([image.t().reshape(self.out_channels, *points.shape[2:]) for image in images])

    def prepare(self, flat: Tensor) -> Tensor:
        """The shared encoder's part of the decoder's first layer, ``(n, hidden)``; constant while it is frozen."""
        features = self.shared["encoder"](flat)
        return self.shared["decoder"].linear(0, features, slice(0, self._feature_dim))

    def decode(self, prepared: Tensor, subject_features: Tensor) -> Tensor:
        """Image values ``(n, C)`` from :meth:`prepare` and a subject encoder's features ``(n, F)``."""
        decoder = self.shared["decoder"]
        return decoder.product(subject_features, [self._subject_columns(), *decoder.weights[1:]], prepared)

    def _subject_columns(self) -> Tensor:
        return self.shared["decoder"].weights[0][:, self._feature_dim :]

    def render(self, flat: Tensor, subject: nn.Module, prepared: Tensor | None = None) -> Tensor:
        """Image values ``(n, C)`` at ``(n, D)`` points for a subject encoder that need not be one of ``subjects``.

        Where the encoder ends in a perceptron, nothing lies between its last matrix and the decoder's first: their
        product is taken of the matrices instead of all points.
        """
        prepared = self.prepare(flat) if prepared is None else prepared
        decoder = self.shared["decoder"]
        if not hasattr(subject, "inputs") or decoder.uses_tcnn(flat):
            return self.decode(prepared, subject(flat))
        *inner, last = subject.mlp.weights
        weights = [*inner, self._subject_columns() @ last, *decoder.weights[1:]]
        return decoder.product(subject.inputs(flat), weights, prepared, at=len(inner))

    def fresh_subject(self) -> nn.Module:
        """An untrained copy of the first subject encoder, to be fitted to a new scan."""
        return copy.deepcopy(self.subjects[0]).requires_grad_(True)

    def trainable_at_test(self, subject: nn.Module) -> Iterator[nn.Parameter]:
        """What test-time adaptation optimises: the subject encoder, nothing shared."""
        return subject.parameters()

    def architecture(self) -> dict[str, Any]:
        return {
            "network": type(self).__name__,
            "shared": {k: list(v.shape) for k, v in self.shared.state_dict().items()},
            "subject": {k: list(v.shape) for k, v in self.subjects[0].state_dict().items()},
        }


class NaiveINR(_Field):
    """One encoder and one decoder fitted to one scan from scratch: NGP, SIREN or NeRF, by the encoder given.

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
        super().__init__()
        if hidden_dim is None:
            field = encoder(seed=seed, out_dim=out_channels)
            self.in_dim = field.in_dim
        else:
            first = encoder(seed=seed)
            self.in_dim = first.in_dim
            field = nn.Sequential(first, MLP(first.out_dim, out_channels, hidden_dim, n_layers, seed=seed + 101))
        self.out_channels, self.seed = out_channels, seed
        self.shared = nn.ModuleDict()
        self.subjects = nn.ModuleList([field])

    def forward(self, points: Tensor) -> Tensor:
        """Image ``(B, C, *S)`` on a grid of points ``(B, D, *S)`` (the same grid for the whole batch)."""
        image = self.subjects[0](self._flatten(points)).t().reshape(1, self.out_channels, *points.shape[2:])
        return image.expand(points.shape[0], *image.shape[1:])

    def prepare(self, flat: Tensor) -> None:
        """Nothing is shared, so nothing can be prepared."""
        return None

    def render(self, flat: Tensor, subject: nn.Module, prepared: None = None) -> Tensor:
        """Image values ``(n, C)`` at ``(n, D)`` points."""
        return subject(flat)

    def fresh_subject(self) -> nn.Module:
        """An untrained copy of the network, to be fitted to a new scan."""
        return copy.deepcopy(self.subjects[0]).requires_grad_(True)

    def trainable_at_test(self, subject: nn.Module) -> Iterator[nn.Parameter]:
        """Everything is fitted."""
        return subject.parameters()

    def architecture(self) -> dict[str, Any]:
        return {
            "network": type(self).__name__,
            "shared": {},
            "subject": {k: list(v.shape) for k, v in self.subjects[0].state_dict().items()},
        }
