from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from disinr_monai.operators.linear_operator import LinearOperator
from disinr_monai.operators.partition import CountPartition
from disinr_monai.operators.tomography.beams import ParallelBeam
from disinr_monai.operators.tomography.filters import RampFilter
from disinr_monai.operators.tomography.geometry import ParallelGeometry

_FWHM_TO_SIGMA = 1 / math.sqrt(8 * math.log(2))


class PETProjection(LinearOperator):
    r"""Linear part of a PET scan of one slice: expected trues along each line of response.

    .. math:: (A x)_{v,k} = s_{v,k} \; \frac{1}{n} \sum_{j=1}^{n} \int_{\text{line } v,k,j} (g * x) \,\mathrm{d}\ell,
        \qquad \hat y = A x + b

    :math:`s` is the sensitivity: attenuation factors, detector efficiencies and calibration, in counts per image unit
    and mm. :math:`g` is a Gaussian for the resolution of the scanner, in image space. Randoms and scatter :math:`b` are
    no part of a linear operator: they are in the case's count model
    (:class:`disinr_monai.operators.count_model.EmissionCounts`).

    Image ``(1, H, W)``, sinogram ``(1, n_views, n_bins)``.

    Args:
        geometry: the lines of response; its detectors are the bins.
        sensitivity: :math:`s`, not negative, one number or ``(n_views, n_bins)``.
        fwhm: full width at half maximum of :math:`g`, mm; 0 leaves it out.
        cache_dir: folder of stored system matrices; ``$DISINR_CACHE`` or ``~/.cache/disinr_monai`` if not given.

    Raises:
        ValueError: ``fwhm`` is negative, or the sensitivity is negative, not finite, 0 everywhere or of another shape.
    """

    is_additive = True
    partition_type = CountPartition

    def __init__(
        self,
        geometry: ParallelGeometry,
        *,
        sensitivity: float | np.ndarray | Tensor = 1.0,
        fwhm: float = 0.0,
        cache_dir: str | Path | None = None,
    ) -> None:
        if not (math.isfinite(fwhm) and fwhm >= 0):
            raise ValueError(f"PETProjection: fwhm must be 0 or a length in mm, found {fwhm}")
        beam = ParallelBeam(geometry, cache_dir=cache_dir)
        super().__init__(beam.domain_shape, beam.range_shape)
        sensitivity = torch.as_tensor(sensitivity, dtype=torch.float32)
        shapes = ((), self.range_shape, self.range_shape[1:])
        usable = bool(torch.isfinite(sensitivity).all()) and float(sensitivity.min()) >= 0 < float(sensitivity.max())
        if tuple(sensitivity.shape) not in shapes or not usable:
            raise ValueError(
                "PETProjection: sensitivity must be finite, not negative, not 0 everywhere, and one number or of shape "
                f"{self.range_shape[1:]}, found shape {tuple(sensitivity.shape)}"
            )
        beam.inverse_ramp = RampFilter(beam.inverse_ramp.n_samples, geometry.ray_spacing, window="hann")
        self.beam, self.fwhm = beam, float(fwhm)
        self.register_buffer("sensitivity", sensitivity.expand(self.range_shape).contiguous(), persistent=False)
        sigma = fwhm * _FWHM_TO_SIGMA / geometry.pixel_spacing
        for name, n in zip(("blur_rows", "blur_columns"), self.domain_shape[1:], strict=True):
            self.register_buffer(name, _gaussian_matrix(n, sigma) if fwhm > 0 else None, persistent=False)

    def forward(self, image: Tensor) -> Tensor:
        """Image ``(..., 1, H, W)`` to expected counts without background ``(..., 1, n_views, n_bins)``."""
        self._check_domain(image)
        return self.beam(self._blur(image)) * self.sensitivity

    def adjoint(self, measurement: Tensor) -> Tensor:
        """Sinogram ``(..., 1, n_views, n_bins)`` times the sensitivity, back-projected and blurred."""
        self._check_range(measurement)
        return self._blur(self.beam.adjoint(measurement * self.sensitivity))

    def _blur(self, image: Tensor) -> Tensor:
        # Both matrices are symmetric, so the blur is its own adjoint.
        return image if self.blur_rows is None else self.blur_rows @ image @ self.blur_columns

    def direct_inverse(self, measurement: Tensor) -> Tensor:
        """Filtered back-projection of the corrected sinogram :math:`y / s`, ramp with a Hann window.

        The background must have been taken off; the resolution is not undone. Bins of no sensitivity count as 0. For
        the rest see :meth:`RayOperator.direct_inverse`.
        """
        self._check_range(measurement)
        dead = self.sensitivity <= 1e-6 * self.sensitivity.max()
        return self.beam.direct_inverse(torch.where(dead, 0.0, measurement / self.sensitivity.masked_fill(dead, 1.0)))

    def with_views(self, views: Sequence[int]) -> PETProjection:
        """The operator of some views, in the order given."""
        beam = self.beam.with_views(views)
        return self._with(beam=beam, range_shape=beam.range_shape, sensitivity=self.sensitivity[:, views])


def _gaussian_matrix(n: int, sigma: float) -> Tensor:
    """Symmetric ``(n, n)``: a Gaussian of ``sigma`` pixels, integrated over each pixel, zero beyond the border."""
    distance = torch.arange(n, dtype=torch.float64)
    distance = distance[:, None] - distance[None]
    edges = (torch.special.ndtr((distance + 0.5) / sigma), torch.special.ndtr((distance - 0.5) / sigma))
    return (edges[0] - edges[1]).float()
