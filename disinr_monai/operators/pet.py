from __future__ import annotations

import copy
import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from disinr_monai.operators.linear_operator import LinearOperator, Restriction
from disinr_monai.operators.ramp_filter import RampFilter
from disinr_monai.operators.ray_geometry import ParallelGeometry
from disinr_monai.operators.system_matrix import part_of_matrix, shared_matrix

_FWHM_TO_SIGMA = 1 / math.sqrt(8 * math.log(2))


class PETProjection(LinearOperator):
    r"""The linear part of a PET scan of one slice: what arrives of the activity along each line of response.

    .. math:: (A x)_{v,k} = s_{v,k} \; \frac{1}{n} \sum_{j=1}^{n} \int_{\text{line } v,k,j} (g * x) \,\mathrm{d}\ell,
        \qquad \hat y = A x + b

    :math:`s` is the sensitivity: attenuation factors, detector efficiencies and calibration, in counts per image unit
    and mm. :math:`g` is a Gaussian for the resolution of the scanner, in image space. Randoms and scatter :math:`b` are
    no part of a linear operator: they are in the case's count model
    (:class:`disinr_monai.count_model.EmissionCounts`).

    The lines are those of :func:`disinr_monai.operators.parallel_rays.parallel_rays` (ASTRA's ``parallel``): columns of
    the image run along :math:`+x`, rows along :math:`-y`, at angle 0 bins count from left to right. Image
    ``(1, H, W)``, sinogram ``(1, n_views, n_bins)``. The matrix of intersection lengths is kept in memory and on disk.

    Args:
        image_shape: ``(H, W)`` pixels.
        pixel_spacing: side of a pixel in mm.
        angles: view angles in radians, ``(n_views,)``.
        n_bins: bins of a view.
        bin_spacing: width of a bin in mm.
        bin_offset: position of the middle of the bins, mm; 0 is the centre of the image.
        sensitivity: :math:`s`, not negative, one number or ``(n_views, n_bins)``.
        fwhm: full width at half maximum of :math:`g`, mm; 0 leaves it out.
        n_subrays: lines per bin.
        cache_dir: folder of stored system matrices; ``$DISINR_CACHE`` or ``~/.cache/disinr_monai`` if not given.

    Raises:
        ValueError: a size or length is not positive, angles are missing or not finite, the sensitivity is negative, not
            finite, 0 everywhere or of another shape.
    """

    is_additive = True

    def __init__(
        self,
        *,
        image_shape: Sequence[int],
        pixel_spacing: float,
        angles: Sequence[float] | np.ndarray | Tensor,
        n_bins: int,
        bin_spacing: float,
        bin_offset: float = 0.0,
        sensitivity: float | np.ndarray | Tensor = 1.0,
        fwhm: float = 0.0,
        n_subrays: int = 2,
        cache_dir: str | Path | None = None,
    ) -> None:
        angles = np.asarray(torch.as_tensor(angles).detach().cpu(), dtype=np.float64)
        if angles.ndim != 1 or len(angles) == 0 or not np.isfinite(angles).all():
            raise ValueError(f"PETProjection: angles must be a 1-D list of finite radians, found shape {angles.shape}")
        if len(image_shape) != 2 or any(int(n) != n or n < 1 for n in image_shape):
            raise ValueError(f"PETProjection: image_shape must be two positive integers, found {tuple(image_shape)}")
        for name, value in (("n_bins", n_bins), ("n_subrays", n_subrays)):
            if int(value) != value or value < 1:
                raise ValueError(f"PETProjection: {name} must be a positive integer, found {value}")
        for name, value in (("pixel_spacing", pixel_spacing), ("bin_spacing", bin_spacing)):
            if not (math.isfinite(value) and value > 0):
                raise ValueError(f"PETProjection: {name} must be a positive length in mm, found {value}")
        if not math.isfinite(bin_offset) or not (math.isfinite(fwhm) and fwhm >= 0):
            raise ValueError(f"PETProjection: bin_offset and fwhm must be lengths in mm, found {bin_offset}, {fwhm}")
        height, width = (int(n) for n in image_shape)
        super().__init__((1, height, width), (1, len(angles), int(n_bins)))
        sensitivity = torch.as_tensor(sensitivity, dtype=torch.float32)
        shapes = ((), self.range_shape, self.range_shape[1:])
        usable = bool(torch.isfinite(sensitivity).all()) and float(sensitivity.min()) >= 0 < float(sensitivity.max())
        if tuple(sensitivity.shape) not in shapes or not usable:
            raise ValueError(
                "PETProjection: sensitivity must be finite, not negative, not 0 everywhere, and one number or of shape "
                f"{self.range_shape[1:]}, found shape {tuple(sensitivity.shape)}"
            )
        self.pixel_spacing, self.bin_spacing = float(pixel_spacing), float(bin_spacing)
        self.bin_offset, self.fwhm = float(bin_offset), float(fwhm)
        self.register_buffer("angles", torch.tensor(angles, dtype=torch.float32), persistent=False)
        self.register_buffer("sensitivity", sensitivity.expand(self.range_shape).contiguous(), persistent=False)
        sigma = fwhm * _FWHM_TO_SIGMA / pixel_spacing
        for name, n in (("blur_rows", height), ("blur_columns", width)):
            self.register_buffer(name, _gaussian_matrix(n, sigma) if fwhm > 0 else None, persistent=False)
        self.ramp = RampFilter(int(n_bins), self.bin_spacing, window="hann")
        # What the matrix was made of, and which of its views this operator has.
        self._geometry = ParallelGeometry(
            (height, width),
            self.pixel_spacing,
            tuple(angles.tolist()),
            int(n_bins),
            self.bin_spacing,
            int(n_subrays),
            self.bin_offset,
        )
        self._cache_dir = None if cache_dir is None else str(cache_dir)
        self._views = tuple(range(len(angles)))
        self.matrix = shared_matrix(self._geometry, self._cache_dir).shared()

    def forward(self, image: Tensor) -> Tensor:
        """Image ``(..., 1, H, W)`` to expected counts without background ``(..., 1, n_views, n_bins)``."""
        self._check_domain(image)
        batch = image.shape[:-3]
        columns = self._blur(image).reshape(math.prod(batch), -1).T.contiguous()
        return self.matrix(columns).T.reshape(*batch, *self.range_shape) * self.sensitivity

    def adjoint(self, measurement: Tensor) -> Tensor:
        """Sinogram ``(..., 1, n_views, n_bins)`` times the sensitivity, back-projected and blurred."""
        self._check_range(measurement)
        batch = measurement.shape[:-3]
        columns = (measurement * self.sensitivity).reshape(math.prod(batch), -1).T.contiguous()
        return self._blur(self.matrix.transposed(columns).T.reshape(*batch, *self.domain_shape))

    def _blur(self, image: Tensor) -> Tensor:
        # Both matrices are symmetric, so the blur is its own adjoint.
        return image if self.blur_rows is None else self.blur_rows @ image @ self.blur_columns

    def direct_inverse(self, measurement: Tensor) -> Tensor:
        r"""Filtered back-projection of the corrected sinogram :math:`y / s`, ramp with a Hann window.

        .. math:: x(r) = \frac{π}{V} \sum_v (h * y_v / s_v)(r \cdot e_v)

        for views evenly spread over a half or a whole turn. The background must have been taken off; the resolution is
        not undone. Bins of no sensitivity count as 0.
        """
        self._check_range(measurement)
        _, n_views, n_bins = self.range_shape
        batch = measurement.shape[:-3]
        dead = self.sensitivity <= 1e-6 * self.sensitivity.max()
        corrected = torch.where(dead, 0.0, measurement / self.sensitivity.masked_fill(dead, 1.0))
        # A zero at both ends: beyond the bins nothing is measured.
        filtered = torch.nn.functional.pad(self.ramp(corrected.reshape(-1, n_views, n_bins)), (1, 1))
        image = filtered.new_zeros(len(filtered), math.prod(self.domain_shape))
        for view, angle in enumerate(self.angles.tolist()):
            position = self._project_pixels(angle, measurement)
            left = position.floor().clamp(0, n_bins)
            share = (position - left).clamp(0, 1)
            left = left.long()
            row = filtered[:, view]
            image = image + torch.lerp(row[:, left], row[:, left + 1], share)
        return (image * (torch.pi / n_views)).reshape(*batch, *self.domain_shape)

    def _project_pixels(self, angle: float, like: Tensor) -> Tensor:
        """Position on the padded bins (in bins) of every pixel centre."""
        _, height, width = self.domain_shape
        x = (torch.arange(width).to(like) - (width - 1) / 2) * self.pixel_spacing
        y = ((height - 1) / 2 - torch.arange(height).to(like))[:, None] * self.pixel_spacing
        u = x * math.cos(angle) + y * math.sin(angle) - self.bin_offset
        return (u / self.bin_spacing + (self.range_shape[-1] + 1) / 2).flatten()

    def restrict(self, keep: Tensor) -> Restriction:
        """The operator of the views of which anything is kept (whole views only)."""
        return self._with_views(torch.nonzero(keep.expand(self.range_shape)[0].any(-1)).flatten().tolist())

    def subsets(self, size: int) -> list[Restriction]:
        """Interleaved views, about ``size`` in each, as many in one as in the other."""
        n_views = self.range_shape[1]
        count = next((m for m in range(max(n_views // size, 1), 0, -1) if n_views % m == 0), 1)
        if count == 1:
            return [(self, lambda values: values)]
        return [self._with_views(range(first, n_views, count)) for first in range(count)]

    def _with_views(self, views: Sequence[int]) -> Restriction:
        views = list(views)
        part = copy.copy(self)  # shares everything but what is replaced here
        part._buffers, part._modules = dict(self._buffers), dict(self._modules)
        part.range_shape = (1, len(views), self.range_shape[2])
        part._views = tuple(self._views[view] for view in views)
        part.angles, part.sensitivity = self.angles[views], self.sensitivity[:, views]
        matrix = part_of_matrix(self._geometry, self._cache_dir, part._views)
        part.matrix = matrix.shared().to(self.angles.device, self.matrix.dtype)
        return part, lambda values: values[..., views, :]


def _gaussian_matrix(n: int, sigma: float) -> Tensor:
    """Symmetric ``(n, n)``: a Gaussian of ``sigma`` pixels, integrated over each pixel, zero beyond the border."""
    distance = torch.arange(n, dtype=torch.float64)
    distance = distance[:, None] - distance[None]
    edges = (torch.special.ndtr((distance + 0.5) / sigma), torch.special.ndtr((distance - 0.5) / sigma))
    return (edges[0] - edges[1]).float()
