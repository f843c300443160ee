from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from disinr_monai.networks.field import Field
from disinr_monai.networks.mlp import MLP
from disinr_monai.networks.scriptable import ScriptableDisINR


class DisINR(Field):
    r"""Disentangled implicit neural representation (arXiv 2605.04234).

    .. math:: x_i(p) = \psi\big(\phi(p) \oplus \phi_i(p)\big)

    with the shared encoder :math:`\phi`, the shared decoder :math:`\psi` and one encoder :math:`\phi_i` per subject.
    ``shared`` holds the pair that is pre-trained, frozen and released; ``subjects`` the encoders of persons. A new scan
    fits a subject encoder and nothing shared.

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
        place: called with each subject encoder as soon as it is made, to keep it elsewhere than in memory
            (:class:`disinr_monai.checkpoints.on_disk.DiskTensors`).

    Raises:
        ValueError: ``n_subjects`` below 1.
    """

    subjects_on_disk = True

    def __init__(
        self,
        encoder: Callable[..., nn.Module],
        out_channels: int,
        hidden_dim: int = 128,
        n_layers: int = 2,
        n_subjects: int = 1,
        seed: int = 0,
        prior: Callable[[], nn.Module] | None = None,
        place: Callable[[nn.Module], nn.Module] | None = None,
    ) -> None:
        if n_subjects < 1:
            raise ValueError(f"DisINR: n_subjects must be at least 1, found {n_subjects}")
        shared_encoder = encoder(seed=seed)
        super().__init__(shared_encoder.in_dim, out_channels, seed)
        self._feature_dim = shared_encoder.out_dim
        decoder = MLP(2 * self._feature_dim, out_channels, hidden_dim, n_layers, seed=seed + 101)
        self.shared.update({"encoder": shared_encoder, "decoder": decoder})
        if prior is not None:
            self.shared["prior"] = prior()
        place = place or (lambda subject: subject)
        self.subjects.extend(place(encoder(seed=seed + 1)) for _ in range(n_subjects))

    def prepare(self, flat: Tensor) -> Tensor:
        """The shared encoder's part of the decoder's first layer, ``(n, hidden)``; constant while it is frozen."""
        features = self.shared["encoder"](flat)
        return self.shared["decoder"].linear(0, features, slice(0, self._feature_dim))

    def formula(self, flat: Tensor, subject: int = 0) -> Tensor:
        """The equation as it stands, for reading and for checks; :meth:`render` gives the same values faster."""
        shared = self.shared["encoder"](flat)
        own = self.subjects[subject](flat)
        return self.shared["decoder"](torch.cat((shared, own), dim=-1))

    def render(self, flat: Tensor, prepared: Tensor | None = None, subject: int = 0) -> Tensor:
        """Image values ``(n, C)`` at points ``(n, D)``: :meth:`formula`, with the shared encoder's part done once.

        Where the subject encoder ends in a perceptron, nothing lies between its last matrix and the decoder's first:
        their product is taken of the matrices instead of all points.
        """
        prepared = self.prepare(flat) if prepared is None else prepared
        own, decoder = self.subjects[subject], self.shared["decoder"]
        columns, *outer = decoder.weights
        columns = columns[:, self._feature_dim :]
        if not hasattr(own, "inputs") or decoder.uses_tcnn(flat):
            return decoder.product(own(flat), [columns, *outer], prepared)
        *inner, last = own.mlp.weights
        return decoder.product(own.inputs(flat), [*inner, columns @ last, *outer], prepared, at=len(inner))

    def __prepare_scriptable__(self) -> nn.Module:
        """Module that `torch.jit.script` compiles instead: the field of the first subject, without the prior."""
        return ScriptableDisINR(self)
