"""One small example of every exported operator. Sizes are odd and unequal, so that a swapped axis cannot hide."""

import math
from collections.abc import Callable

import pytest
import torch

from disinr_monai.operators import (
    ConeBeam,
    ConeGeometry,
    FanBeam,
    FanGeometry,
    Identity,
    LinearOperator,
    MultiCoilFourier,
    NonCartesianFourier,
    ParallelBeam,
    ParallelGeometry,
    PerFrame,
    PETProjection,
    Samples,
)
from disinr_monai.operators.linear_operator import Composition, Masked

EXAMPLE_OPERATORS: dict[type[LinearOperator], list[Callable[[], LinearOperator]]] = {}


def _example(kind: type[LinearOperator]):
    def add(make: Callable[[], LinearOperator]) -> Callable[[], LinearOperator]:
        EXAMPLE_OPERATORS.setdefault(kind, []).append(make)
        return make

    return add


def random_like(shape: tuple[int, ...], is_complex: bool, seed: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(shape, generator=generator, dtype=torch.complex128 if is_complex else torch.float64)


def random_range(operator: LinearOperator, batch: tuple[int, ...] = (), seed: int = 1) -> torch.Tensor:
    """A random float64 (complex128 for MRI) measurement."""
    is_complex = operator(torch.zeros(operator.domain_shape, dtype=torch.float64)).is_complex()
    return random_like((*batch, *operator.range_shape), is_complex, seed)


def measured(operator: LinearOperator) -> torch.Tensor:
    """Mask of the samples that are measured, as far as an image shows it; rays that miss it are measured too."""
    if isinstance(operator, Composition):
        return measured(operator.outer)
    if isinstance(operator, Masked):
        return operator.keep
    if operator.partition.gaps == "views":
        return torch.ones(operator.range_shape, dtype=torch.bool)
    return operator(random_like(operator.domain_shape, False, 0).float()) != 0


@_example(Identity)
def identity_2d() -> LinearOperator:
    return Identity((2, 5, 7))


@_example(Identity)
def identity_3d() -> LinearOperator:
    return Identity((1, 3, 5, 4))


@_example(MultiCoilFourier)
def multi_coil_fourier() -> LinearOperator:
    mask = torch.tensor([1, 0, 1, 1, 1, 0, 1])[None]
    return MultiCoilFourier(random_like((3, 5, 7), True, 3).to(torch.complex64), mask)


@_example(MultiCoilFourier)
def multi_coil_fourier_even() -> LinearOperator:
    mask = torch.rand((6, 4), generator=torch.Generator().manual_seed(0)) > 0.4
    return MultiCoilFourier(random_like((2, 6, 4), True, 4).to(torch.complex64), mask)


@_example(MultiCoilFourier)
def multi_coil_fourier_two_sets() -> LinearOperator:
    mask = torch.tensor([1, 0, 1, 1, 1, 0, 1])[None]
    return MultiCoilFourier(random_like((2, 3, 5, 7), True, 9).to(torch.complex64), mask)


def scattered(shape: tuple[int, int], image_shape: tuple[int, int], seed: int = 5) -> torch.Tensor:
    """A trajectory of random positions, ``(readouts, samples, 2)``."""
    generator = torch.Generator().manual_seed(seed)
    return (torch.rand((*shape, 2), generator=generator, dtype=torch.float64) - 0.5) * torch.tensor(image_shape)


@_example(NonCartesianFourier)
def non_cartesian() -> LinearOperator:
    return NonCartesianFourier(random_like((3, 5, 7), True, 6).to(torch.complex64), scattered((6, 4), (5, 7)))


@_example(NonCartesianFourier)
def non_cartesian_two_sets() -> LinearOperator:
    return NonCartesianFourier(random_like((2, 3, 5, 7), True, 10).to(torch.complex64), scattered((6, 4), (5, 7)))


@_example(NonCartesianFourier)
def non_cartesian_with_density_one_readout() -> LinearOperator:
    density = torch.rand((1, 30), generator=torch.Generator().manual_seed(0)) + 0.5
    maps = random_like((2, 6, 4), True, 7).to(torch.complex64)
    return NonCartesianFourier(maps, scattered((1, 30), (6, 4)), density)


SMALL = {"image_shape": (5, 7), "pixel_spacing": 1.3, "angles": [0.1, 0.9, 2.0, 4.4], "n_detectors": 11}
FAN = {**SMALL, "detector_spacing": 1.7, "source_distance": 20.0, "detector_distance": 13.0}
OTHER = {"image_shape": (6, 4), "pixel_spacing": 0.8}


@_example(FanBeam)
def fan_beam() -> LinearOperator:
    return FanBeam(FanGeometry(**FAN))


@_example(FanBeam)
def fan_beam_one_ray_per_cell() -> LinearOperator:
    half_turn = {"angles": [0.0, math.pi / 2, math.pi], "n_detectors": 8, "detector_spacing": 1.1, "n_subrays": 1}
    return FanBeam(FanGeometry(**OTHER, **half_turn, source_distance=9.0, detector_distance=0.0))


@_example(FanBeam)
def fan_beam_curved_with_offsets() -> LinearOperator:
    offsets = {"detector_offset": 2.9, "axis_offset": -1.2, "n_detectors": 12, "angles": [0.3, 0.5, 0.9, 1.0]}
    return FanBeam(FanGeometry(**FAN | offsets, curved=True))


@_example(ParallelBeam)
def parallel_beam() -> LinearOperator:
    return ParallelBeam(ParallelGeometry(**SMALL, detector_spacing=0.9))


@_example(ParallelBeam)
def parallel_beam_short_arc_with_offset() -> LinearOperator:
    arc = {"angles": [0.2, 0.3, 0.4], "n_detectors": 9, "detector_spacing": 0.7, "detector_offset": -1.1}
    return ParallelBeam(ParallelGeometry(**OTHER, **arc, n_subrays=1))


def _cone(max_bytes: int = 2**30, **changes) -> ConeBeam:
    flat = {key: value for key, value in FAN.items() if key != "n_detectors"}
    rows = {"image_shape": (5, 7, 4), "detector_shape": (6, 11), "detector_spacing_v": 1.9}
    return ConeBeam(ConeGeometry(**flat | rows | changes), max_bytes=max_bytes)


@_example(ConeBeam)
def cone_beam() -> LinearOperator:
    return _cone()


@_example(ConeBeam)
def cone_beam_without_a_matrix() -> LinearOperator:
    return _cone(max_bytes=0, detector_offset=1.1, detector_offset_v=-0.7, axis_offset=0.9, angles=[0.3, 0.5, 0.8])


@_example(Samples)
def every_voxel() -> LinearOperator:
    return Samples((1, 3, 5, 4))


@_example(Samples)
def some_pixels_of_two_channels() -> LinearOperator:
    return Samples((2, 5, 7), torch.tensor([0, 3, 4, 11, 30, 34]))


@_example(PETProjection)
def pet_projection() -> LinearOperator:
    bins = {"angles": torch.tensor([0.1, 0.9, 2.0, 2.9]), "n_detectors": 9, "detector_offset": 0.3}
    sensitivity = torch.rand((4, 9), generator=torch.Generator().manual_seed(0)) + 0.2
    return PETProjection(ParallelGeometry(**SMALL | bins, detector_spacing=1.2), sensitivity=sensitivity, fwhm=2.0)


@_example(PETProjection)
def pet_projection_without_blur() -> LinearOperator:
    return PETProjection(ParallelGeometry(**OTHER, angles=[0.0, 1.5], n_detectors=6, detector_spacing=1.0))


@_example(Masked)
def masked_samples() -> LinearOperator:
    return fan_beam().masked(torch.rand((1, 4, 11), generator=torch.Generator().manual_seed(2)) < 0.7)


def support(shape: tuple[int, ...]) -> LinearOperator:
    """An image that is 0 outside a region."""
    return Identity(shape).masked(torch.rand(shape, generator=torch.Generator().manual_seed(3)) < 0.6)


@_example(Composition)
def fan_beam_of_a_region() -> LinearOperator:
    return fan_beam() @ support((1, 5, 7))


@_example(Composition)
def fourier_of_a_region_twice() -> LinearOperator:
    return multi_coil_fourier() @ support((2, 5, 7)) @ Identity((2, 5, 7))


@_example(Composition)
def voxels_of_a_region() -> LinearOperator:
    return Samples((2, 5, 7), torch.tensor([0, 3, 4, 11, 30, 34])) @ support((2, 5, 7))


@_example(PerFrame)
def frames_of_one_trajectory() -> LinearOperator:
    return PerFrame([non_cartesian()] * 3)


@_example(PerFrame)
def frames_of_other_lines() -> LinearOperator:
    whole = MultiCoilFourier(random_like((3, 5, 7), True, 8).to(torch.complex64), torch.ones(7))
    lines = ([1, 0, 1, 1, 1, 0, 1], [0, 1, 1, 1, 1, 1, 0])
    return PerFrame([whole.with_samples(torch.tensor(line)[None].expand(5, 7) > 0) for line in lines])


@_example(PerFrame)
def frames_of_other_views() -> LinearOperator:
    return PerFrame([fan_beam().with_views([0, 2]), fan_beam().with_views([1, 3])])


every_operator = pytest.mark.parametrize(
    "make", [make for makes in EXAMPLE_OPERATORS.values() for make in makes], ids=lambda make: make.__name__
)
