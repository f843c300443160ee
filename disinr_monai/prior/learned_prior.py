from __future__ import annotations

import copy
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from disinr_monai.methods.total_variation import TotalVariation, tempered
from disinr_monai.networks.refiner import Refiner
from disinr_monai.operators import LinearOperator

# Brings weak TV - TV, residual, noise to the order of the image; the correction comes back through the inverse.
_DIFFERENCE, _RESIDUAL, _NOISE, _CORRECTION = 10.0, 10.0, 5.0, 0.1


@dataclass
class PriorInputs:
    """What the prior sees of one scan.

    Args:
        features: ``(3 C + 2, *S)``: start, weaker start - start, residual, noise, undersampling.
        gain: what was divided out of the image.
        phase: what was removed from it, complex ``S`` of size 1, or None.
    """

    features: Tensor
    gain: float
    phase: Tensor | None

    def image(self, values: Tensor) -> Tensor:
        """Values ``(C, *S)`` in the prior's frame to an image."""
        return _rotate(values * self.gain, self.phase)


class LearnedPrior(nn.Module):
    r"""An image prior that is learned from raw measurements alone and shared by all subjects.

    .. math:: \hat x = x_\text{TV} + R_θ(x_\text{TV},\, x_\text{weak} - x_\text{TV},\, A^T K (y - A x_\text{TV}),\,
        σ,\, u)

    The classical image is the start; a small network :math:`R_θ` (:class:`~disinr_monai.networks.refiner.Refiner`)
    looks at its neighbourhoods, at what a weaker regulariser would have kept, at the residual as an image, at the noise
    and at how much was measured, and corrects it. It is trained by predicting measurements that were held out (SSDU,
    Yaman et al., Magn. Reson. Med. 84:3172, 2020; Noise2Inverse, Hendriksen et al., IEEE Trans. Comput. Imaging
    6:1320, 2020), so no clean image is ever needed. Training and use share :meth:`inputs`, to the last iteration of the
    start: another start costs 1 dB.

    Complex images are turned by the phase of the fully sampled centre (nearly real then) and brought to size 1.

    Args:
        channels: of an image.
        start: the classical method.
        turns: transposed images are as likely as others (CT; in MRI undersampling has a direction). Flips always are.
        normalise: divide by the 99th percentile of the start (images without an absolute unit).
        weak_share: share of ``start.tv_weight`` for the weaker start.
        weak_iterations: its iterations, from the start.
        widths, n_blocks: of the refiner.
        seed: of the refiner.
    """

    def __init__(
        self,
        channels: int,
        start: TotalVariation,
        turns: bool = False,
        normalise: bool = False,
        weak_share: float = 0.2,
        weak_iterations: int = 30,
        widths: tuple[int, ...] = (32, 64, 96),
        n_blocks: int = 2,
        seed: int = 0,
    ) -> None:
        super().__init__()
        self.channels, self.start, self.turns, self.normalise = channels, start, turns, normalise
        self.weak = copy.copy(start)
        self.weak.tv_weight, self.weak.n_iterations = weak_share * start.tv_weight, weak_iterations
        self.refiner = Refiner(3 * channels + 2, channels, widths, n_blocks, seed=seed + 202)

    def settings(self) -> dict[str, Any]:
        """What :meth:`inputs` depends on, beside the scan."""
        names = ("tv_weight", "n_iterations", "n_prox_iterations", "non_negative", "weight_power", "absolute")
        methods = {"start": self.start, "weak": self.weak}
        return {"normalise": self.normalise} | {
            f"{key}.{name}": getattr(method, name) for key, method in methods.items() for name in names
        }

    @torch.no_grad()
    def inputs(self, operator: LinearOperator, measurement: Tensor, weights: Tensor | None = None) -> PriorInputs:
        """Start and features of one scan."""
        start = self.start.solve(operator, measurement, weights)
        weak = self.weak.solve(operator, measurement, weights, start)
        fair = tempered(weights, self.start.weight_power)
        residual = operator.residual_image(measurement - operator(start), fair)
        noise = operator.noise_image(operator.noise_variance(measurement, weights))
        phase = operator.phase_reference(measurement) if self.channels == 2 else None
        gain = 1.0
        if self.normalise:
            size = torch.linalg.vector_norm(start, dim=0).flatten()
            gain = float(size.kthvalue(max(int(0.99 * size.numel()), 1)).values) or 1.0
        back = None if phase is None else phase.conj()
        features = [
            _rotate(start / gain, back),
            _rotate((weak - start) * (_DIFFERENCE / gain), back),
            _rotate(residual * (_RESIDUAL / gain), back),
            noise * (_NOISE / gain),
            torch.full_like(noise, operator.undersampling()),
        ]
        return PriorInputs(torch.cat(features), gain, phase)

    def forward(self, features: Tensor) -> Tensor:
        """Images in the prior's frame ``(B, C, *S)`` from features ``(B, 3 C + 2, *S)``."""
        return features[:, : self.channels] + _CORRECTION * self.refiner(features)

    def start_image(self, inputs: PriorInputs) -> Tensor:
        """The classical image ``(C, *S)`` that the features hold."""
        return inputs.image(inputs.features[: self.channels])

    @torch.no_grad()
    def reconstruct(self, inputs: PriorInputs) -> Tensor:
        """Image ``(C, *S)``, the mean over all flips (and turns): each sees the scan from another side."""
        total = torch.zeros_like(inputs.features[: self.channels])
        n = self.n_symmetries(inputs.features)
        for k in range(n):
            total += undo_symmetry(self(apply_symmetry(inputs.features, k).unsqueeze(0))[0], k)
        return inputs.image(total / n)

    def n_symmetries(self, features: Tensor) -> int:
        """4 flips, or 8 with the transposed ones."""
        return 8 if self.turns and features.shape[-1] == features.shape[-2] else 4


def apply_symmetry(values: Tensor, k: int) -> Tensor:
    """One of 8 flips and turns of the last two axes: bits of ``k`` are columns, rows, transpose."""
    axes = [axis for bit, axis in ((1, -1), (2, -2)) if k & bit]
    values = values.flip(axes) if axes else values
    return values.transpose(-2, -1) if k & 4 else values


def undo_symmetry(values: Tensor, k: int) -> Tensor:
    """Inverse of :func:`apply_symmetry`."""
    values = values.transpose(-2, -1) if k & 4 else values
    axes = [axis for bit, axis in ((1, -1), (2, -2)) if k & bit]
    return values.flip(axes) if axes else values


def _rotate(values: Tensor, phase: Tensor | None) -> Tensor:
    """Multiply ``(2, *S)`` (real, imaginary) by a phase; anything else stays."""
    if phase is None:
        return values
    turned = torch.complex(values[0], values[1]) * phase
    return torch.stack((turned.real, turned.imag))
