"""Scans of an image that total variation suits, and an independent solver, for the tests of the classical methods."""

import math

import numpy as np
import torch

from disinr_monai.data.simulate.patterns import radial_trajectory
from disinr_monai.methods.tv_prox import add_gradient_adjoint, gradient
from disinr_monai.operators import FanBeam, FanGeometry, MultiCoilFourier, NonCartesianFourier
from disinr_monai.operators.calibration import density_compensation
from disinr_monai.scan import Scan


def blocks(height: int = 40, width: int = 48) -> torch.Tensor:
    image = torch.zeros(height, width)
    image[6:30, 8:40] = 0.6
    image[12:22, 14:26] = 1.0
    image[24:28, 30:38] = 0.2
    return image


def mri_blocks(acceleration: int = 2, noise: float = 0.02, seed: int = 0) -> tuple[Scan, torch.Tensor]:
    """Three coils with smooth maps that sum to one in squares, a complex image, missing lines."""
    generator = torch.Generator().manual_seed(seed)
    image = blocks()
    height, width = image.shape
    rows, columns = torch.meshgrid(torch.linspace(-1, 1, height), torch.linspace(-1, 1, width), indexing="ij")
    image = torch.stack((image * torch.cos(rows), image * torch.sin(rows)))
    centres = ((-1.0, 0.0), (0.7, -0.8), (0.7, 0.8))
    maps = torch.stack([torch.exp(-((rows - a) ** 2 + (columns - b) ** 2) / 2 + 1j * a * columns) for a, b in centres])
    maps = maps / maps.abs().square().sum(0).sqrt()
    mask = torch.zeros(1, width)
    mask[:, ::acceleration] = 1
    mask[:, width // 2 - 5 : width // 2 + 5] = 1
    operator = MultiCoilFourier(maps, mask)
    kspace = operator(image)
    kspace = kspace + noise * torch.randn(kspace.shape, generator=generator, dtype=kspace.dtype) * operator.sampled
    return Scan(operator, kspace), image


def ct_blocks(n_views: int = 24, noise: float = 0.3) -> tuple[Scan, torch.Tensor]:
    image = blocks()[None]
    operator = FanBeam(
        FanGeometry(
            image_shape=image.shape[1:],
            pixel_spacing=2.0,
            angles=np.arange(n_views) * 2 * math.pi / n_views,
            n_detectors=120,
            detector_spacing=3.0,
            source_distance=120.0,
            detector_distance=120.0,
        )
    )
    sinogram = operator(image)
    generator = torch.Generator().manual_seed(0)
    return Scan(operator, sinogram + noise * torch.randn(sinogram.shape, generator=generator)), image


def radial_blocks(n_spokes: int = 14, noise: float = 0.02) -> tuple[Scan, torch.Tensor]:
    """The object of `mri_blocks`, half as many spokes as would fill k-space, density-compensated."""
    cartesian, image = mri_blocks()
    shape = image.shape[1:]
    trajectory = radial_trajectory(tuple(shape), n_spokes)
    maps = torch.fft.fftshift(cartesian.operator.maps, dim=(-2, -1))
    operator = NonCartesianFourier(maps, trajectory, density_compensation(trajectory))
    samples = torch.randn(operator.range_shape, generator=torch.Generator().manual_seed(0), dtype=torch.complex64)
    return Scan(operator, operator(image) + operator.precondition(noise * samples)), image


def error(image: torch.Tensor, reference: torch.Tensor) -> float:
    return float(torch.linalg.vector_norm(image - reference) / torch.linalg.vector_norm(reference))


def primal_dual(scan: Scan, tv_weight: float, non_negative: bool = False, n_iterations: int = 2500) -> torch.Tensor:
    """A long Chambolle-Pock run in double precision: an independent solver of TotalVariation's problem."""
    norm = scan.operator.norm_squared()
    operator = scan.operator.double()
    measurement = scan.measurement.to(torch.complex128 if scan.measurement.is_complex() else torch.float64)
    weights = torch.ones(()) if scan.weights is None else scan.weights.double()
    scale = weights / norm
    # K = (A / sqrt(norm), gradient), so that both parts have a norm of order 1.
    root = norm**0.5
    step = 1 / math.sqrt(1 + 8) * 0.99
    image = operator.adjoint(measurement) * 0
    extrapolated = image.clone()
    data_dual, field = torch.zeros_like(measurement), gradient(image)
    for _ in range(n_iterations):
        strength = scale * norm
        data_dual = data_dual + step * (operator(extrapolated) - measurement) / root
        data_dual = data_dual * strength / (strength + step)
        field = field + step * gradient(extrapolated)
        size = torch.linalg.vector_norm(field, dim=(0, 1)) / tv_weight
        field = field / size.clamp(min=1)
        slope = add_gradient_adjoint(operator.adjoint(data_dual) / root, field)
        following = image - step * slope
        if non_negative:
            following = following.clamp(min=0)
        extrapolated, image = 2 * following - image, following
    return image


def tv_sum(image: torch.Tensor) -> float:
    """Isotropic total variation, the sum over all pixels."""
    return float(torch.linalg.vector_norm(gradient(image), dim=(0, 1)).sum())


def objective(scan: Scan, image: torch.Tensor, tv_weight: float, norm: float) -> float:
    """What TotalVariation minimises."""
    weights = 1 if scan.weights is None else scan.weights
    data = (weights * scan.residual(image.double()).abs() ** 2).sum()
    return float(data) / (2 * norm) + tv_weight * tv_sum(image.double())
