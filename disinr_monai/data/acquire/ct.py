"""The preprocessing of one CT case: from a file to measurement, operator and reference (``docs/conventions.md``)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from disinr_monai.data.acquire.projections import AcquireProjections
from disinr_monai.data.case import make_case
from disinr_monai.data.noise import with_ray_noise
from disinr_monai.data.readers.cil import scan_from_cil
from disinr_monai.data.readers.cil_geometry import CILGeometry
from disinr_monai.data.readers.image import read_image
from disinr_monai.data.readers.reader import reader_of
from disinr_monai.data.readers.sinogram import known_settings
from disinr_monai.data.resample import LARGEST_IMAGE, block_average
from disinr_monai.data.simulate.ct import simulate_fan_beam
from disinr_monai.errors import InputError, at_least
from disinr_monai.modality import CT_ATTENUATION, HU_AIR, hu_to_image, image_attenuation
from disinr_monai.operators import ConeBeam, ConeGeometry, FanBeam, FanGeometry, ParallelBeam, ParallelGeometry
from disinr_monai.runtime.names import case_seed
from disinr_monai.scan import Scan

_OPERATORS = {ParallelGeometry: ParallelBeam, FanGeometry: FanBeam, ConeGeometry: ConeBeam}
_MOST_VIEWS, _MOST_DETECTORS, _MOST_NOISE = 100_000, 65_536, 1e9
_SPACINGS, _FARTHEST = (1e-6, 1e4), 1e6  # mm


class AcquireCT(AcquireProjections):
    """CT of one case, as :func:`~disinr_monai.data.cases.list_cases` lists it.

    * image in HU: padded to a square with air, measured at its own resolution (at least twice ``image_size``) with
      Poisson and electronic noise; the reference is its block average on the ``image_size``² grid;
    * sinogram file (our HDF5 or CIL's NeXus): taken as it is with its own geometry, no reference.

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
        file_geometry: for sinogram files, what they do not say or say wrongly: a dictionary of
            :data:`disinr_monai.data.readers.sinogram.SETTINGS`.
    """

    modality, outside = "CT", HU_AIR

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
        file_geometry: Mapping[str, Any] | None = None,
    ) -> None:
        self.file_geometry = known_settings(file_geometry)
        at_least("n_views", n_views, 1, _MOST_VIEWS, whole=True)
        at_least("photons", photons, 1 if photons else 0)  # 0 is no noise
        at_least("electronic_noise", electronic_noise, 0, _MOST_NOISE)
        for key, length in {"pixel_spacing": pixel_spacing, "detector_spacing": detector_spacing}.items():
            if length is not None:
                at_least(key, length, *_SPACINGS)
        at_least("source_distance", source_distance, 0, _FARTHEST)
        at_least("detector_distance", detector_distance, 0, _FARTHEST)
        at_least("image_size", image_size, 8, LARGEST_IMAGE, whole=True)
        at_least("n_detectors", n_detectors, 1, _MOST_DETECTORS, whole=True)
        self.n_views, self.photons, self.electronic_noise, self.seed = int(n_views), photons, electronic_noise, seed
        self.image_size, self.pixel_spacing = int(image_size), pixel_spacing
        self.scanner = {
            "n_detectors": int(n_detectors),
            "detector_spacing": detector_spacing,
            "source_distance": source_distance,
            "detector_distance": detector_distance,
        }

    def _simulated(self, case: Mapping[str, Any]) -> dict[str, Any]:
        source = read_image(case, "ct")
        fine, fine_affine = self._fine_image(source.image, source.affine)
        factor = len(fine) // self.image_size
        reference, affine = block_average(np.maximum(hu_to_image(fine), 0), fine_affine, factor)
        file_spacing = float(np.linalg.norm(affine[:3, 0]))
        spacing = file_spacing if self.pixel_spacing is None else self.pixel_spacing
        geometry = FanGeometry(
            image_shape=reference.shape,
            pixel_spacing=spacing,
            angles=np.arange(self.n_views) * (2 * np.pi / self.n_views),
            **self.scanner,
        )
        measurement, weights, noise = simulate_fan_beam(
            fine,
            replace(geometry, image_shape=fine.shape, pixel_spacing=spacing / factor),
            photons=self.photons,
            electronic_noise=self.electronic_noise,
            seed=case_seed(self.seed, case["name"]),
        )
        operator = FanBeam(geometry)
        info = {
            **noise,
            **source.info,
            "simulated": True,
            "n_views": self.n_views,
            "photons": self.photons,
            "electronic_noise": self.electronic_noise,
            "pixel_spacing": spacing,
            "file_pixel_spacing": file_spacing,
            **self.scanner,
            "seed": self.seed,
        }
        scan, seen = with_ray_noise(Scan(operator, measurement, weights), CT_ATTENUATION)
        return make_case(case, scan, modality="ct", affine=affine, info=info | seen, reference=reference[None])

    def _measured(self, case: Mapping[str, Any]) -> dict[str, Any]:
        scan = reader_of(case).read(case["path"], case["slice"], self.image_size, self.file_geometry)
        return scan_case(case, scan)


def scan_case(case: Mapping[str, Any], scan: Mapping[str, Any]) -> dict[str, Any]:
    """The case of a measured scan (a dictionary of :func:`disinr_monai.data.readers.sinogram.checked_scan`).

    Its lengths are counted in pixels, as if a pixel were 1 mm: the weights of regularisers and the learned prior, which
    were chosen there, then mean the same for small and large pixels.
    """
    unit = scan["geometry"].pixel_spacing
    geometry = scan["geometry"].in_units_of(unit)
    operator = _OPERATORS[type(geometry)](geometry)
    scale = image_attenuation(scan["settings"]["water_attenuation"]) * unit
    measurement = torch.from_numpy(scan["projections"]).reshape(operator.range_shape) / scale
    info = dict(scan["settings"])
    info |= {"format": scan.get("format", "hdf5_sinogram"), "simulated": False, "n_views": operator.range_shape[1]}
    info |= {key: scan[key] for key in ("read_as", "unverified") if scan.get(key)}
    measured, noise = with_ray_noise(Scan(operator, measurement), scale)
    return make_case(case, measured, modality="ct", affine=scan["affine"], info=info | noise)


def from_cil(
    data: Any, index: int | None = None, image_size: int = 256, given: Mapping[str, Any] | None = None
) -> dict[str, Any]:
    """Build a case (``scan``, ``points``, ...) from CIL ``AcquisitionData``.

    Lengths of the geometry are taken for mm and the values for line integrals (after ``-log``). A ``pixel_spacing`` and
    an ``image_shape`` of a CIL ``ImageGeometry`` go into ``given``.

    Args:
        data: ``AcquisitionData`` (its ``geometry.config``, ``dimension_labels`` and ``as_array()`` are read).
        index: row of a 3-D parallel scan.
        image_size: rows and columns of the image where ``given`` does not say ``image_shape``.
        given: values of :data:`disinr_monai.data.readers.sinogram.SETTINGS`, stronger than those of ``data``.

    Raises:
        InputError: not such an object, several channels, or a geometry that is not supported.
    """
    try:
        cil = CILGeometry.of(data.geometry.config)
        labels = [str(label) for label in data.dimension_labels]
        array = np.asarray(data.as_array())
    except AttributeError as error:
        raise InputError(f"from_cil: expected CIL AcquisitionData, found {type(data).__name__} ({error})") from error
    scan = scan_from_cil(array, labels, cil, "from_cil", index, image_size, given)
    return scan_case({"name": "cil", "subject": "cil", "path": "cil", "slice": index}, scan)


def from_cil_image(image: Any) -> Tensor:
    """Our image ``(1, H, W)`` or ``(1, H, W, D)`` from CIL's ``ImageData`` in 1/mm, e.g. to start a solver from."""
    array = np.asarray(image.as_array(), dtype=np.float32)
    # CIL: (y, x) or (z, y, x) with y up; ours: rows downwards, slices last.
    array = array[..., ::-1, :] if array.ndim == 2 else np.moveaxis(array[:, ::-1], 0, -1)
    return torch.from_numpy(np.ascontiguousarray(array))[None] / CT_ATTENUATION


def to_cil_array(image: Tensor) -> np.ndarray:
    """Our image ``(1, H, W)`` or ``(1, H, W, D)`` as the array of a CIL ``ImageData``, in 1/mm."""
    array = np.asarray(image.detach().cpu())[0] * CT_ATTENUATION
    array = array[::-1] if array.ndim == 2 else np.moveaxis(array[::-1], -1, 0)
    return np.ascontiguousarray(array, dtype=np.float32)
