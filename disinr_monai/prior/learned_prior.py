from __future__ import annotations

import copy
import math
from collections.abc import Sequence
from dataclasses import astuple, dataclass
from typing import Any

import torch
from torch import Tensor, nn

from disinr_monai.methods.automatic import RULES
from disinr_monai.methods.total_variation import TotalVariation
from disinr_monai.networks.refiner import Refiner
from disinr_monai.prior.data_consistency import data_consistency
from disinr_monai.prior.domain import Domain
from disinr_monai.scan import Scan

# Brings differences of images, residual, noise to the order of the image; the correction comes back by the inverse.
_DIFFERENCE, _RESIDUAL, _NOISE, _CORRECTION = 10.0, 10.0, 5.0, 0.1


@dataclass
class PriorInputs:
    """Features of one scan for the first pass of the prior.

    Args:
        features: ``(n_sets, 3 C + 2, *S)``: initial image, weaker - initial, residual, noise, undersampling, of each of
            the images that belong to a set of coil maps (one unless the object wraps around the field of view).
        gain: what was divided out of the image.
        phase: what was removed from it, complex ``(n_sets, *S)`` of size 1, or None.
    """

    features: Tensor
    gain: float
    phase: Tensor | None

    def image(self, values: Tensor) -> Tensor:
        """Map values ``(n_sets, C, *S)`` in the prior's frame to an image ``(n_sets C, *S)``."""
        return _rotate(values * self.gain, self.phase).flatten(0, 1)

    def frame(self, image: Tensor) -> Tensor:
        """Inverse of :meth:`image`."""
        sets = image.unflatten(0, (len(self.features), -1)) / self.gain
        return _rotate(sets, None if self.phase is None else self.phase.conj())

    def to(self, device: torch.device) -> PriorInputs:
        """Move the features to a device."""
        phase = None if self.phase is None else self.phase.to(device)
        return PriorInputs(self.features.to(device), self.gain, phase)


