"""Cone beam: known lengths, ASTRA, FDK, solvers, with and without a stored matrix."""

import math

import numpy as np
import pytest
import torch

from disinr_monai.methods import SIRT, TotalVariation
from disinr_monai.operators import ConeBeam, ConeGeometry, FanBeam, FanGeometry
from disinr_monai.scan import Scan

GEOMETRY = {
    "image_shape": (30, 33, 21),
    "pixel_spacing": 2.0,
    "detector_shape": (36, 57),
    "detector_spacing": 2.9,
    "source_distance": 150.0,
    "detector_distance": 100.0,
}
# x, y, z, semi-axes, value.
BODY = [
    (1.0, -2.0, 0.5, 24.0, 20.0, 16.0, 0.8),
    (10.0, 6.0, 3.0, 7.0, 7.0, 7.0, 0.4),
    (-9.0, -4.0, -4.0, 7.0, 6.5, 6.5, -0.3),
]


def cone(n_views=90, arc=2 * math.pi, max_bytes=2**30, **changes) -> ConeBeam:
    angles = 0.3 + np.arange(n_views) * arc / n_views
    return ConeBeam(ConeGeometry(**{"angles": angles, **GEOMETRY} | changes), max_bytes=max_bytes)


def exact(operator: ConeBeam, ellipsoids=BODY) -> torch.Tensor:
    """Chords of ellipsoids, from the documented convention alone."""
    rays = operator.geometry
    n_rows, n_columns = rays.detector_shape
    result = np.zeros(operator.range_shape[1:])
    for i, angle in enumerate(rays.angles):
        axis = np.array([math.cos(angle), math.sin(angle), 0])
        normal = np.array([-math.sin(angle), math.cos(angle), 0])
        source = -rays.source_distance * normal - rays.axis_offset * axis
        u = (np.arange(n_columns) - (n_columns - 1) / 2) * rays.detector_spacing + rays.detector_offset
        v = (np.arange(n_rows) - (n_rows - 1) / 2) * rays.detector_spacing_v + rays.detector_offset_v
        far = rays.source_distance + rays.detector_distance
        direction = far * normal + u[None, :, None] * axis + v[:, None, None] * np.array([0, 0, 1])
        direction /= np.linalg.norm(direction, axis=-1, keepdims=True)
        for *centre, a, b, c, value in ellipsoids:
            d, p = direction / [a, b, c], (source - centre) / [a, b, c]
            aa, bb, cc = (d * d).sum(-1), (d * p).sum(-1), (p * p).sum() - 1
            result[i] += value * 2 * np.sqrt(np.maximum(bb * bb - aa * cc, 0)) / aa
    return torch.tensor(result, dtype=torch.float32)[None]


def volume(shape=GEOMETRY["image_shape"], spacing=2.0, ellipsoids=BODY, fine=3) -> torch.Tensor:
    """Rows along -y, columns along +x, slices along +z."""
    height, width, depth = shape
    y = -((np.arange(height * fine) + 0.5) / fine - height / 2)[:, None, None] * spacing
    x = ((np.arange(width * fine) + 0.5) / fine - width / 2)[:, None] * spacing
    z = ((np.arange(depth * fine) + 0.5) / fine - depth / 2) * spacing
    total = np.zeros((height * fine, width * fine, depth * fine))
    for x0, y0, z0, a, b, c, value in ellipsoids:
        total += value * (((x - x0) / a) ** 2 + ((y - y0) / b) ** 2 + ((z - z0) / c) ** 2 <= 1)
    total = total.reshape(height, fine, width, fine, depth, fine).mean((1, 3, 5))
    return torch.tensor(total, dtype=torch.float32)[None]


@pytest.mark.parametrize("changes", [{}, {"detector_offset": 5.0, "detector_offset_v": -4.0, "axis_offset": 3.0}])
def test_projections_of_ellipsoids(changes):
    operator = cone(5, **changes)
    measured, expected = operator(volume()), exact(operator)
    assert float(expected.max()) > 25
    assert float((measured - expected).square().mean().sqrt()) < 0.018 * float(expected.max())


