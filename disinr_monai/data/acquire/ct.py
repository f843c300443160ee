"""The preprocessing of one CT case: from a file to measurement, operator and reference (``docs/conventions.md``)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from monai.transforms import Transform
from numpy.typing import NDArray
from torch import Tensor

from disinr_monai.data.case import case_label, make_case
from disinr_monai.data.readers.cil import scan_from_cil
from disinr_monai.data.readers.cil_geometry import CILGeometry
from disinr_monai.data.readers.image import read_image
from disinr_monai.data.readers.reader import reader_of
from disinr_monai.data.readers.sinogram import SETTINGS, scan_operator
from disinr_monai.data.resample import LARGEST_IMAGE, block_average, pad_to_square, resample_slice
from disinr_monai.data.simulate.ct import simulate_fan_beam
from disinr_monai.errors import InputError, at_least
from disinr_monai.modality import CT_ATTENUATION, HU_AIR, HU_RANGE, hu_to_image
from disinr_monai.operators import FanBeam
from disinr_monai.runtime.names import case_seed
from disinr_monai.scan import Scan

_MOST_VIEWS, _MOST_DETECTORS, _MOST_NOISE = 100_000, 65_536, 1e9
_SPACINGS, _FARTHEST = (1e-6, 1e4), 1e6  # mm


class AcquireCT(Transform):
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
        self.file_geometry = dict(file_geometry or {})
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
        self.geometry = {
            "n_detectors": int(n_detectors),
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
            return self._measured(case) if reader_of(case).kind == "sinogram" else self._simulated(case)
        except InputError:
            raise
        except ValueError as error:
            raise InputError(f"{case_label(case)}: this CT geometry cannot be measured: {error}") from error

    def _simulated(self, case: Mapping[str, Any]) -> dict[str, Any]:
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
        scan = Scan(operator, measurement, weights)
        return make_case(case, scan, modality="ct", affine=affine, info=info, reference=reference[None])

    def _fine_image(self, image: NDArray, affine: NDArray) -> tuple[NDArray[np.float32], NDArray[np.float64]]:
        """Square image on a whole multiple (2 or more) of the reconstruction grid, so that it is no inverse crime."""
        square, affine = pad_to_square(np.maximum(image, HU_AIR), affine, HU_AIR)
        if len(square) % self.image_size == 0 and len(square) >= 2 * self.image_size:
            return square.astype(np.float32), affine
        factor = max(2, round(len(square) / self.image_size))
        return resample_slice(square, affine, factor * self.image_size, fill=HU_AIR)

    def _measured(self, case: Mapping[str, Any]) -> dict[str, Any]:
        scan = reader_of(case).read(case["path"], case["slice"], self.image_size, self.file_geometry)
        return scan_case(case, scan)


def scan_case(case: Mapping[str, Any], scan: Mapping[str, Any]) -> dict[str, Any]:
    """The case of a measured scan (a dictionary of :func:`disinr_monai.data.readers.sinogram.checked_scan`).

    Its lengths are counted in pixels, as if a pixel were 1 mm: the weights of regularisers and the learned prior, which
    were chosen there, then mean the same for small and large pixels.
    """
    unit = scan["pixel_spacing"]
    operator = scan_operator(scan, unit)
    scale = HU_RANGE / 1000 * scan["water_attenuation"] * unit
    measurement = torch.from_numpy(scan["projections"]).reshape(operator.range_shape) / scale
    info = {key: scan[key] for key in SETTINGS if key in scan and key not in ("affine", "angles")}
    # "geometry" in a case's information says how sure the position in the patient is.
    info["beam"] = info.pop("geometry")
    info |= {"format": scan.get("format", "hdf5_sinogram"), "simulated": False, "n_views": operator.range_shape[1]}
    info |= {key: scan[key] for key in ("read_as", "unverified") if scan.get(key)}
    return make_case(case, Scan(operator, measurement), modality="ct", affine=scan["affine"], info=info)


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
        cil = _geometry(data.geometry.config)
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


def _geometry(config: Any) -> CILGeometry:
    system, panel, angles = config.system, config.panel, config.angles
    is_cone = str(system.geometry) == "cone"
    is_3d = len(np.reshape(system.detector.position, -1)) == 3
    turned = np.asarray(angles.angle_data, dtype=float).reshape(-1) + float(angles.initial_angle)
    return CILGeometry(
        kind="cone" if is_cone else "parallel",
        source=system.source.position if is_cone else system.ray.direction,
        detector=system.detector.position,
        direction_x=system.detector.direction_x,
        direction_y=system.detector.direction_y if is_3d else None,
        axis=system.rotation_axis.position,
        axis_direction=system.rotation_axis.direction if is_3d else None,
        n_pixels=(int(panel.num_pixels[0]), int(panel.num_pixels[1])),
        pixel_size=(float(panel.pixel_size[0]), float(panel.pixel_size[1])),
        origin=str(panel.origin),
        angles=np.radians(turned) if str(angles.angle_unit).lower().endswith("degree") else turned,
    )
