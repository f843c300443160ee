from __future__ import annotations

import copy
import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from disinr_monai.operators.fan_beam_matrix import part_of_matrix, shared_matrix
from disinr_monai.operators.linear_operator import LinearOperator, Restriction
from disinr_monai.operators.ramp_filter import RampFilter


class FanBeam(LinearOperator):
    r"""Fan-beam CT with a flat detector: line integrals of the image, in mm.

    .. math:: y_{v,k} = \frac{1}{n} \sum_{j=1}^{n} \int_{\text{ray } v,k,j} x \,\mathrm{d}\ell

    with exact intersection lengths of ray and pixel (Siddon, Med. Phys. 12:252, 1985), averaged over ``n_subrays``
    points of the detector cell. At angle :math:`θ` the source is at :math:`d_s (\sin θ, -\cos θ)`, the detector centre
    at :math:`d_d (-\sin θ, \cos θ)`, the detector axis points along :math:`(\cos θ, \sin θ)`; columns of the image run
    along :math:`+x`, rows along :math:`-y` (ASTRA's ``fanflat``). Image ``(1, H, W)``, sinogram
    ``(1, n_views, n_detectors)``. The system matrix is kept in memory (shared by all operators of one geometry) and on
    disk.

    Args:
        image_shape: ``(H, W)`` pixels.
        pixel_spacing: side of a pixel in mm.
        angles: view angles in radians, ``(n_views,)``.
        n_detectors: number of detector cells.
        detector_spacing: width of a cell in mm.
        source_distance: from the source to the centre of rotation, in mm; the source lies outside the image.
        detector_distance: from the centre of rotation to the detector, in mm; 0 is a virtual detector in the centre.
        n_subrays: rays per detector cell.
        cache_dir: folder of stored system matrices; ``$DISINR_CACHE`` or ``~/.cache/disinr_monai`` if not given.

    Raises:
        ValueError: a size or length is not positive, angles are missing or not finite, the source is in the image.
    """

    is_additive = True

    def __init__(
        self,
        *,
        image_shape: Sequence[int],
        pixel_spacing: float,
        angles: Sequence[float] | np.ndarray | Tensor,
        n_detectors: int,
        detector_spacing: float,
        source_distance: float,
        detector_distance: float,
        n_subrays: int = 2,
        cache_dir: str | Path | None = None,
    ) -> None:
        angles = _checked_angles(angles)
        if len(image_shape) != 2 or any(int(n) != n or n < 1 for n in image_shape):
            raise ValueError(f"FanBeam: image_shape must be two positive integers (H, W), found {tuple(image_shape)}")
        for name, count in (("n_detectors", n_detectors), ("n_subrays", n_subrays)):
            if int(count) != count or count < 1:
                raise ValueError(f"FanBeam: {name} must be a positive integer, found {count}")
        lengths = {
            "pixel_spacing": pixel_spacing,
            "detector_spacing": detector_spacing,
            "source_distance": source_distance,
        }
        for name, length in lengths.items():
            if not (math.isfinite(length) and length > 0):
                raise ValueError(f"FanBeam: {name} must be a positive length in mm, found {length}")
        if not (math.isfinite(detector_distance) and detector_distance >= 0):
            raise ValueError(f"FanBeam: detector_distance must be 0 or a length in mm, found {detector_distance}")
        radius = math.hypot(*image_shape) / 2 * pixel_spacing
        if source_distance <= radius:
            raise ValueError(
                f"FanBeam: source_distance must be larger than the image's half diagonal of {radius:.1f} mm, "
                f"found {source_distance} mm"
            )
        height, width = (int(n) for n in image_shape)
        super().__init__((1, height, width), (1, len(angles), int(n_detectors)))
        self.pixel_spacing = float(pixel_spacing)
        self.detector_spacing = float(detector_spacing)
        self.source_distance = float(source_distance)
        self.detector_distance = float(detector_distance)
        self.n_subrays = int(n_subrays)
        self.register_buffer("angles", torch.tensor(angles, dtype=torch.float32), persistent=False)
        self.ramp = RampFilter(int(n_detectors), self.detector_spacing / self.magnification)
        # What the matrix was made of, and which of its views this operator has.
        self._geometry = (
            (height, width),
            self.pixel_spacing,
            tuple(angles.tolist()),
            int(n_detectors),
            self.detector_spacing,
            self.source_distance,
            self.detector_distance,
            self.n_subrays,
            None if cache_dir is None else str(cache_dir),
        )
        self._views = tuple(range(len(angles)))
        self.matrix = shared_matrix(*self._geometry).shared()

    @property
    def magnification(self) -> float:
        """Size of the centre of rotation on the detector."""
        return (self.source_distance + self.detector_distance) / self.source_distance

    def forward(self, image: Tensor) -> Tensor:
        """Image ``(..., 1, H, W)`` to line integrals in mm ``(..., 1, n_views, n_detectors)``."""
        self._check_domain(image)
        batch = image.shape[:-3]
        columns = image.reshape(math.prod(batch), -1).T.contiguous()
        return self.matrix(columns).T.reshape(*batch, *self.range_shape)

    def adjoint(self, measurement: Tensor) -> Tensor:
        """Sinogram ``(..., 1, n_views, n_detectors)`` to its plain back-projection ``(..., 1, H, W)``."""
        self._check_range(measurement)
        batch = measurement.shape[:-3]
        columns = measurement.reshape(math.prod(batch), -1).T.contiguous()
        return self.matrix.transposed(columns).T.reshape(*batch, *self.domain_shape)

    def precondition(self, residual: Tensor) -> Tensor:
        r"""Ramp filter along the detector, times :math:`π`: the residual in about the units of the image.

        :math:`A^T A` blurs, roughly as :math:`1/|ω|`; the ramp makes all frequencies of the image count alike.
        """
        self._check_range(residual)
        return torch.pi * self.ramp(residual)

    def direct_inverse(self, measurement: Tensor) -> Tensor:
        r"""Filtered back-projection for a flat detector and a full turn of evenly spread views.

        .. math::
            x(r) = \frac{π}{V} \sum_v \frac{1}{U_v(r)^2}\, q_v(s_v(r)), \qquad
            q_v = \text{ramp} * \frac{d_s}{\sqrt{d_s^2 + s^2}}\, y_v

        with detector position :math:`s` scaled to the centre of rotation and :math:`U` the distance from the source
        along the central ray over :math:`d_s` (Kak and Slaney, 1988, section 3.4.2). A shorter arc is treated as if
        its views were spread over the full turn: the image is streaked and its scale is only approximate.
        """
        self._check_range(measurement)
        _, n_views, n_detectors = self.range_shape
        batch = measurement.shape[:-3]
        spacing = self.detector_spacing / self.magnification
        s = (torch.arange(n_detectors).to(measurement) - (n_detectors - 1) / 2) * spacing
        cosine = self.source_distance / torch.sqrt(self.source_distance**2 + s**2)
        filtered = self.ramp(measurement.reshape(-1, n_views, n_detectors) * cosine)
        # A zero at both ends: outside the detector nothing is measured.
        filtered = torch.nn.functional.pad(filtered, (1, 1))
        image = filtered.new_zeros(len(filtered), math.prod(self.domain_shape))
        for view, angle in enumerate(self.angles.tolist()):
            position, distance = self._project_pixels(angle, spacing, measurement)
            left = position.floor().clamp(0, n_detectors)
            share = (position - left).clamp(0, 1)
            left = left.long()
            row = filtered[:, view]
            image = image + torch.lerp(row[:, left], row[:, left + 1], share) / distance**2
        return (image * (torch.pi / n_views)).reshape(*batch, *self.domain_shape)

    def _project_pixels(self, angle: float, spacing: float, like: Tensor) -> tuple[Tensor, Tensor]:
        """Position on the padded detector (in cells) and distance ``U`` of every pixel centre."""
        _, height, width = self.domain_shape
        x = (torch.arange(width).to(like) - (width - 1) / 2) * self.pixel_spacing
        y = ((height - 1) / 2 - torch.arange(height).to(like))[:, None] * self.pixel_spacing
        sine, cosine = math.sin(angle), math.cos(angle)
        distance = 1 + (y * cosine - x * sine) / self.source_distance
        position = (x * cosine + y * sine) / distance / spacing + (self.range_shape[-1] + 1) / 2
        return position.flatten(), distance.flatten()

    def hold_out(self, fraction: float, generator: torch.Generator) -> Tensor:
        """Withhold whole views (at least one): the ramp filter mixes the rays of a view."""
        n_views = self.range_shape[1]
        n_held = min(max(round(fraction * n_views), 1), n_views - 1)
        held = torch.zeros(n_views, dtype=torch.bool)
        held[torch.randperm(n_views, generator=generator)[:n_held]] = True
        return held[None, :, None].expand(self.range_shape)

    def restrict(self, keep: Tensor) -> Restriction:
        """The operator of the views of which anything is kept (whole views only: the rest of one would be lost)."""
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
        part.angles = self.angles[views]
        matrix = part_of_matrix(self._geometry, part._views).shared()
        part.matrix = matrix.to(self.angles.device, self.matrix.dtype)
        step = views[1] - views[0] if len(views) > 1 else 1
        if step > 0 and views == list(range(views[0], views[-1] + 1, step)):
            return part, lambda values: values[..., views[0] : views[-1] + 1 : step, :]
        return part, lambda values: values[..., views, :]

    withheld_is_typical = True

    def split(self, index: int, generator: torch.Generator) -> Tensor:
        """Every second view, the other ones, every fourth, all but these, and so on."""
        n_views = self.range_shape[1]
        views = torch.arange(n_views)
        first = index // 4
        kept = (views % 2 == first % 2, views % 2 == (first + 1) % 2, views % 4 == first % 4, views % 4 != first % 4)[
            index % 4
        ]
        return kept[None, :, None].expand(self.range_shape)

    @property
    def _to_image(self) -> float:
        # Back-projected and ramp-filtered views in image units: pi / views as in filtered back-projection, and the ray
        # length in a pixel, summed over the rays, is its area over the ray spacing.
        spacing = self.detector_spacing / self.magnification
        return spacing / (self.pixel_spacing**2 * self.range_shape[1])

    def residual_image(self, residual: Tensor, weights: Tensor | None = None) -> Tensor:
        r"""Back-projection of :math:`W^{1/2} R W^{1/2} r` with a smoothed ramp :math:`R`, in image units."""
        self._check_range(residual)
        root = 1.0 if weights is None else weights.sqrt()
        return self.adjoint(root * self.precondition(_smooth(root * residual))) * self._to_image

    def residual_energy(self, residual: Tensor, weights: Tensor | None = None) -> Tensor:
        r"""Mean squared error of the image, estimated from the residual of its projections.

        .. math:: \frac{π\, τ}{V\, N Δ^2} \sum_v \langle W^{1/2} r_v,\; \tilde R\, W^{1/2} r_v\rangle

        with the ramp over the fourth power of the blur of a cell, :math:`\tilde R = R / \mathrm{sinc}^4`. By Parseval
        :math:`A^T \tilde R A` is about the identity up to the highest frequency of the detector, so that details count
        as much as in the image's own mean square, and zero-mean noise in the residual only adds a constant.
        """
        self._check_range(residual)
        if weights is not None:
            residual = residual * weights.sqrt()
        n_pixels = math.prod(self.domain_shape)
        sharp = torch.pi * self.ramp.sharpened(residual)
        return (residual * sharp).sum() * (self._to_image / n_pixels)

    def noise_energy(self, variance: Tensor | None, weights: Tensor | None = None) -> float:
        """Expected :meth:`residual_energy` of independent noise: the filter's centre tap times the variances."""
        if variance is None:
            return 0.0
        size = torch.as_tensor(variance).expand(self.range_shape)
        size = size if weights is None else size * weights
        n_pixels = math.prod(self.domain_shape)
        return float(size.sum()) * torch.pi * self.ramp.sharp_centre * self._to_image / n_pixels

    def noise_variance(self, measurement: Tensor, weights: Tensor | None = None) -> Tensor:
        r"""Variances :math:`c / w`, with :math:`c` from the rays that miss the image: what they show is noise alone."""
        weights = torch.ones_like(measurement) if weights is None else weights
        missing = self(torch.ones(self.domain_shape).to(measurement)) == 0
        if not bool(missing.any()):
            return torch.zeros_like(measurement)
        return (weights * measurement.square())[missing].mean() / weights

    def noise_image(self, variance: Tensor) -> Tensor:
        """Root of the back-projected variances, over the number of views."""
        return 10 * self.adjoint(variance.expand(self.range_shape)).clamp(min=0).sqrt() / self.range_shape[1]

    def undersampling(self) -> float:
        """30 views over the number of views."""
        return 30 / self.range_shape[1]


def _smooth(values: Tensor) -> Tensor:
    """Binomial smoothing along the detector: the highest frequencies of a residual are noise."""
    padded = torch.nn.functional.pad(values, (1, 1))
    return 0.5 * values + 0.25 * (padded[..., :-2] + padded[..., 2:])


def _checked_angles(angles: Sequence[float] | np.ndarray | Tensor) -> np.ndarray:
    array = np.asarray(torch.as_tensor(angles).detach().cpu(), dtype=np.float64)
    if array.ndim != 1 or len(array) == 0 or not np.isfinite(array).all():
        raise ValueError(f"FanBeam: angles must be a 1-D list of finite radians, found shape {array.shape}: {angles}")
    return array
