from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from disinr_monai.operators.linear_operator import LinearOperator
from disinr_monai.operators.noise import ViewNoise
from disinr_monai.operators.partition import ViewPartition
from disinr_monai.operators.tomography.filters import RampFilter, covered_angle, redundancy_weights
from disinr_monai.operators.tomography.geometry import Geometry


class ViewOperator(LinearOperator):
    r"""Line integrals view by view: the base of all beams, in 2-D and 3-D.

    Measurements are ``(1, n_views, ..., n_detectors)``. The ramp filter along the detector gives residuals the
    units of the image.

    Args:
        geometry: of the scan.
    """

    is_additive = True
    partition_type, noise_type = ViewPartition, ViewNoise

    def __init__(self, geometry: Geometry) -> None:
        super().__init__((1, *geometry.image_shape), geometry.range_shape)
        self.geometry = geometry
        self.pixel_spacing, self._ray_area = geometry.pixel_spacing, geometry.ray_area
        angles, positions, spacing = np.asarray(geometry.angles), geometry.positions, geometry.ray_spacing
        self.register_buffer("angles", torch.tensor(angles, dtype=torch.float32), persistent=False)
        n_detectors = self.range_shape[-1]
        self.ramp = RampFilter(n_detectors, spacing)
        # Back-projection of a shifted detector also needs the filtered values beyond its nearer edge.
        excess = math.ceil(abs(positions[0] + positions[-1]) / geometry.cell_step - 1e-6)
        self._beyond = (0, 0) if excess < 2 else (excess, 0) if positions[0] + positions[-1] > 0 else (0, excess)
        is_plain = not sum(self._beyond) and not geometry.filter_angle
        self.inverse_ramp = (
            self.ramp if is_plain else RampFilter(n_detectors + sum(self._beyond), spacing, geometry.filter_angle)
        )
        weights = redundancy_weights(angles, positions, geometry.cell_step, geometry.opposite * positions)
        shares = None if weights is None else torch.tensor(weights, dtype=torch.float32)
        self.register_buffer("shares", shares, persistent=False)
        # Each view counts pi / views in the image; on less than half a turn less.
        self._arc_share = min(covered_angle(angles) / math.pi, 1.0)
        # Which views of the scan this operator has.
        self._views = tuple(range(len(angles)))

    @abstractmethod
    def _take_views(self, part: ViewOperator) -> None:
        """Replace the buffers of ``part`` (a shallow copy) that depend on ``part._views``."""

    def precondition(self, residual: Tensor) -> Tensor:
        r"""Ramp filter along the detector, times :math:`π`: the residual in about the units of the image.

        :math:`A^T A` blurs, roughly as :math:`1/|ω|`; the ramp makes all frequencies of the image count alike.
        """
        self._check_range(residual)
        return torch.pi * self.ramp(residual)

    def with_views(self, views: Sequence[int]) -> ViewOperator:
        """The operator of some views, in the order given."""
        part = self._with(
            range_shape=(1, len(views), *self.range_shape[2:]),
            _views=tuple(self._views[view] for view in views),
            angles=self.angles[views],
            # Views taken out of a scan leave small gaps: the others share its arc evenly.
            shares=None if self.shares is None else self.shares[views],
        )
        self._take_views(part)
        return part

    @property
    def image_per_view(self) -> float:
        """Factor from the sum of back-projected, ramp-filtered views to image units."""
        # Back-projected and ramp-filtered views in image units: pi / views as in filtered back-projection, and the ray
        # length in a pixel, summed over the rays, is its area over the ray spacing (in 3-D volume and area).
        size = self.pixel_spacing ** (len(self.domain_shape) - 1)
        return self._ray_area / (size * self.range_shape[1]) * self._arc_share

    def undersampling(self) -> float:
        """30 views over the number of views."""
        return 30 / self.range_shape[1]
