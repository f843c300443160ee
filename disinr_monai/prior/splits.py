"""Training examples of the prior: inputs from one part of a scan, the other part to be predicted."""

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

from disinr_monai.errors import InputError
from disinr_monai.numerics.cache import DiskCache
from disinr_monai.operators import LinearOperator
from disinr_monai.prior.domain import characterise, include
from disinr_monai.prior.learned_prior import LearnedPrior, PriorInputs
from disinr_monai.runtime.names import case_seed
from disinr_monai.scan import Scan

# Part of the key of stored inputs: raise it when the same scan gives others.
_VERSION = 3


class VariedAcquisition(Transform):
    """Vary the settings of an acquisition from case to case.

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

    The inputs come from the kept part alone: the held-out part reaches neither initial image, nor noise, nor scale.
    They are stored on disk under the hash of everything that they depend on, because the initial images cost minutes.

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
        if case["scan"].counts is not None:
            raise InputError(
                f"{case['name']}: the learned prior has no likelihood of counts (PET); leave configs/prior.json out"
            )
        result = {key: case[key] for key in ("name", "subject", "index", "scan")}
        result["splits"] = []
        for i in range(self.n_splits):
            generator = torch.Generator().manual_seed(case_seed(self.seed, f"{case['name']}/split{i}"))
            # From case to case another kind comes first, so that all kinds are there even with few splits.
            keep = case["scan"].operator.partition.training_split((i + case["index"]) % 4, generator)
            result["splits"].append(self._split(case["scan"], keep))
        return result

    def _split(self, scan: Scan, keep: Tensor) -> dict[str, Any]:
        prior, kept = self.prior, scan.restrict(keep)
        key = _digest(prior.settings(), scan.operator, keep, kept.measurement, kept.weights, kept.noise)
        inputs = _ON_DISK.get(key, lambda: prior.inputs(kept))
        initial = prior.initial_image(inputs)
        include(prior.domain, characterise(kept, initial, prior.initial.weight_power))
        split = {"inputs": inputs, "keep": keep[:1].clone() if keep.stride(0) == 0 else keep}
        tempered = prior.tempered(scan).restrict(~split["keep"])
        energy = float(tempered.residual_energy(initial))
        noise = tempered.noise_energy(scan.restrict(~split["keep"]).noise_level())
        # Where the initial image is at the noise there is nothing to learn: such a split must not count without bounds.
        split["floor"] = min(noise, 0.95 * energy)
        split["scale"] = max(energy - split["floor"], 1e-12)
        return split


class PickSplit(RandomizableTransform):
    """Pick one split of a case by chance, with a symmetry and brightness; drawn anew each time the case comes up.

    PyTorch's global generator is used: it is seeded at the start of a run and restored when one is resumed.

    Args:
        prior: gives the number of symmetries.
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
