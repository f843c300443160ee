"""The preprocessing of one case: from a file to measurement, operator and reference (``docs/conventions.md``)."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from monai.transforms import Transform
from numpy.typing import NDArray

from disinr_monai.data.coil_maps import espirit_maps
from disinr_monai.data.masks import acs_size, equispaced_mask
from disinr_monai.data.naming import case_seed
from disinr_monai.data.points import voxel_centres
from disinr_monai.data.read_image import read_image
from disinr_monai.data.read_kspace import read_kspace
from disinr_monai.data.read_sinogram import read_sinogram
from disinr_monai.data.resample import block_average, pad_to_square, resample_slice
from disinr_monai.data.simulate_mri import simulate_kspace
from disinr_monai.data.units import HU_AIR, HU_RANGE, hu_to_image
from disinr_monai.errors import InputError
from disinr_monai.operators import MultiCoilFourier


class AcquireMRI(Transform):
    """Undersampled multi-coil Cartesian MRI of one case, as :func:`~disinr_monai.data.cases.list_cases` lists it.

    * image: brought to ``image_size``², k-space simulated (:func:`~disinr_monai.data.simulate_mri.simulate_kspace`),
      every ``acceleration``-th line and ``acs`` central lines kept, noise added;
    * fully sampled raw k-space: the same lines kept (or those of the file's ``mask``), no noise added; the reference is
      the root sum of squares of the full scan;
    * undersampled raw k-space: taken as it is, no reference.

    The measurement is scaled so that the image is about 1: by the 99.9th percentile of its zero-filled magnitude.

    Args:
        acceleration: distance between sampled lines.
        acs: autocalibration lines.
        n_coils: simulated coils.
        noise_std: simulated noise relative to the root mean square of the sampled k-space.
        image_size: rows and columns of a simulated scan.
        maps: ``"espirit"`` (from the measured centre; the file's own maps where it has them), ``"true"`` (those of the
            simulation, or the file's own), ``"file"`` (the file must have them).
        seed: of mask offset, coils, phase and noise, together with the name of the case.
    """

    def __init__(
        self,
        acceleration: int = 6,
        acs: int = 24,
        n_coils: int = 8,
        noise_std: float = 0.0316,
        image_size: int = 256,
        maps: Literal["espirit", "true", "file"] = "espirit",
        seed: int = 0,
    ) -> None:
        if maps not in ("espirit", "true", "file"):
            raise InputError(f"maps: expected espirit, true or file, found {maps!r}")
        _require("acceleration", acceleration, 1)
        _require("n_coils", n_coils, 1)
        _require("noise_std", noise_std, 0)
        _require("image_size", image_size, 8)
        self.acceleration, self.acs, self.n_coils = acceleration, acs, n_coils
        self.noise_std, self.image_size, self.maps, self.seed = noise_std, image_size, maps, seed

    def __call__(self, case: Mapping[str, Any]) -> dict[str, Any]:
        """Turn a listed case into a measured one.

        Raises:
            InputError: anything that the readers refuse, or no calibration region for the coil maps.
        """
        scan = self._simulated(case) if case["kind"] == "image" else self._raw(case)
        kspace, mask = scan["kspace"] * scan["mask"], scan["mask"]
        label = _label(case)
        if scan["maps"] is None:
            size = acs_size(mask)
            scan["info"] |= {"maps": "espirit", "acs_size": list(size)}
            maps = espirit_maps(kspace, size, name=label)
        else:
            maps = torch.from_numpy(np.ascontiguousarray(scan["maps"]))
        operator = MultiCoilFourier(maps, torch.from_numpy(mask))
        measurement = torch.from_numpy(kspace)
        zero_filled = torch.linalg.vector_norm(operator.adjoint(measurement), dim=0)
        scale = float(torch.quantile(zero_filled, 0.999))
        if not scale > 0:
            raise InputError(f"{label}: expected a signal in k-space, found an empty zero-filled image")
        reference = scan["reference"]
        output_scale = scale if reference is None else float(reference.max())
        result = {
            "name": case["name"],
            "subject": case["subject"],
            "index": case.get("index", 0),
            "modality": "mri",
            "operator": operator,
            "measurement": measurement / scale,
            "points": voxel_centres(mask.shape),
            "image_scale": scale / output_scale,
            "output_scale": output_scale,
            "affine": torch.from_numpy(np.asarray(scan["affine"], dtype=np.float64)),
            "info": {
                "source": Path(label).name,
                **scan["info"],
                "n_coils": len(kspace),
                "sampled_fraction": float(mask.mean()),
                "seed": self.seed,
            },
        }
        if reference is not None:
            result["reference"] = torch.from_numpy(reference / output_scale)
        return result

    def _simulated(self, case: Mapping[str, Any]) -> dict[str, Any]:
        if self.maps == "file":
            raise InputError(f"{_label(case)}: expected `sensitivity_maps` in the file (maps = file), found an image")
        source = read_image(case, "mri")
        image, affine = resample_slice(np.maximum(source.image, 0), source.affine, self.image_size)
        if not image.any():
            raise InputError(f"{_label(case)}: expected a magnitude image, found no positive voxel")
        mask = self._mask(case, image.shape)
        scan = simulate_kspace(image, self.n_coils, self.noise_std, case_seed(self.seed, case["name"]), mask)
        info = {**source.info, "simulated": True, "acceleration": self.acceleration, "acs": self.acs}
        return {
            "kspace": scan.kspace,
            "mask": mask,
            "maps": scan.maps if self.maps == "true" else None,
            "reference": scan.reference,
            "affine": affine,
            "info": {**info, "noise_std": self.noise_std, "maps": "true"},
        }

    def _raw(self, case: Mapping[str, Any]) -> dict[str, Any]:
        raw = read_kspace(case["path"], case.get("slice"))
        kspace, mask, maps, info = raw["kspace"], raw["mask"], raw["maps"], {**raw["info"], "simulated": False}
        if maps is None and self.maps != "espirit":
            raise InputError(
                f"{case['path']}: expected `sensitivity_maps` (maps = {self.maps}), found none; use maps = espirit"
            )
        reference = None
        if raw["is_full"]:
            images = np.fft.fftshift(np.fft.ifft2(np.fft.ifftshift(kspace, axes=(-2, -1)), norm="ortho"), axes=(-2, -1))
            reference = np.sqrt((np.abs(images) ** 2).sum(0, keepdims=True)).astype(np.float32)
            if not raw["has_mask"]:
                mask = mask & self._mask(case, mask.shape)
                info |= {"acceleration": self.acceleration, "acs": self.acs}
        return {
            "kspace": kspace,
            "mask": mask,
            "maps": maps,
            "reference": reference,
            "affine": raw["affine"],
            "info": {**info, "maps": "file", "retrospective": reference is not None},
        }

    def _mask(self, case: Mapping[str, Any], shape: tuple[int, ...]) -> NDArray[np.bool_]:
        line = equispaced_mask(
            shape[-1], self.acceleration, self.acs, seed=case_seed(self.seed, case["name"] + "/mask")
        )
        return np.broadcast_to(line, shape).copy()


class AcquireCT(Transform):
    """Sparse-view fan-beam CT of one case, as :func:`~disinr_monai.data.cases.list_cases` lists it.

    * image in HU: padded to a square with air, measured at its own resolution (at least twice ``image_size``) with
      Poisson and electronic noise; the reference is its block average on the ``image_size``² grid;
    * sinogram file: taken as it is with its own geometry, no reference.

    Images are in units of ``x = (HU + 1000) / 1200``; air is 0.

    Args:
        n_views: views, evenly over 360 degrees.
        photons: incident photons per ray; 0 is noise-free.
        electronic_noise: standard deviation of the detector noise, counts.
        image_size: rows and columns of the reconstruction.
        pixel_spacing: side of a reconstruction pixel, mm, whatever the file says; None keeps the file's field of view.
        n_detectors: detector elements.
        detector_spacing: mm.
        source_distance: source to rotation axis, mm.
        detector_distance: rotation axis to detector, mm.
        seed: of the noise, together with the name of the case.
    """

    def __init__(
        self,
        n_views: int = 60,
        photons: float = 1e5,
        electronic_noise: float = 5.0,
        image_size: int = 256,
        pixel_spacing: float | None = 1.0,
        n_detectors: int = 500,
        detector_spacing: float = 2.0,
        source_distance: float = 300.0,
        detector_distance: float = 300.0,
        seed: int = 0,
    ) -> None:
        _require("n_views", n_views, 1)
        _require("photons", photons, 0)
        _require("electronic_noise", electronic_noise, 0)
        _require("image_size", image_size, 8)
        self.n_views, self.photons, self.electronic_noise, self.seed = n_views, photons, electronic_noise, seed
        self.image_size, self.pixel_spacing = image_size, pixel_spacing
        self.geometry = {
            "n_detectors": n_detectors,
            "detector_spacing": detector_spacing,
            "source_distance": source_distance,
            "detector_distance": detector_distance,
        }

    def __call__(self, case: Mapping[str, Any]) -> dict[str, Any]:
        """Turn a listed case into a measured one.

        Raises:
            InputError: anything that the readers refuse, or a geometry that cannot be.
        """
        try:
            return self._measured(case) if case["kind"] == "sinogram" else self._simulated(case)
        except InputError:
            raise
        except ValueError as error:
            raise InputError(f"{_label(case)}: this CT geometry cannot be measured: {error}") from error

    def _simulated(self, case: Mapping[str, Any]) -> dict[str, Any]:
        from disinr_monai.data.simulate_ct import simulate_fan_beam
        from disinr_monai.operators import FanBeam

        source = read_image(case, "ct")
        fine, fine_affine = self._fine_image(source.image, source.affine)
        factor = len(fine) // self.image_size
        reference, affine = block_average(np.maximum(hu_to_image(fine), 0), fine_affine, factor)
        file_spacing = float(np.linalg.norm(affine[:3, 0]))
        spacing = file_spacing if self.pixel_spacing is None else self.pixel_spacing
        angles = np.arange(self.n_views) * (2 * np.pi / self.n_views)
        measurement, weights, noise_info = simulate_fan_beam(
            fine,
            pixel_spacing=spacing / factor,
            angles=angles,
            photons=self.photons,
            electronic_noise=self.electronic_noise,
            seed=case_seed(self.seed, case["name"]),
            **self.geometry,
        )
        operator = FanBeam(
            image_shape=(self.image_size, self.image_size), pixel_spacing=spacing, angles=angles, **self.geometry
        )
        info = {
            **noise_info,
            **source.info,
            "simulated": True,
            "n_views": self.n_views,
            "photons": self.photons,
            "electronic_noise": self.electronic_noise,
            "pixel_spacing": spacing,
            "file_pixel_spacing": file_spacing,
            **self.geometry,
            "seed": self.seed,
        }
        result = _ct_case(case, operator, measurement, affine, info)
        result["reference"] = torch.from_numpy(reference)[None]
        if weights is not None:
            result["weights"] = weights
        return result

    def _fine_image(self, image: NDArray, affine: NDArray) -> tuple[NDArray[np.float32], NDArray[np.float64]]:
        """Square image on a whole multiple (2 or more) of the reconstruction grid, so that it is no inverse crime."""
        square, affine = pad_to_square(np.maximum(image, HU_AIR), affine, HU_AIR)
        if len(square) % self.image_size == 0 and len(square) >= 2 * self.image_size:
            return square.astype(np.float32), affine
        factor = max(2, round(len(square) / self.image_size))
        return resample_slice(square, affine, factor * self.image_size, fill=HU_AIR)

    def _measured(self, case: Mapping[str, Any]) -> dict[str, Any]:
        from disinr_monai.operators import FanBeam

        file = read_sinogram(case["path"])
        sinogram = torch.from_numpy(file["sinogram"]) / (HU_RANGE / 1000 * file["water_attenuation"])
        geometry = {key: file[key] for key in ("detector_spacing", "source_distance", "detector_distance")}
        geometry |= {"pixel_spacing": file["pixel_spacing"], "n_detectors": sinogram.shape[-1]}
        operator = FanBeam(image_shape=file["image_shape"], angles=file["angles"], **geometry)
        info = {"format": "hdf5_sinogram", "simulated": False, "n_views": sinogram.shape[1], **geometry}
        info["water_attenuation"] = file["water_attenuation"]
        return _ct_case(case, operator, sinogram, file["affine"], info)


def _ct_case(
    case: Mapping[str, Any], operator: Any, measurement: torch.Tensor, affine: NDArray, info: dict[str, Any]
) -> dict[str, Any]:
    return {
        "name": case["name"],
        "subject": case["subject"],
        "index": case.get("index", 0),
        "modality": "ct",
        "operator": operator,
        "measurement": measurement,
        "points": voxel_centres(operator.domain_shape[1:]),
        "image_scale": 1.0,
        "output_scale": 1.0,
        "affine": torch.from_numpy(np.asarray(affine, dtype=np.float64)),
        "info": {"source": Path(_label(case)).name, **info},
    }


def _label(case: Mapping[str, Any]) -> str:
    path = case["path"]
    return str(Path(path[0]).parent) if isinstance(path, (list, tuple)) else str(path)


def _require(key: str, value: float, minimum: float) -> None:
    if isinstance(value, str) or not value >= minimum:
        raise InputError(f"{key}: expected a number of at least {minimum}, found {value!r}")