def test_with_and_without_a_matrix_is_the_same():
    stored, made = cone(4), cone(4, max_bytes=0)
    assert stored.is_stored
    assert not made.is_stored
    image = torch.rand(stored.domain_shape)
    projections = torch.rand(stored.range_shape)
    torch.testing.assert_close(stored(image), made(image), rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(stored.adjoint(projections), made.adjoint(projections), rtol=1e-4, atol=1e-4)
    for operator in (stored, made):
        keep = torch.tensor([True, False, True, True])[None, :, None, None].expand(operator.range_shape)
        part, take = operator.partition.restrict(keep)
        torch.testing.assert_close(part(image), take(operator(image)), rtol=1e-4, atol=1e-4)
        again, take_again = part.partition.subsets(1)[1]
        torch.testing.assert_close(again(image), take_again(take(operator(image))), rtol=1e-4, atol=1e-4)


def test_the_middle_row_is_a_fan_beam():
    """A cylinder, the same in all slices: the row through the plane of the orbit sees its fan beam."""
    slice_image = volume()[..., 10:11]
    operator = cone(6, detector_shape=(1, 57))
    flat = FanBeam(
        FanGeometry(
            image_shape=(30, 33),
            pixel_spacing=2.0,
            angles=operator.geometry.angles,
            n_detectors=57,
            detector_spacing=2.9,
            source_distance=150.0,
            detector_distance=100.0,
            n_subrays=1,
        )
    )
    fan = flat(slice_image[..., 0])
    assert float((operator(slice_image.expand(1, 30, 33, 21))[:, :, 0] - fan).abs().mean()) < 0.01 * float(fan.max())


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"detector_offset": 6.0, "detector_offset_v": 5.0, "axis_offset": -3.0},
        {"arc": math.pi + 2 * math.atan(83 / 250) + 0.2},
    ],
)
def test_fdk_has_values_and_orientation(changes):
    operator = cone(100, max_bytes=0, **changes)
    truth, image = volume(), operator.direct_inverse(exact(operator))
    low, high = (sign * torch.nn.functional.max_pool3d(sign * truth, 3, 1, 1) for sign in (-1, 1))
    middle = (high - low < 1e-5) & (torch.arange(21) > 4) & (torch.arange(21) < 17)
    for value in (0.8, 1.2, 0.5):
        region = middle & ((truth - value).abs() < 1e-5)
        assert int(region.sum()) >= 4
        assert abs(float((image - truth)[region].mean())) * 1200 < 40, f"mean where x is {value}"
    assert float(torch.corrcoef(torch.stack((image.flatten(), truth.flatten())))[0, 1]) > 0.94


def test_the_solvers_work():
    operator = cone(24)
    truth, measured = volume(), exact(operator)
    size = truth.square().mean().sqrt()
    direct = float((operator.direct_inverse(measured) - truth).square().mean().sqrt() / size)
    for method in (
        SIRT(n_iterations=25),
        TotalVariation(tv_weight=0.3, absolute=True, non_negative=True, n_iterations=25),
    ):
        image = method.solve(Scan(operator, measured))
        assert float((image - truth).square().mean().sqrt() / size) < min(0.2, direct)


def test_residuals_are_image_errors():
    operator = cone(40)
    error = torch.nn.functional.avg_pool3d(torch.randn(operator.domain_shape), 3, 1, 1)
    error = error * (volume(ellipsoids=[(0, 0, 0, 24, 24, 14, 1.0)]) > 0.5)
    noise, residual = operator.noise, operator(error)
    assert float(noise.residual_energy(residual)) == pytest.approx(float(error.square().mean()), rel=0.35)
    assert float((noise.residual_image(residual) * error).sum() / error.square().sum()) == pytest.approx(1, abs=0.6)