class LearnedPrior(nn.Module):
    r"""Image prior learned from raw measurements alone and shared by all subjects.

    .. math::
        f_k &= x_k + H R_θ(x_k,\, x_\text{weaker} - x_0,\, A^T K (y - A x_k),\, σ,\, u,\, x_k - x_0),
        \qquad x_0 = x_\text{TV} \\
        x_{k+1} &= \arg\min_x \tfrac12 \|W^{1/2}(A x - y)\|^2 + \tfrac{λ_k}{2} \|x - f_k\|^2

    The initial image is classical; a small network :math:`R_θ` (:class:`~disinr_monai.networks.refiner.Refiner`)
    looks at its neighbourhoods, at what a weaker regulariser would have kept, at the residual as an image, at the noise
    and at how much was measured, and corrects it; then the image is brought back to the data, with a learned
    :math:`λ_k`. :math:`H` is a high-pass filter on the correction. Without it, large
    patients were reconstructed too dark, because the held-out loss is insensitive to low frequencies, in CT the more
    the fewer photons pass (with 2 cycles up to 8 dB below total variation at 5e3 photons). Every further pass of the
    same network sees the image of the pass before (Aggarwal et al., MoDL, IEEE Trans. Med. Imaging 38:394, 2019).

    It is trained by predicting measurements that were held out (SSDU, Yaman et al., Magn. Reson. Med. 84:3172, 2020;
    Noise2Inverse, Hendriksen et al., IEEE Trans. Comput. Imaging 6:1320, 2020), so no clean image is ever needed.
    Training and use share :meth:`inputs` and :meth:`step`, to the last iteration of the initial image: another one
    costs 1 dB.

    Complex images are turned by the phase of the fully sampled centre (nearly real then) and brought to size 1.

    Args:
        channels: of an image.
        initial: the classical method of the initial image.
        dc_weight: :math:`λ_k` before training, in the units of :math:`A^T A` with weights of mean 1.
        dc_iterations: conjugate gradient steps from :math:`f_k`.
        n_passes: number of passes.
        dc_noise: :math:`σ_0`, noise of an image of about 1 for which :math:`λ_k` holds; with other noise it is
            :math:`λ_k (σ / σ_0)^{p_k}` with learned :math:`p_k`, 1 before training. None: the same for all.
        high_pass: :math:`H` takes out what is below about so many cycles a field of view.
        turns: transposed images are as likely as others (CT; in MRI undersampling has a direction). Flips always are.
        normalise: divide by the 99th percentile of the initial image (images without an absolute unit).
        weaker_fraction: fraction of ``initial.tv_weight`` for the weaker regulariser.
        weaker_iterations: its iterations, from the initial image.
        widths, n_blocks: of the refiner.
        seed: of the refiner.
    """

    def __init__(
        self,
        channels: int,
        initial: TotalVariation,
        dc_weight: float,
        dc_iterations: int = 6,
        n_passes: int = 4,
        dc_noise: float | None = None,
        high_pass: float = 2.0,
        turns: bool = False,
        normalise: bool = False,
        weaker_fraction: float = 0.2,
        weaker_iterations: int = 30,
        widths: tuple[int, ...] = (32, 64, 96),
        n_blocks: int = 2,
        seed: int = 0,
    ) -> None:
        super().__init__()
        if dc_weight <= 0 or dc_iterations < 1 or n_passes < 1:
            raise ValueError(
                "LearnedPrior: expected dc_weight > 0, dc_iterations >= 1 and n_passes >= 1, "
                f"found {dc_weight}, {dc_iterations}, {n_passes}"
            )
        self.channels, self.initial, self.turns, self.normalise = channels, initial, turns, normalise
        self.dc_iterations, self.n_passes, self.dc_noise = dc_iterations, n_passes, dc_noise
        self.high_pass = high_pass
        self.log_dc_weight = nn.Parameter(torch.full((n_passes,), math.log(dc_weight)))
        if dc_noise is not None:
            self.dc_noise_power = nn.Parameter(torch.ones(n_passes))
        self.weaker = copy.copy(initial)
        self.weaker.factor, self.weaker.n_iterations = weaker_fraction * initial.factor, weaker_iterations
        self.domain: Domain = {}  # filled by the training scans, or from a checkpoint
        self.refiner = Refiner(4 * channels + 2, channels, widths, n_blocks, seed=seed + 202)

    def settings(self) -> dict[str, Any]:
        """Settings that :meth:`inputs` depends on, under the names that released checkpoints hold."""
        names = ("n_iterations", "n_prox_iterations", "non_negative", "weight_power", "absolute")
        found: dict[str, Any] = {"normalise": self.normalise}
        for key, method in (("start", self.initial), ("weak", self.weaker)):
            chosen = method.tv_weight is None
            found |= {f"{key}.tv_weight": None if chosen else method.tv_weight * method.factor}
            if chosen:  # by rules whose numbers are part of what the prior was trained with
                rules = {kind: list(astuple(rule)) for kind, rule in RULES["tv"].items()}
                found |= {f"{key}.factor": method.factor, f"{key}.rules": rules}
            found |= {f"{key}.{name}": getattr(method, name) for name in names}
        return found

    def passes(self) -> dict[str, Any]:
        """Settings that :meth:`step` and :meth:`reconstruct` depend on."""
        return {name: getattr(self, name) for name in ("dc_iterations", "n_passes", "dc_noise", "high_pass")}

    @torch.no_grad()
    def inputs(self, scan: Scan) -> PriorInputs:
        """Compute initial image and features of a scan (its weights as measured)."""
        initial = self.initial.solve(scan)
        weaker = self.weaker.solve(scan, initial)
        residual = self.tempered(scan).residual_image(initial)
        noise = scan.operator.noise.image(scan.noise_level())
        phase = scan.operator.phase_reference(scan.measurement) if self.channels == 2 else None
        gain = 1.0
        if self.normalise:
            size = torch.linalg.vector_norm(initial, dim=0).flatten()
            gain = float(size.kthvalue(max(int(0.99 * size.numel()), 1)).values) or 1.0
        if phase is not None:
            phase = phase.reshape(-1, *initial.shape[1:])
        back = None if phase is None else phase.conj()

        def sets(image: Tensor) -> Tensor:
            return _rotate(image.unflatten(0, (-1, self.channels)), back)

        images = [
            sets(initial / gain),
            sets((weaker - initial) * (_DIFFERENCE / gain)),
            sets(residual * (_RESIDUAL / gain)),
        ]
        numbers = torch.stack((noise * (_NOISE / gain), torch.full_like(noise, scan.operator.undersampling())), 1)
        return PriorInputs(torch.cat((*images, numbers.expand(len(images[0]), -1, -1, -1)), 1), gain, phase)

    def tempered(self, scan: Scan) -> Scan:
        """Temper a scan's weights by the power of the initial method."""
        return scan.tempered(self.initial.weight_power)

    def forward(self, features: Tensor) -> Tensor:
        """Images in the prior's frame ``(B, C, *S)`` from features ``(B, 4 C + 2, *S)``."""
        return features[:, : self.channels] + _CORRECTION * _without_lowest(self.refiner(features), self.high_pass)

    def step(
        self,
        inputs: PriorInputs,
        scan: Scan,
        image: Tensor | None = None,
        index: int = 0,
        symmetries: Sequence[int] = (0,),
        boost: float = 1.0,
    ) -> Tensor:
        """Run one pass: compute the features, correct the image, bring it back to the data.

        Args:
            inputs: of the scan, from :meth:`inputs`.
            scan: with :meth:`tempered` weights.
            image: ``(C, *S)`` after the pass before; None for the first.
            index: number of the pass, from 0.
            symmetries: how the network sees it (:func:`apply_symmetry`); the mean over several is brought back to the
                data once (what the solve of data consistency converges to is affine, so the order does not matter).
            boost: factor of brightness under which the network sees it.

        Returns:
            Image ``(C, *S)``, differentiable.
        """
        seen = self._features(inputs, scan, image)
        # All but the undersampling scale with the image. The noise of CT spans two orders of magnitude.
        images, noise, undersampling, moved = seen.split((3 * self.channels, 1, 1, self.channels), 1)
        seen = torch.cat((images * boost, torch.asinh(noise * boost), undersampling, moved * boost), 1)
        sides = self(torch.cat([apply_symmetry(seen, k) for k in symmetries])).chunk(len(symmetries))
        corrected = sum(undo_symmetry(side, k) for side, k in zip(sides, symmetries, strict=True))
        corrected = corrected / (boost * len(symmetries))
        weight = self._dc_weight(inputs, index)
        image = scan.operator.visible(inputs.image(corrected))
        return data_consistency(image, scan, weight, self.dc_iterations)

    def _dc_weight(self, inputs: PriorInputs, index: int) -> Tensor:
        log_weight = self.log_dc_weight[index]
        if self.dc_noise is not None:
            noise = inputs.features[0, 3 * self.channels].mean() / _NOISE
            log_weight = log_weight + self.dc_noise_power[index] * (noise / self.dc_noise).clamp(0.05, 50).log()
        return log_weight.exp()

    def _features(self, inputs: PriorInputs, scan: Scan, image: Tensor | None) -> Tensor:
        """Features ``(n_sets, 4 C + 2, *S)`` of a scan at an image."""
        c, features = self.channels, inputs.features
        if image is None:
            return torch.cat((features, torch.zeros_like(features[:, :c])), 1)
        residual, current = inputs.frame(scan.residual_image(image)), inputs.frame(image)
        moved = (current - features[:, :c]) * _DIFFERENCE
        return torch.cat((current, features[:, c : 2 * c], residual * _RESIDUAL, features[:, 3 * c :], moved), 1)

    def initial_image(self, inputs: PriorInputs) -> Tensor:
        """Initial image ``(C, *S)`` that the features hold."""
        return inputs.image(inputs.features[:, : self.channels])

    @torch.no_grad()
    def reconstruct(self, inputs: PriorInputs, scan: Scan) -> Tensor:
        """Reconstruct the image ``(C, *S)``; every pass takes the mean over all flips and turns of its input."""
        symmetries, image = range(self.n_symmetries(inputs.features)), None
        for i in range(self.n_passes):
            image = self.step(inputs, scan, image, i, symmetries)
        return image

    def n_symmetries(self, features: Tensor) -> int:
        """Number of symmetries: 4 flips, or 8 with the transposed ones."""
        return 8 if self.turns and features.shape[-1] == features.shape[-2] else 4


def _without_lowest(values: Tensor, cycles: float) -> Tensor:
    """Take out frequencies below about ``cycles`` a field of view, by one minus a Gaussian."""
    height, width = values.shape[-2:]
    rows = torch.fft.fftfreq(height, 1 / height, device=values.device)
    columns = torch.fft.rfftfreq(width, 1 / width, device=values.device)
    share = 1 - torch.exp(-0.5 * (rows[:, None] ** 2 + columns**2) / cycles**2)
    return torch.fft.irfft2(torch.fft.rfft2(values) * share, s=(height, width))


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
    """Multiply ``(n_sets, 2, *S)`` (real, imaginary) by a phase ``(n_sets, *S)``; anything else stays."""
    if phase is None:
        return values
    turned = torch.complex(values[:, 0], values[:, 1]) * phase
    return torch.stack((turned.real, turned.imag), 1)
