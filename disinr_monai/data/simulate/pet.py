"""The attenuation that a simulated PET scan suffers: a file beside the activity, or water inside the body's outline."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.ndimage import binary_closing, binary_fill_holes, gaussian_filter, gaussian_filter1d, label
from torch import Tensor
from torch.nn.functional import grid_sample

from disinr_monai.data.readers.image import read_image
from disinr_monai.data.readers.voxels import Image
from disinr_monai.errors import InputError
from disinr_monai.operators import ParallelGeometry

_FWHM_TO_SIGMA = 1 / math.sqrt(8 * math.log(2))
# Standard deviation of the simulated scatter along the bins, as a share of their extent.
_SCATTER_WIDTH = 0.1


def simulate_pet(
    activity: NDArray,
    mu_map: NDArray | None,
    lines: ParallelGeometry,
    *,
    fwhm: float,
    counts: float,
    randoms_fraction: float,
    scatter_fraction: float,
    seed: int,
) -> dict[str, Tensor | float]:
    r"""PET scan of a slice on a fine grid, made without the operator that inverts it.

    The slice, blurred by the resolution of the scanner, is sampled along the lines of response (bilinear, every
    pixel), and so is the μ-map:

    .. math:: \hat y = k\, e^{-\int μ\,\mathrm{d}\ell} \int (g * x)\,\mathrm{d}\ell + r + s, \qquad
        y \sim \mathrm{Poisson}(\hat y)

    Randoms :math:`r` are the same everywhere, scatter :math:`s` is the true counts smeared widely along the bins, and
    :math:`k` gives ``counts`` in the whole sinogram. What the reconstruction is told of :math:`r + s` and of the
    attenuation is exact: errors of their estimation are not simulated.

    Args:
        activity: ``(H, W)``, not negative, centred on the axis.
        mu_map: 1/mm on the same grid, or None for no attenuation.
        lines: lines of response, with the pixels of the activity and the bins in the middle.
        fwhm: resolution in mm.
        counts: expected number of all counts.
        randoms_fraction: share of the randoms in them.
        scatter_fraction: share of the scatter in them.
        seed: of the noise.

    Returns:
        ``counts``, ``background`` and ``factors`` (attenuation), float32 ``(V, B)``, and the calibration ``scale``
        :math:`k`.
    """
    pixel_spacing, n_bins = lines.pixel_spacing, lines.n_detectors
    sigma = fwhm * _FWHM_TO_SIGMA / pixel_spacing
    blurred = gaussian_filter(np.asarray(activity, dtype=np.float32), sigma, mode="constant") if fwhm > 0 else activity
    images = np.stack((blurred, np.zeros_like(blurred) if mu_map is None else mu_map)).astype(np.float32)
    n = n_bins * lines.n_subrays
    u = (torch.arange(n) - (n - 1) / 2) * (lines.detector_spacing / lines.n_subrays)
    integrals = torch.zeros(2, len(lines.angles), len(u), dtype=torch.float64)
    radius = _radius(images) * pixel_spacing
    inside = u.abs() < radius
    for view, angle in enumerate(lines.angles):
        integrals[:, view, inside] = _trace_view(torch.from_numpy(images), pixel_spacing, angle, u[inside], radius)
    integrals = integrals.unflatten(-1, (n_bins, lines.n_subrays))
    factors = torch.exp(-integrals[1])
    trues = (factors * integrals[0]).mean(-1).numpy()
    factors = factors.mean(-1)
    scatter = gaussian_filter1d(trues, _SCATTER_WIDTH * n_bins, axis=-1, mode="constant")
    scale = counts * (1 - randoms_fraction - scatter_fraction) / trues.sum()
    background = counts * (randoms_fraction / trues.size + scatter_fraction * scatter / scatter.sum())
    measured = np.random.default_rng(seed).poisson(scale * trues + background)
    return {
        "counts": torch.from_numpy(measured).float(),
        "background": torch.from_numpy(background).float(),
        "factors": factors.float(),
        "scale": float(scale),
    }


def _radius(images: NDArray) -> float:
    """Pixels from the middle to the farthest one that is not 0, with a margin for interpolation."""
    rows, columns = np.nonzero((images != 0).any(0))
    middle = (np.asarray(images.shape[1:]) - 1) / 2
    return float(np.hypot(rows - middle[0], columns - middle[1]).max()) + 2


def _trace_view(images: Tensor, pixel_spacing: float, angle: float, u: Tensor, radius: float) -> Tensor:
    """Line integrals in mm of one view, ``(n_images, len(u))``, from ``-radius`` to ``radius``."""
    _, height, width = images.shape
    t = torch.arange(-radius, radius, pixel_spacing)[:, None]
    sine, cosine = math.sin(angle), math.cos(angle)
    x, y = u * cosine - t * sine, u * sine + t * cosine
    grid = torch.stack((x / (width / 2), -y / (height / 2)), dim=-1) / pixel_spacing
    samples = grid_sample(images[None], grid[None], mode="bilinear", padding_mode="zeros", align_corners=False)
    return samples[0].sum(1).double() * pixel_spacing


WATER_511 = 0.0096
"""Attenuation of water for annihilation photons, 1/mm."""
SUFFIX = "_mumap"
_HIGHEST = 0.05  # denser than any tissue; a map in 1/cm or HU lies above
_OUTLINE = 0.03  # activity of the body's outline, as a share of the maximum


def mu_map_path(case: Mapping[str, Any]) -> Path | None:
    """``NAME_mumap.nii.gz`` (or ``.nii``) beside the NIfTI file ``NAME`` of a case, if it is there."""
    if not isinstance(case["path"], str):
        return None
    path = Path(case["path"])
    stem = path.name.removesuffix(".gz").removesuffix(".nii")
    found = [path.with_name(f"{stem}{SUFFIX}{end}") for end in (".nii.gz", ".nii")]
    return next((file for file in found if file.is_file()), None)


def read_mu_map(path: Path, case: Mapping[str, Any], activity: Image) -> NDArray[np.float32]:
    """The μ-map's slice of a case, 1/mm.

    Raises:
        InputError: unreadable, on another grid than the activity, negative, or not in 1/mm.
    """
    source = read_image({"path": str(path), "slice": case.get("slice"), "reader": "nifti"}, "mumap")
    if source.image.shape != activity.image.shape or not np.allclose(source.affine, activity.affine, atol=1e-2):
        raise InputError(
            f"{path}: expected the grid of the activity ({activity.image.shape} and its affine), found "
            f"{source.image.shape} or another affine; resample it"
        )
    low, high = float(source.image.min()), float(source.image.max())
    if high > _HIGHEST:
        raise InputError(
            f"{path}: expected attenuation in 1/mm (water {WATER_511}), found {low:g} to {high:g}; divide 1/cm by 10, "
            "convert HU"
        )
    return source.image


def water_body(activity: NDArray, pixel_spacing: float) -> NDArray[np.float32]:
    """Water (1/mm) inside the outline of the activity: smoothed above 3 % of the maximum, holes filled.

    Args:
        activity: ``(H, W)``.
        pixel_spacing: mm.
    """
    smooth = gaussian_filter(activity.astype(np.float32), 5.0 / pixel_spacing)
    body = binary_closing(smooth > _OUTLINE * smooth.max(), iterations=max(round(10.0 / pixel_spacing), 1))
    body = binary_fill_holes(body)
    parts, n_parts = label(body)
    if n_parts > 1:  # specks of noise are no body
        sizes = np.bincount(parts.ravel())[1:]
        body = np.isin(parts, 1 + np.flatnonzero(sizes > 0.01 * sizes.max()))
    return (WATER_511 * body).astype(np.float32)
