"""The preprocessing of one MRI case: from a file to measurement, operator and reference (``docs/conventions.md``)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

import numpy as np
import torch
from monai.transforms import Transform
from numpy.typing import NDArray

from disinr_monai.data.case import case_label, make_case
from disinr_monai.data.coils.espirit import espirit_maps, gridded_calibration
from disinr_monai.data.coils.joint import joint_maps
from disinr_monai.data.coils.reference import REFERENCES, full_reference, reference_info
from disinr_monai.data.noise import with_kspace_noise
from disinr_monai.data.readers.image import read_image
from disinr_monai.data.readers.kspace import cut_affine
from disinr_monai.data.readers.reader import reader_of
from disinr_monai.data.resample import LARGEST_IMAGE, resample_slice
from disinr_monai.data.simulate.mri import COILS, PHASES, oversampled, sample_kspace, simulate_kspace
from disinr_monai.data.simulate.patterns import (
    equispaced_mask,
    n_radial_spokes,
    poisson_mask,
    radial_trajectory,
    random_mask,
)
from disinr_monai.errors import InputError, at_least
from disinr_monai.grid import centre_block
from disinr_monai.operators import LinearOperator, MultiCoilFourier, NonCartesianFourier
from disinr_monai.operators.calibration import acs_size, density_compensation
from disinr_monai.runtime.names import case_seed
from disinr_monai.scan import Scan

MAPS = ("espirit", "joint", "simulated", "file")
PATTERNS = ("uniform", "random", "poisson", "radial")
_MOST_COILS = 1024


class AcquireMRI(Transform):
    """Undersampled multi-coil MRI of one case, as :func:`~disinr_monai.data.cases.list_cases` lists it.

    * image: brought to ``image_size``², k-space simulated (:func:`~disinr_monai.data.simulate.mri.simulate_kspace`)
      where ``pattern`` samples it, noise added;
    * fully sampled raw k-space: sampled in the same way (or by the file's ``mask``), no noise added; the reference is
      made from the full scan (``reference``), and the samples taken away are kept as ``unsampled``;
    * undersampled or non-Cartesian raw k-space: taken as it is, no reference.

    The measurement is scaled so that the image is about 1: by the 99.9th percentile of its zero-filled magnitude. That
    of a non-Cartesian scan is also multiplied by the root of the density compensation, as its operator is
    (:class:`~disinr_monai.operators.NonCartesianFourier`).

    Args:
        acceleration: ``uniform``: distance between sampled lines; ``random``, ``poisson``: all lines or samples over
            the sampled ones; ``radial``: :math:`π/2` times the matrix size over the number of spokes.
        acs: autocalibration lines, the side of the centre of ``poisson``; a radial scan has its own centre.
        n_coils: simulated coils.
        noise_std: simulated noise relative to the root mean square of the sampled k-space.
        image_size: rows and columns of a simulated scan.
        maps: ``"espirit"`` (from the measured centre; the file's own maps where it has them), ``"joint"``
            (the same, but estimated together with the image, for scans without a usable centre:
            :func:`~disinr_monai.data.coils.joint.joint_maps`), ``"simulated"`` (those of the simulation, or the file's
            own), ``"file"`` (the file must have them).
        map_sets: sets of ESPIRiT maps: 1, 2 (an object that wraps around the field of view), or None to decide from the
            eigenvalues (:func:`~disinr_monai.data.coils.espirit.espirit_maps`).
        seed: of pattern, coils, phase and noise, together with the name of the case.
        pattern: ``"uniform"`` or ``"random"`` lines, ``"poisson"`` disc, ``"radial"`` at the golden angle.
        object_phase: of simulated images, ``"smooth"`` or ``"tissue"`` (sharp at fat, vessels and air).
        coils: of simulated scans, ``"ring"`` (regular), ``"array"`` (irregular, coupled, prewhitened) or
            ``"raw_array"`` (the same with correlated noise).
        select: which ``contrast``, ``phase``, ``repetition`` or ``set`` of an ISMRMRD file, e.g. ``{"contrast": 1}``.
        reference: of fully sampled raw k-space: ``"combined"`` (the coils, with maps of the full scan) or ``"rss"``
            (root sum of squares, which carries a noise bias):
            :func:`~disinr_monai.data.coils.reference.full_reference`.
    """

    def __init__(
        self,
        acceleration: float = 6,
        acs: int = 24,
        n_coils: int = 8,
        noise_std: float = 0.0316,
        image_size: int = 256,
        maps: Literal["espirit", "joint", "simulated", "file"] = "espirit",
        seed: int = 0,
        pattern: Literal["uniform", "random", "poisson", "radial"] = "uniform",
        select: Mapping[str, int] | None = None,
        map_sets: int | None = None,
        reference: Literal["combined", "rss"] = "combined",
        object_phase: Literal["smooth", "tissue"] = "smooth",
        coils: Literal["ring", "array", "raw_array"] = "ring",
    ) -> None:
        for name, value, known in (
            ("maps", maps, MAPS),
            ("pattern", pattern, PATTERNS),
            ("object_phase", object_phase, PHASES),
            ("coils", coils, COILS),
            ("reference", reference, REFERENCES),
        ):
            if value not in known:
                raise InputError(f"{name}: expected {', '.join(known[:-1])} or {known[-1]}, found {value!r}")
        if map_sets not in (None, 1, 2):
            raise InputError(f"map_sets: expected 1, 2 or null (from the data), found {map_sets!r}")
        at_least("acceleration", acceleration, 1)
        at_least("acs", acs, 0, LARGEST_IMAGE, whole=True)
        at_least("n_coils", n_coils, 1, _MOST_COILS, whole=True)
        at_least("noise_std", noise_std, 0)
        at_least("image_size", image_size, 8, LARGEST_IMAGE, whole=True)
        self.acceleration, self.acs, self.n_coils, self.pattern = acceleration, int(acs), int(n_coils), pattern
        self.noise_std, self.image_size, self.maps, self.seed = noise_std, int(image_size), maps, seed
        self.select, self.map_sets, self.reference = select, map_sets, reference
        self.object_phase, self.coils = object_phase, coils

    def __call__(self, case: Mapping[str, Any]) -> dict[str, Any]:
        """Turn a listed case into a measured one.

        Raises:
            InputError: anything that the readers refuse, or no calibration region for the coil maps.
        """
        scan = self._simulated(case) if reader_of(case).kind == "image" else self._raw(case)
        label = case_label(case)
        operator, measurement = _operator(scan, label, self.maps, self.map_sets)
        zero_filled = torch.linalg.vector_norm(operator.adjoint(measurement), dim=0)
        scale = float(torch.quantile(zero_filled, 0.999))
        if not scale > 0:
            raise InputError(f"{label}: expected a signal in k-space, found an empty zero-filled image")
        reference, affine, shape = scan["reference"], scan["affine"], tuple(operator.domain_shape[1:])
        crop = tuple(scan.get("crop", shape))
        if crop == shape:
            crop = None
        else:
            rows, columns = (centre_block(n, kept) for n, kept in zip(shape, crop, strict=True))
            affine = cut_affine(affine, rows, columns)
            reference = None if reference is None else reference[:, rows, columns]
        output_scale = scale if reference is None else float(reference.max())
        image_scale, unit = scale / output_scale, scan.get("unit", 1.0)
        full = scan.get("full")
        about = {} if full is None else reference_info(self.reference, full.noise / output_scale)
        more = {} if crop or scan.get("trajectory") is not None else _unsampled(operator, scan, scale)
        # Prewhitened samples have noise of variance 1.
        known = 1 / scale if scan["info"].get("prewhitened") else None
        measured, noise = with_kspace_noise(Scan(operator, measurement / scale), known)
        info = {
            **scan["info"],
            **about,
            **noise,
            "n_coils": operator.range_shape[0],
            "map_sets": operator.domain_shape[0] // 2,
            "sampled_fraction": operator.n_measured / operator.range_shape[0] / zero_filled.numel(),
            "seed": self.seed,
        }
        return make_case(
            case,
            measured,
            modality="mri",
            affine=affine,
            info=info,
            image_scale=image_scale,
            output_scale=output_scale * unit,
            reference=None if reference is None else reference / output_scale,
            crop=crop,
            **more,
        )

    def _simulated(self, case: Mapping[str, Any]) -> dict[str, Any]:
        if self.maps == "file":
            raise InputError(
                f"{case_label(case)}: expected `sensitivity_maps` in the file (maps = file), found an image"
            )
        source = read_image(case, "mri")
        image, affine = resample_slice(source.image, source.affine, self.image_size)
        if not image.any():
            raise InputError(f"{case_label(case)}: expected a magnitude image, found no positive voxel")
        inner = image.shape
        image = oversampled(image)
        margin = [(n - m) // 2 for n, m in zip(image.shape, inner, strict=True)]
        affine[:3, 3] -= affine[:3, :2] @ margin
        sampling, info = self._sampling(case, image.shape)
        if image.shape != inner:
            info["oversampled"] = list(image.shape)
        seed, realism = case_seed(self.seed, case["name"]), {"object_phase": self.object_phase, "coils": self.coils}
        scan = simulate_kspace(image, self.n_coils, self.noise_std, seed, **sampling, **realism)
        return {
            "kspace": scan.kspace,
            **sampling,
            "maps": scan.maps if self.maps == "simulated" else None,
            "shape": image.shape,
            "crop": inner,
            "reference": scan.reference,
            "affine": affine,
            "info": {
                **source.info,
                "simulated": True,
                **info,
                **realism,
                "noise_std": self.noise_std,
                "maps": "simulated",
            },
        }

    def _raw(self, case: Mapping[str, Any]) -> dict[str, Any]:
        raw = reader_of(case).read(case["path"], case.get("slice"), self.select)
        kspace, mask, trajectory = raw.kspace, raw.mask, raw.trajectory
        info = {**raw.info, "simulated": False}
        if raw.maps is None and self.maps in ("simulated", "file"):
            raise InputError(
                f"{case['path']}: expected `sensitivity_maps` (maps = {self.maps}), found none; use maps = espirit"
            )
        full = None
        if raw.is_full:
            images = np.fft.fftshift(np.fft.ifft2(np.fft.ifftshift(kspace, axes=(-2, -1)), norm="ortho"), axes=(-2, -1))
            full = full_reference(images, kspace, raw.maps, self.reference, case_label(case))
            if not raw.has_mask:
                chosen, settings = self._sampling(case, raw.shape)
                info |= settings
                trajectory = chosen.get("trajectory")
                if trajectory is None:
                    mask = mask & chosen["mask"]
                else:
                    kspace = sample_kspace(images, trajectory).astype(np.complex64)
        return {
            "kspace": kspace,
            "mask": mask,
            "trajectory": trajectory,
            "maps": raw.maps,
            "calibration": raw.calibration,
            "shape": raw.shape,
            "crop": raw.crop or raw.shape,
            "unit": raw.unit,
            "reference": None if full is None else full.image,
            "full": full,
            "affine": raw.affine,
            "info": {**info, "maps": "file", "retrospective": full is not None},
        }

    def _sampling(self, case: Mapping[str, Any], shape: tuple[int, ...]) -> tuple[dict[str, NDArray], dict[str, Any]]:
        """Choose the ``mask`` ``(H, W)`` or ``trajectory``, with its settings for the case's ``info``."""
        seed = case_seed(self.seed, case["name"] + "/mask")
        info = {"pattern": self.pattern, "acceleration": self.acceleration}
        if self.pattern == "radial":
            n_spokes = n_radial_spokes(shape, self.acceleration)
            start = np.random.default_rng(seed).uniform(0, np.pi)
            return {"trajectory": radial_trajectory(shape, n_spokes, start)}, info | {"n_spokes": n_spokes}
        if self.pattern == "poisson":
            mask = poisson_mask(shape, self.acceleration, self.acs, seed)
        else:
            lines = equispaced_mask if self.pattern == "uniform" else random_mask
            mask = np.broadcast_to(lines(shape[-1], self.acceleration, self.acs, seed=seed), shape).copy()
        return {"mask": mask}, info | {"acs": self.acs}


def _operator(
    scan: dict[str, Any], label: str, maps_from: str, map_sets: int | None
) -> tuple[LinearOperator, torch.Tensor]:
    """Build the operator (estimating coil maps if needed) and return it with the measured samples."""
    kspace, trajectory, maps = scan["kspace"], scan.get("trajectory"), scan["maps"]
    if trajectory is None:
        kspace = kspace * scan["mask"]
    if maps is None:
        maps = _estimated(scan, kspace, label, maps_from, map_sets)
    else:
        maps = torch.from_numpy(np.ascontiguousarray(maps))
    if trajectory is None:
        return MultiCoilFourier(maps, torch.from_numpy(scan["mask"])), torch.from_numpy(kspace)
    operator = NonCartesianFourier(maps, trajectory, density_compensation(trajectory))
    return operator, operator.precondition(torch.from_numpy(kspace))


def _unsampled(operator: MultiCoilFourier, scan: dict[str, Any], scale: float) -> dict[str, Scan]:
    """The samples of a full raw scan that were taken away, as a scan of their own to judge by."""
    if scan.get("full") is None:
        return {}
    rest = (scan["kspace"] != 0).any(0) & ~scan["mask"]
    if not rest.any():
        return {}
    samples = scan["kspace"] * rest
    if scan["full"].variance > 0:
        scan["info"]["unsampled_noise"] = scan["full"].variance / float((np.abs(samples[:, rest]) ** 2).mean())
    return {"unsampled": Scan(operator.with_mask(torch.from_numpy(rest)), torch.from_numpy(samples) / scale)}


def _estimated(scan: dict[str, Any], kspace: NDArray, label: str, maps_from: str, map_sets: int | None) -> torch.Tensor:
    """Coil maps from separate calibration lines, the measured centre, or together with the image."""
    trajectory, lines = scan.get("trajectory"), scan.get("calibration")
    if maps_from == "joint":
        if trajectory is not None:
            raise InputError(f"{label}: maps: joint is for Cartesian scans, found a trajectory; use maps = espirit")
        scan["info"] |= {"maps": "joint"}
        return joint_maps(torch.from_numpy(kspace), torch.from_numpy(scan["mask"]), name=label)
    if lines is not None:
        kspace, size = lines, acs_size((lines != 0).any(0))
    elif trajectory is not None:
        kspace, side = gridded_calibration(kspace, trajectory, scan["shape"])
        size, map_sets = (side, side), map_sets or 1  # nothing wraps around without a grid
    else:
        size = acs_size(scan["mask"])
    scan["info"] |= {"maps": "espirit", "acs_size": list(size), "separate_calibration": lines is not None}
    return espirit_maps(kspace, size, n_sets=map_sets, name=label)
