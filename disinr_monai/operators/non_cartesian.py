from __future__ import annotations

import hashlib
import math

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from disinr_monai.numerics.linear_map import LinearMap
from disinr_monai.operators.calibration import dense_radius
from disinr_monai.operators.coils import (
    check_maps,
    coil_images,
    combine_coils,
    phase_of,
    to_channels,
    to_complex,
    visible,
)
from disinr_monai.operators.kspace_partition import ReadoutPartition
from disinr_monai.operators.linear_operator import LinearOperator
from disinr_monai.operators.noise import TrajectoryNoise
from disinr_monai.operators.nufft import NUFFT


class NonCartesianFourier(LinearOperator):
    r"""Multi-coil MRI along any two-dimensional trajectory: coil sensitivities and a non-uniform Fourier transform.

    .. math:: y_{cj} = \sqrt{\frac{d_j}{HW}} \sum_r s_c(r)\, x(r)\,
        e^{-2 π i \, (k_{j1} (r_1 - \lfloor H/2 \rfloor) / H + k_{j0} (r_0 - \lfloor W/2 \rfloor) / W)}

    With ``density`` :math:`d` (in cells of k-space) the measurement and the operator are multiplied by its root, like
    a pre-whitened scan: :math:`A^H A` then weighs each measured cell of k-space once, as in a Cartesian scan, so that
    solvers converge as fast, the adjoint is the density-compensated one, and weights of regularisers mean the same.
    Without it the measurement is k-space itself.

    Args:
        coil_sensitivity_maps: complex, ``(n_coils, H, W)``; or several sets ``(n_sets, n_coils, H, W)``, as in
            :class:`~disinr_monai.operators.MultiCoilFourier`.
        trajectory: ``(n_readouts, n_samples, 2)``, cycles per field of view along rows (from -H/2 to H/2) and columns
            (from -W/2 to W/2) of the image.
        density: not negative, ``(n_readouts, n_samples)``, e.g.
            :func:`~disinr_monai.operators.calibration.density_compensation`; 1 by default, 0 is not measured.

    Raises:
        ValueError: wrong shapes, a real-valued map, or positions that are not finite or outside the range.
    """

    partition_type, noise_type = ReadoutPartition, TrajectoryNoise

    def __init__(
        self, coil_sensitivity_maps: Tensor, trajectory: Tensor | NDArray, density: Tensor | NDArray | None = None
    ) -> None:
        n_sets, n_coils, height, width = check_maps("NonCartesianFourier", coil_sensitivity_maps)
        trajectory = np.asarray(trajectory, dtype=np.float64)
        if trajectory.ndim != 3 or trajectory.shape[2] != 2 or trajectory.size == 0:
            raise ValueError(
                "NonCartesianFourier: trajectory must have shape (n_readouts, n_samples, 2), "
                f"found {tuple(trajectory.shape)}"
            )
        # A rounding error more than the edge is still the edge.
        if not (np.abs(trajectory) <= np.array([height, width]) / 2 * (1 + 1e-4)).all():  # also if it is not a number
            raise ValueError(
                f"NonCartesianFourier: trajectory must be in cycles per field of view, from {-height / 2:g} to "
                f"{height / 2:g} along rows and {-width / 2:g} to {width / 2:g} along columns, found "
                f"{trajectory.min():g} to {trajectory.max():g}"
            )
        density = torch.as_tensor(np.ones(trajectory.shape[:2]) if density is None else density)
        if tuple(density.shape) != trajectory.shape[:2] or not bool((density >= 0).all()):
            raise ValueError(
                f"NonCartesianFourier: density must not be negative and have shape {trajectory.shape[:2]}, "
                f"found {tuple(density.shape)}"
            )
        super().__init__((2 * n_sets, height, width), (n_coils, *trajectory.shape[:2]))
        real = coil_sensitivity_maps.real.dtype
        self.register_buffer("maps", coil_sensitivity_maps.contiguous(), persistent=False)
        self.register_buffer("root_density", density.to(real).sqrt(), persistent=False)
        self._set_trajectory(trajectory)
        self.to(real)

    def _set_trajectory(self, trajectory: NDArray) -> None:
        # In double precision, whatever the precision of the operator: positions are exact to the last cycle.
        self.trajectory = trajectory
        self.nufft = NUFFT(trajectory.reshape(-1, 2), self.domain_shape[1:])
        # What caches of things computed from the operator tell it apart by, beside its buffers.
        self._geometry = hashlib.sha256(np.ascontiguousarray(trajectory).tobytes()).hexdigest()
        self._spectra: dict[tuple[torch.dtype, torch.device], Tensor] = {}

    def forward(self, image: Tensor) -> Tensor:
        """Real image ``(..., 2 n_sets, H, W)`` to complex samples ``(..., n_coils, n_readouts, n_samples)``."""
        self._check_domain(image)
        return LinearMap.apply(image, self._forward, self._adjoint)

    def adjoint(self, measurement: Tensor) -> Tensor:
        """Complex samples ``(..., n_coils, n_readouts, n_samples)`` to the combined image ``(..., 2 n_sets, H, W)``."""
        self._check_range(measurement)
        return LinearMap.apply(measurement, self._adjoint, self._forward)

    def _forward(self, image: Tensor) -> Tensor:
        x = coil_images(to_complex(image), self.maps)
        samples = self.nufft(x.flatten(0, -3)).reshape(*x.shape[:-2], *self.range_shape[1:])
        return samples.mul_(self.root_density * self._orthonormal)

    def _adjoint(self, measurement: Tensor) -> Tensor:
        samples = measurement * (self.root_density * self._orthonormal)
        coils = self.nufft.adjoint(samples.flatten(-2).flatten(0, -2))
        coils = coils.reshape(*samples.shape[:-2], *self.maps.shape[-2:])
        return to_channels(combine_coils(coils, self.maps))

    @property
    def _orthonormal(self) -> float:
        return 1 / math.sqrt(math.prod(self.domain_shape[1:]))

    def gram(self, image: Tensor, weights: Tensor | None = None) -> Tensor:
        r"""``A^H W A x``; without weights a convolution with the point spread function, by FFTs twice as large.

        :math:`A^H A` of one coil has the entries :math:`q(r - r')`: a Toeplitz matrix, which is a part of a circulant
        one (Fessler et al., IEEE Trans. Signal Process. 53:3393, 2005).
        """
        if weights is not None:
            return super().gram(image, weights)
        self._check_domain(image)
        x = coil_images(to_complex(image), self.maps)
        x = LinearMap.apply(x, self._convolve, self._convolve)
        return to_channels(combine_coils(x, self.maps))

    def _convolve(self, coils: Tensor) -> Tensor:
        height, width = self.domain_shape[1:]
        spectrum = self._spectrum(coils.real)
        flat = coils.reshape(-1, height, width)
        result = torch.empty_like(flat)
        # Padded rows are not transformed, rows that are cut off neither; each transform runs along the last axis.
        for coil, out in zip(flat, result, strict=True):
            fine = torch.fft.fft(coil, n=2 * width).T.contiguous()
            fine = torch.fft.ifft(torch.fft.fft(fine, n=2 * height).mul_(spectrum))
            out.copy_(torch.fft.ifft(fine[:, :height].T.contiguous())[:, :width])
        return result.reshape(coils.shape)

    def _spectrum(self, like: Tensor) -> Tensor:
        """Eigenvalues of the circulant matrix, real, ``(2 W, 2 H)``, in the precision and on the device of ``like``."""
        key = (like.dtype, like.device)
        if key not in self._spectra:
            height, width = self.domain_shape[1:]
            twice = NUFFT(2 * self.trajectory.reshape(-1, 2), (2 * height, 2 * width))
            density = self.root_density.detach().cpu().double().square().flatten() * self._orthonormal**2
            spread = twice.adjoint(density.to(torch.complex128)[None])[0]
            spread[0], spread[:, 0] = 0, 0  # No two pixels are so far apart; without them it is Hermitian.
            spectrum = torch.fft.fft2(torch.fft.ifftshift(spread)).real.T.contiguous()
            self._spectra[key] = spectrum.to(like)
        return self._spectra[key]

    def precondition(self, residual: Tensor) -> Tensor:
        r"""Multiply by :math:`\sqrt{d}`: weight residuals by the area of k-space that each sample represents."""
        self._check_range(residual)
        return residual * self.root_density

    @property
    def n_measured(self) -> int:
        """Cells of k-space measured (samples, without ``density``), over all coils."""
        return max(round(self._n_cells * self.range_shape[0]), 1)

    @property
    def _n_cells(self) -> float:
        return float(self.root_density.square().sum())

    def with_readouts(self, readouts: Tensor, kept: Tensor) -> NonCartesianFourier:
        """Keep some readouts, and of these the samples where ``kept`` is 1; coil maps are shared."""
        n_coils, _, n_samples = self.range_shape
        part = self._with(
            range_shape=(n_coils, len(readouts), n_samples), root_density=self.root_density[readouts] * kept
        )
        part._set_trajectory(self.trajectory[readouts.cpu().numpy()])
        part.nufft.to(self.root_density.device, self.root_density.dtype)
        return part

    def undersampling(self) -> float:
        """A quarter of the acceleration, all cells of k-space over those measured."""
        return math.prod(self.domain_shape[1:]) / max(self._n_cells, 1.0) / 4

    def phase_reference(self, measurement: Tensor) -> Tensor:
        """Phase from the densely sampled centre, tapered; complex ``(H, W)`` or ``(n_sets, H, W)``."""
        radius = np.linalg.norm(self.trajectory, axis=-1) / (dense_radius(self.trajectory) + 1)
        taper = torch.from_numpy(np.cos(np.pi / 2 * np.minimum(radius, 1)) ** 2).to(self.root_density)
        return phase_of(self.adjoint(measurement * taper))

    def visible(self, image: Tensor) -> Tensor:
        """Set to 0 what no coil sees, if there are several sets of maps."""
        return visible(image, self.maps)
