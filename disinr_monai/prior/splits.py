"""From a scan to what the prior is trained on: inputs from one part, the other part to be predicted."""

from __future__ import annotations

import copy
import hashlib
import json
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from monai.transforms import RandomizableTransform, Transform
from torch import Tensor

from disinr_monai.data.case import case_seed
from disinr_monai.errors import InputError
from disinr_monai.numerics.cache import DiskCache
from disinr_monai.operators import LinearOperator
from disinr_monai.prior.domain import describe, include
from disinr_monai.prior.learned_prior import LearnedPrior, PriorInputs, Scan
from disinr_monai.scan import tempered

# Part of the key of stored inputs: raise it when the same scan gives others.
_VERSION = 1


class VariedAcquisition(Transform):
    """The same acquisition with other settings from case to case, so that the prior knows them all.

    Args:
        acquire: an acquisition transform; its attributes are replaced in a copy.
        settings: attribute to values; case ``i`` takes value ``i`` modulo their number.
    """

    def __init__(self, acquire: Transform, settings: Mapping[str, Sequence[Any]]) -> None:
        for name in settings:
            if not hasattr(acquire, name):
                raise ValueError(f"VariedAcquisition: {type(acquire).__name__} has no setting {name!r}")
        self.acquire, self.settings = acquire, dict(settings)

    def __call__(self, case: Mapping[str, Any]) -> dict[str, Any]:
        acquire = copy.copy(self.acquire)
        for name, values in self.settings.items():
            setattr(acquire, name, values[case["index"] % len(values)])
        return acquire(case)


class SplitScan(Transform):
    """Split a measured case several times and compute the prior's inputs of each split.

    The inputs come from the kept part alone: what is held out reaches neither start, nor noise, nor scale. They are
    stored on disk under the hash of everything that they depend on, because the starts cost minutes.

    Args:
        prior: says what its inputs are (its network takes no part).
        n_splits: splits of each scan.
        seed: of random splits, together with the name of the case.
    """

    def __init__(self, prior: LearnedPrior, n_splits: int = 4, seed: int = 0) -> None:
        self.prior, self.n_splits, self.seed = prior, n_splits, seed

    def __call__(self, case: Mapping[str, Any]) -> dict[str, Any]:
        """The case with ``splits``, a list of dictionaries; points, references and the like are left behind.

        Raises:
            InputError: the case holds counts.
        """
        if "count_model" in case:
            raise InputError(
                f"{case['name']}: the learned prior has no likelihood of counts (PET); leave configs/prior.json out"
            )
        result = {
            key: case[key] for key in ("name", "subject", "index", "operator", "measurement", "weights") if key in case
        }
        result["splits"] = []
        for i in range(self.n_splits):
            generator = torch.Generator().manual_seed(case_seed(self.seed, f"{case['name']}/split{i}"))
            # From case to case another kind comes first, so that all kinds are there even with few splits.
            keep = case["operator"].partition.training_split((i + case["index"]) % 4, generator)
            result["splits"].append(self._split(case["operator"], case["measurement"], case.get("weights"), keep))
        return result

    def _split(
        self, operator: LinearOperator, measurement: Tensor, weights: Tensor | None, keep: Tensor
    ) -> dict[str, Any]:
        part, select = operator.partition.restrict(keep)
        values = (select(measurement), None if weights is None else select(weights))
        key = _digest(self.prior.settings(), operator, keep, *values)
        inputs = _ON_DISK.get(key, lambda: self.prior.inputs(part, *values))
        start = self.prior.start_image(inputs)
        include(self.prior.domain, describe(part, *values, start, self.prior.start.weight_power))
        split = {"inputs": inputs, "keep": keep[:1].clone() if keep.stride(0) == 0 else keep}
        held = held_out(operator, measurement, weights, split["keep"], self.prior.start.weight_power)
        energy = float(held.energy(start))
        # Where the start already is at the noise there is nothing to learn: such a split must not count without bounds.
        split["floor"] = min(held.floor, 0.95 * energy)
        split["scale"] = max(energy - split["floor"], 1e-12)
        return split


class PickSplit(RandomizableTransform):
    """One split of a case by chance, and how it is looked at; drawn anew each time the case comes up.

    PyTorch's global generator is used: it is seeded at the start of a run and restored when one is resumed.

    Args:
        prior: says which flips and turns there are.
        boost: natural logarithm of the largest factor of brightness, where images have no absolute unit.
    """

    def __init__(self, prior: LearnedPrior, boost: float = 0.35) -> None:
        super().__init__()
        self.prior, self.boost = prior, boost if prior.normalise else 0.0

    def __call__(self, case: Mapping[str, Any]) -> dict[str, Any]:
        """The case with one ``split`` that has ``symmetry`` and ``boost``."""
        split = dict(case["splits"][int(torch.randint(len(case["splits"]), ()))])
        split["symmetry"] = int(torch.randint(self.prior.n_symmetries(split["inputs"].features), ()))
        split["boost"] = float(torch.exp(self.boost * (2 * torch.rand(()) - 1)))
        return {**{k: v for k, v in case.items() if k != "splits"}, "split": split}


class HeldOut:
    """The part of a scan that is to be predicted."""

    def __init__(self, operator: LinearOperator, measurement: Tensor, fair: Tensor | None, variance: Tensor) -> None:
        self.operator, self.measurement, self.fair = operator, measurement, fair
        self.floor = operator.noise.energy(variance, fair)

    def energy(self, image: Tensor) -> Tensor:
        """Squared size of what an image ``(C, *S)`` leaves of it, about the image's mean squared error plus noise."""
        return self.operator.noise.residual_energy(self.operator(image) - self.measurement, self.fair)


def held_out(
    operator: LinearOperator, measurement: Tensor, weights: Tensor | None, keep: Tensor, weight_power: float
) -> HeldOut:
    """What ``keep`` leaves of a scan to predict."""
    part, select = operator.partition.restrict(~keep)
    values, own = select(measurement), None if weights is None else select(weights)
    variance = part.noise.variance(values, own)
    fair = tempered(weights, weight_power)
    return HeldOut(part, values, None if fair is None else select(fair), variance)


def kept(
    operator: LinearOperator, measurement: Tensor, weights: Tensor | None, keep: Tensor, weight_power: float
) -> Scan:
    """The part of a scan that the input comes from."""
    part, select = operator.partition.restrict(keep)
    fair = tempered(weights, weight_power)
    return Scan(part, select(measurement), None if fair is None else select(fair))


def _digest(settings: dict, operator: LinearOperator, keep: Tensor, *tensors: Tensor | None) -> str:
    what = [
        _VERSION,
        settings,
        type(operator).__name__,
        operator.domain_shape,
        repr(getattr(operator, "_geometry", "")),
    ]
    digest = hashlib.sha256(json.dumps(what, sort_keys=True).encode())
    for tensor in (*operator.buffers(recurse=False), keep, *tensors):
        digest.update(b"-" if tensor is None else tensor.detach().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()


def _pack(inputs: PriorInputs) -> dict[str, np.ndarray]:
    arrays = {"features": inputs.features.cpu().numpy(), "gain": np.float64(inputs.gain)}
    return arrays if inputs.phase is None else {**arrays, "phase": inputs.phase.cpu().numpy()}


def _unpack(arrays: Mapping[str, np.ndarray]) -> PriorInputs:
    phase = torch.from_numpy(arrays["phase"]) if "phase" in arrays else None
    return PriorInputs(torch.from_numpy(arrays["features"]), float(arrays["gain"]), phase)


_ON_DISK = DiskCache("prior", _pack, _unpack)
