"""The preprocessing of one PET case: from a file to counts, operator, count model and reference."""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from disinr_monai.data.acquire.projections import AcquireProjections
from disinr_monai.data.case import case_label, make_case
from disinr_monai.data.readers.image import read_image
from disinr_monai.data.readers.pet import COUNTS, pet_geometry
from disinr_monai.data.readers.plausible import check_counts
from disinr_monai.data.readers.reader import reader_of
from disinr_monai.data.resample import block_average
from disinr_monai.data.simulate.pet import WATER_511, mu_map_path, read_mu_map, simulate_pet, water_body
from disinr_monai.errors import InputError, at_least
from disinr_monai.methods.poisson import MLEM
from disinr_monai.operators import ParallelGeometry, PETProjection
from disinr_monai.operators.count_model import CountModel, EmissionCounts, TransmissionCounts
from disinr_monai.runtime.names import case_seed
from disinr_monai.scan import Scan

logger = logging.getLogger(__name__)

_SIMULATED_FWHM = 5.0
_ATTENUATIONS = ("body", "file", "none")
_SMALLEST = 1e-6  # length in mm, arc in degrees, scale


class AcquirePET(AcquireProjections):
    r"""PET of one case, as :func:`~disinr_monai.data.cases.list_cases` lists it.

    * activity image: measured on a grid at least twice as fine (:func:`~disinr_monai.data.simulate.pet.simulate_pet`)
      with Poisson noise; the reference is its block average on the ``image_size``² grid over its maximum;
    * sinogram file, emission: counts as they are; the image is scaled by its own estimate, so that it is about 1;
    * sinogram file, transmission: counts and blank scan; the image is the attenuation over that of water.

    What a sinogram file says of its geometry is used; the options are for what it does not say.

    Args:
        scan: ``"emission"`` or ``"transmission"`` (sinogram files).
        image_size: rows and columns of the reconstruction of a simulated scan.
        pixel_spacing: side of a reconstruction pixel, mm; None: of a simulated scan the image's field of view over
            ``image_size``, of a sinogram ``bin_spacing``.
        n_views: views of a simulated scan, evenly over ``arc``.
        arc: degrees that the views cover.
        n_bins: bins of a simulated scan; None covers the diagonal of the image.
        bin_spacing: mm; None: of a simulated scan the pixel.
        fwhm: resolution in mm; None: 5 for a simulated scan, 0 (not modelled) for a sinogram.
        counts: expected number of counts of a simulated slice, background included.
        randoms_fraction: share of the randoms in them.
        scatter_fraction: share of the scatter in them.
        attenuation: of a simulated scan: ``"file"`` the μ-map beside it, if any; ``"body"`` the same, but water inside
            the body's outline where there is none; ``"none"``.
        sinogram_axes: order of the axes of a sinogram; see :func:`~disinr_monai.data.readers.pet.read_pet_sinogram`.
        blank_scale: time of the transmission scan over that of the blank scan.
        precorrected: clip negative values of a sinogram at 0, from which someone has already taken the background.
        seed: of the noise, together with the name of the case.
    """

    modality, outside = "PET", 0.0

    def __init__(
        self,
        scan: str = "emission",
        image_size: int = 128,
        pixel_spacing: float | None = None,
        n_views: int = 180,
        arc: float = 180.0,
        n_bins: int | None = None,
        bin_spacing: float | None = None,
        fwhm: float | None = None,
        counts: float = 1e6,
        randoms_fraction: float = 0.2,
        scatter_fraction: float = 0.2,
        attenuation: str = "body",
        sinogram_axes: str | Sequence[str] | None = None,
        blank_scale: float | None = None,
        precorrected: bool = False,
        seed: int = 0,
    ) -> None:
        at_least("image_size", image_size, 8, whole=True)
        at_least("n_views", n_views, 1, whole=True)
        at_least("counts", counts, 1)
        at_least("randoms_fraction", randoms_fraction, 0)
        at_least("scatter_fraction", scatter_fraction, 0)
        if randoms_fraction + scatter_fraction >= 1:
            raise InputError(
                "randoms_fraction: expected less than 1 together with scatter_fraction, found "
                f"{randoms_fraction + scatter_fraction:g}; no true counts are left"
            )
        for key, value, known in (("scan", scan, COUNTS), ("attenuation", attenuation, _ATTENUATIONS)):
            if value not in known:
                raise InputError(f"{key}: expected one of {', '.join(known)}, found {value!r}")
        lengths = {"pixel_spacing": pixel_spacing, "bin_spacing": bin_spacing, "arc": arc, "blank_scale": blank_scale}
        minima = {**dict.fromkeys(lengths, _SMALLEST), "fwhm": 0, "n_bins": 2}
        for key, value in {**lengths, "fwhm": fwhm, "n_bins": n_bins}.items():
            if value is not None:
                at_least(key, value, minima[key], whole=key == "n_bins")
        self.scan, self.image_size, self.n_views, self.counts = scan, int(image_size), int(n_views), counts
        self.n_bins = None if n_bins is None else int(n_bins)
        self.geometry = {**lengths, "fwhm": fwhm}
        self.fractions = {"randoms_fraction": randoms_fraction, "scatter_fraction": scatter_fraction}
        self.attenuation, self.sinogram_axes, self.precorrected = attenuation, sinogram_axes, precorrected
        self.seed = seed

    def _simulated(self, case: Mapping[str, Any]) -> dict[str, Any]:
        if self.scan != "emission":
            raise InputError(
                f"{case_label(case)}: expected a transmission sinogram (.h5), found an image; leave "
                "configs/transmission.json out"
            )
        source = read_image(case, "pet")
        fine, fine_affine = self._fine_image(source.image, source.affine)
        if not fine.max() > 0:
            raise InputError(
                f"{case_label(case)}: expected an activity above 0 in slice {case.get('slice')}, found none"
            )
        factor = len(fine) // self.image_size
        reference, affine = block_average(fine, fine_affine, factor)
        file_spacing = float(np.linalg.norm(affine[:3, 0]))
        spacing = self.geometry["pixel_spacing"] or file_spacing
        mu_map, attenuation = self._mu_map(case, source, fine, spacing / factor)
        fwhm = _SIMULATED_FWHM if self.geometry["fwhm"] is None else self.geometry["fwhm"]
        lines = ParallelGeometry(
            image_shape=reference.shape,
            pixel_spacing=spacing,
            angles=np.arange(self.n_views) * (math.radians(self.geometry["arc"]) / self.n_views),
            n_detectors=self.n_bins or math.ceil(math.sqrt(2) * self.image_size),
            detector_spacing=self.geometry["bin_spacing"] or spacing,
        )
        top = float(reference.max())
        seed = case_seed(self.seed, case["name"])
        fine_lines = replace(lines, image_shape=fine.shape, pixel_spacing=spacing / factor)
        scan = simulate_pet(fine / top, mu_map, fine_lines, fwhm=fwhm, counts=self.counts, seed=seed, **self.fractions)
        operator = PETProjection(lines, sensitivity=scan["scale"] * scan["factors"], fwhm=fwhm)
        info = {
            **source.info,
            "simulated": True,
            "attenuation": attenuation,
            "counts": self.counts,
            "measured_counts": float(scan["counts"].sum()),
            "n_views": self.n_views,
            **self.fractions,
            "n_bins": lines.n_detectors,
            "bin_spacing": lines.detector_spacing,
            "fwhm": fwhm,
            "arc": self.geometry["arc"],
            "pixel_spacing": spacing,
            "file_pixel_spacing": file_spacing,
            "seed": self.seed,
            "noise_seed": seed,
        }
        model = EmissionCounts(scan["background"][None])
        measured = Scan(operator, scan["counts"][None], counts=model)
        return make_case(
            case, measured, modality="pet", affine=affine, info=info, output_scale=top, reference=reference[None] / top
        )

    def _mu_map(
        self, case: Mapping[str, Any], source: Any, fine: NDArray, fine_spacing: float
    ) -> tuple[NDArray | None, str]:
        """Attenuation map on the fine grid and its source."""
        path = mu_map_path(case) if self.attenuation != "none" else None
        if path is not None:
            return self._fine_image(read_mu_map(path, case, source), source.affine)[0], path.name
        if self.attenuation == "body":
            return water_body(fine, fine_spacing), "water inside the outline"
        return None, "none"

    def _measured(self, case: Mapping[str, Any]) -> dict[str, Any]:
        path, plane = case["path"], case.get("slice")
        label = path if plane is None else f"{path}: plane {plane}"
        file = reader_of(case).read(path, scan=self.scan, plane=plane, axes=self.sinogram_axes)
        counts = torch.from_numpy(file["counts"])[None]
        n_negative = int((counts < 0).sum())
        if float(counts.sum()) < 0.5 * float(counts.abs().sum()):
            raise InputError(
                f"{label}: `{COUNTS[self.scan]}` must hold counts, found {n_negative} negative values that outweigh "
                "the others: the wrong sign, or too much background taken off"
            )
        if n_negative and not self.precorrected:
            raise InputError(
                f"{label}: `{COUNTS[self.scan]}` must hold counts, found {n_negative} negative values (the background "
                "already taken off?); give --precorrected true to clip them at 0"
            )
        if n_negative:
            logger.warning(
                "%s: %d negative values (%.2g %%), down to %g, of `%s` are clipped at 0 (--precorrected true)",
                label, n_negative, 100 * n_negative / counts.numel(), float(counts.min()), COUNTS[self.scan],
            )  # fmt: skip
        counts = counts.clamp(min=0)
        # A transmission scan is not blurred in image space; what smears its counts is not modelled.
        options = {**self.geometry, "fwhm": 0.0} if self.scan == "transmission" else self.geometry
        geometry = pet_geometry(path, file["values"], counts.shape[1:], options, self.scan)
        lines, fwhm, assumed = geometry.lines, geometry.fwhm, geometry.assumed
        blank = file["blank"] * geometry.blank_scale if self.scan == "transmission" else None
        key = COUNTS[self.scan]
        doubts = [*geometry.unverified, *check_counts(file["counts"], blank, lines, label, water=WATER_511, key=key)]
        if assumed and not plane:  # once a file
            logger.warning("%s: not in the file, assumed: %s", path, ", ".join(assumed))
        background = torch.from_numpy(file["background"])[None] if "background" in file else None
        info = {
            "format": "hdf5_pet_sinogram",
            "simulated": False,
            "scan": self.scan,
            "measured_counts": float(counts.sum()),
            "negative_values_clipped": n_negative,
            "assumed": assumed,
            "pixel_spacing": lines.pixel_spacing,
            "n_bins": lines.n_detectors,
            "bin_spacing": lines.detector_spacing,
            "bin_offset": lines.detector_offset,
            "fwhm": fwhm,
            **({"unverified": doubts} if doubts else {}),
        }
        if blank is not None:
            operator = PETProjection(lines, sensitivity=WATER_511)
            model: CountModel = TransmissionCounts(torch.from_numpy(blank)[None], background)
            info |= {"units": "1/mm", "blank_scale": geometry.blank_scale}
            scan = Scan(operator, counts, counts=model)
            return make_case(case, scan, modality="pet", affine=geometry.affine, info=info, output_scale=WATER_511)
        factors = torch.from_numpy(file["factors"]) if "factors" in file else torch.tensor(1.0)
        model = EmissionCounts(background)
        # The network's image should be about 1: a quick estimate says what 1 is.
        rough = MLEM(n_iterations=2, n_subsets=8).solve(
            Scan(PETProjection(lines, sensitivity=factors, fwhm=fwhm), counts, counts=model)
        )
        unit = float(torch.quantile(rough.flatten(), 0.999))
        if not unit > 0:
            raise InputError(f"{label}: expected counts above the background, found none; check `background`")
        scan = Scan(PETProjection(lines, sensitivity=unit * factors, fwhm=fwhm), counts, counts=model)
        info |= {"units": "counts per mm" if geometry.calibration == 1 else "calibrated"}
        info |= {"calibration": geometry.calibration, "blank_scale": geometry.blank_scale}
        scale = unit * geometry.calibration
        return make_case(case, scan, modality="pet", affine=geometry.affine, info=info, output_scale=scale)
