"""The preprocessing of one volume: from a file to measured voxels and reference (``docs/volume.md``)."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from monai.transforms import Transform
from numpy.typing import NDArray

from disinr_monai.data.case import case_label, make_case
from disinr_monai.data.readers.image import read_volume
from disinr_monai.data.readers.values import HU_WINDOW, hounsfield, not_negative, too_negative
from disinr_monai.data.readers.voxels import Image
from disinr_monai.data.resample import resample_volume
from disinr_monai.errors import InputError, at_least
from disinr_monai.operators import Samples
from disinr_monai.runtime.names import case_seed
from disinr_monai.scan import Scan

logger = logging.getLogger(__name__)

KINDS = ("auto", "ct", "mri")
_AIR = -200.0


class AcquireVolume(Transform):
    r"""A CT or MR volume that is measured itself: :math:`y = x_I + n` at some or all voxels :math:`I`.

    The image is :math:`x = (\mathrm{HU} + 800) / 1200`, clipped to 0 and 1, for CT (the window of the paper) and the
    value over its 99.9th percentile for MR. It is the reference, without noise and whole.

    Args:
        volume_modality: ``"ct"``, ``"mri"`` or ``"auto"``: DICOM says it; of NIfTI, values below -200 are HU, and
            values that are all 0 or more are MR; anything else is refused. What was taken is logged.
        volume_shape: voxels ``[x, y, z]`` (right, anterior, head) to resample to, the field of view kept; by default as
            in the file.
        max_voxels: larger volumes are resampled, with a warning, by the same factor along the finest axes.
        noise_std: standard deviation :math:`σ` of Gaussian noise, relative to the range 0 to 1.
        sampled_fraction: share of the voxels that are measured, drawn at random.
        points_per_step: voxels of one step of a fit.
        seed: of noise and sampling, together with the name of the case.
    """

    def __init__(
        self,
        volume_modality: str = "auto",
        volume_shape: Sequence[int] | None = None,
        max_voxels: int = 2**24,
        noise_std: float = 0.0,
        sampled_fraction: float = 1.0,
        points_per_step: int = 2**14,
        seed: int = 0,
    ) -> None:
        if volume_modality not in KINDS:
            raise InputError(
                f"volume_modality: expected {', '.join(KINDS[:-1])} or {KINDS[-1]}, found {volume_modality!r}"
            )
        if volume_shape is not None and (
            not isinstance(volume_shape, (list, tuple))
            or len(volume_shape) != 3
            or not all(isinstance(n, int) and n >= 2 for n in volume_shape)
        ):
            raise InputError(f"volume_shape: expected three numbers of at least 2, [x,y,z], found {volume_shape!r}")
        at_least("max_voxels", max_voxels, 8, whole=True)
        at_least("noise_std", noise_std, 0)
        at_least("points_per_step", points_per_step, 1, whole=True)
        if isinstance(sampled_fraction, str) or not 0 < sampled_fraction <= 1:
            raise InputError(f"sampled_fraction: expected a number above 0, at most 1, found {sampled_fraction!r}")
        self.volume_modality, self.volume_shape, self.max_voxels = volume_modality, volume_shape, int(max_voxels)
        self.noise_std, self.sampled_fraction, self.seed = noise_std, sampled_fraction, seed
        self.points_per_step = int(points_per_step)

    def __call__(self, case: Mapping[str, Any]) -> dict[str, Any]:
        """Turn a listed case into a measured one.

        Raises:
            InputError: anything that the reader refuses, or a modality that cannot be told.
        """
        label, volume = case_label(case), read_volume(case)
        kind = self._kind(volume, label)
        image = volume.image
        if kind == "ct":
            image = hounsfield(image, label, needs_air=False)
        elif self.volume_modality == "auto":
            image = not_negative(image, label)
        elif (image < 0).any():  # the user says that it is MR: nothing is clipped in a volume
            logger.info("%s: %d negative voxels are kept (volume_modality mri)", label, (image < 0).sum())
        image, affine = self._resampled(replace(volume, image=image), label)
        if kind == "ct":
            scale, offset = HU_WINDOW[1] - HU_WINDOW[0], HU_WINDOW[0]
            outside = float(((image < HU_WINDOW[0]) | (image > HU_WINDOW[1])).mean())
            logger.info("%s: %.2g %% of the voxels outside [-800, 400] HU are clipped there", label, 100 * outside)
            image = np.clip((image - offset) / scale, 0, 1)
        else:
            scale, offset = float(np.percentile(image, 99.9)), 0.0
            if not scale > 0:
                raise InputError(f"{label}: expected an MR image with positive values, found none to scale by")
            image = image / scale
        reference = torch.from_numpy(np.ascontiguousarray(image, dtype=np.float32))[None]
        scan = self._measured(reference, case_seed(self.seed, case["name"]))
        info = {
            **volume.info,
            "simulated": True,
            "volume_modality": kind,
            "shape": list(reference.shape[1:]),
            "noise_std": self.noise_std,
            "sampled_fraction": scan.operator.n_measured / reference.numel(),
            "seed": self.seed,
        }
        return make_case(
            case,
            scan,
            modality="volume",
            affine=affine,
            info=info,
            output_scale=scale,
            output_offset=offset,
            units="HU" if kind == "ct" else "source",
            reference=reference,
        )

    def _measured(self, reference: torch.Tensor, seed: int) -> Scan:
        generator = torch.Generator().manual_seed(seed)
        n_voxels, pixels = reference.numel(), None
        if self.sampled_fraction < 1:
            n_measured = max(round(self.sampled_fraction * n_voxels), 1)
            pixels = torch.randperm(n_voxels, generator=generator)[:n_measured].sort().values
        operator = Samples(tuple(reference.shape), pixels, self.points_per_step)
        measurement = operator(reference)
        if self.noise_std > 0:
            measurement = measurement + self.noise_std * torch.randn(measurement.shape, generator=generator)
        return Scan(operator, measurement)

    def _kind(self, volume: Image, label: str) -> str:
        low, high = float(volume.image.min()), float(volume.image.max())
        kind, why = self.volume_modality, "volume_modality"
        if kind == "auto" and volume.dicom is not None:
            kind, why = {"CT": "ct", "MR": "mri"}.get(volume.dicom, "auto"), f"DICOM modality {volume.dicom}"
        elif kind == "auto" and (low < _AIR or not too_negative(volume.image)):
            kind, why = ("ct" if low < _AIR else "mri"), f"values {low:g} to {high:g}"
        if kind == "auto":
            raise InputError(
                f"{label}: expected CT in HU (with air, below {_AIR:g}) or MR (no negative values), found {low:g} to "
                f"{high:g}; say which with --volume_modality ct or mri"
            )
        if kind == "ct" and not (low < HU_WINDOW[1] and high > HU_WINDOW[0] and high - low > 50):
            raise InputError(
                f"{label}: expected CT values in HU, in the window [-800, 400], found {low:g} to {high:g}; convert the "
                "volume to HU, or give --volume_modality mri"
            )
        logger.info("%s: taken as %s (%s)", label, {"ct": "CT in HU", "mri": "MR"}[kind], why)
        return kind

    def _resampled(self, volume: Image, label: str) -> tuple[NDArray[np.float32], NDArray[np.float64]]:
        shape = self.volume_shape or _capped(volume.image.shape, volume.affine, self.max_voxels)
        if tuple(shape) == volume.image.shape:
            return volume.image, volume.affine
        text = "%s: resampled from %s to %s voxels"
        names = (" x ".join(map(str, volume.image.shape)), " x ".join(map(str, shape)))
        if self.volume_shape:
            logger.info(text, label, *names)
        else:
            logger.warning(text + "; --max_voxels keeps more, --output_spacing renders a finer grid", label, *names)
        return resample_volume(volume.image, volume.affine, shape)


def _capped(shape: tuple[int, ...], affine: NDArray, max_voxels: int) -> tuple[int, ...]:
    """The shape with the smallest common voxel size that stays below a number of voxels; coarser axes stay."""
    spacing = np.linalg.norm(affine[:3, :3], axis=0)
    lengths, size = np.asarray(shape) * spacing, spacing.min()
    while True:
        counts = np.where(spacing >= size, shape, np.maximum(np.floor(lengths / size), 2)).astype(int)
        if counts.prod() <= max_voxels:
            return tuple(int(n) for n in counts)
        size *= 1.02
