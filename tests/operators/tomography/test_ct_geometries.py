"""Every 2-D beam against analytic ellipses, another package, and filtered back-projection with known answers."""

import math

import numpy as np
import pytest
import torch

from disinr_monai.methods import SIRT, TotalVariation
from disinr_monai.operators import FanBeam, FanGeometry, ParallelBeam, ParallelGeometry
from disinr_monai.operators.tomography.filters import covered_angle, redundancy_weights
from disinr_monai.scan import Scan
from tests.operators.tomography.phantoms import analytic, picture

FAN = {"source_distance": 160.0, "detector_distance": 120.0, "n_detectors": 180, "detector_spacing": 1.3}
PARALLEL = {"n_detectors": 132, "detector_spacing": 0.93}
FULL = 2 * math.pi


def evenly(n_views: int, arc: float, first: float = 0.4) -> np.ndarray:
    return first + np.arange(n_views) * (arc / n_views)


def fan(angles, shape=(62, 74), spacing=1.3, **changes) -> FanBeam:
    return FanBeam(FanGeometry(image_shape=shape, pixel_spacing=spacing, angles=angles, **FAN | changes))


def parallel(angles, shape=(62, 74), spacing=1.3, **changes) -> ParallelBeam:
    return ParallelBeam(ParallelGeometry(image_shape=shape, pixel_spacing=spacing, angles=angles, **PARALLEL | changes))


SHORT = math.pi + 2 * math.atan(117 / 280) + 0.1
OFFSETS = {"detector_offset": 12.3, "axis_offset": -5.1}
BEAMS = {
    "parallel": lambda: parallel(evenly(120, math.pi)),
    "parallel full turn": lambda: parallel(evenly(160, FULL)),
    "parallel backwards": lambda: parallel(-evenly(120, math.pi)),
    "parallel 220 degrees": lambda: parallel(evenly(150, math.radians(220))),
    "parallel offset": lambda: parallel(evenly(190, FULL), detector_offset=7.7),
    "parallel half detector": lambda: parallel(evenly(190, FULL), detector_offset=22.0, n_detectors=84),
    "flat": lambda: fan(evenly(190, FULL)),
    "flat backwards": lambda: fan(-evenly(190, FULL)),
    "flat offsets": lambda: fan(evenly(190, FULL), **OFFSETS),
    "flat quarter cell": lambda: fan(evenly(190, FULL), detector_offset=0.325),
    "flat half detector": lambda: fan(evenly(230, FULL), n_detectors=118, detector_offset=-35.0),
    "flat short scan": lambda: fan(evenly(150, SHORT)),
    "flat short scan offsets": lambda: fan(evenly(170, SHORT + 0.2), **OFFSETS),
    "flat 300 degrees": lambda: fan(evenly(180, math.radians(300))),
    "curved": lambda: fan(evenly(190, FULL), curved=True),
    "curved offsets": lambda: fan(evenly(190, FULL), curved=True, **OFFSETS),
    "curved short scan": lambda: fan(evenly(150, SHORT), curved=True),
    "flat golden angle": lambda: fan(np.arange(233) * math.pi * (3 - math.sqrt(5))),
    "flat uneven": lambda: fan(np.sort(np.random.default_rng(0).uniform(0, FULL, 450))),
}
beams = pytest.mark.parametrize("make", BEAMS.values(), ids=BEAMS)


@beams
def test_sinogram_of_ellipses(make):
    operator = make()
    few = np.linspace(0, len(operator.geometry.angles) - 1, 7).astype(int)
    keep = torch.zeros(operator.range_shape, dtype=torch.bool)
    keep[:, few] = True
    part, take = operator.partition.restrict(keep)
    image, exact = picture(operator.domain_shape[1:], operator.geometry.pixel_spacing), take(analytic(operator))
    measured = part(image)
    # The rest is the staircase of the pixels.
    assert float((measured - exact).square().mean().sqrt()) < 0.012 * float(exact.max())
    assert float(exact.max()) > 30


@beams
def test_filtered_back_projection_has_values_and_orientation(make):
    operator = make()
    truth = picture(operator.domain_shape[1:], operator.geometry.pixel_spacing)
    image = operator.direct_inverse(analytic(operator))
    # Away from edges, in HU: x = (HU + 1000) / 1200.
    low, high = (sign * torch.nn.functional.max_pool2d(sign * truth, 5, 1, 2) for sign in (-1, 1))
    flat = high - low < 1e-5
    error = (image - truth) * 1200
    for value in (0.0, 0.85, 0.4, 1.0, 1.2):
        region = flat & ((truth - value).abs() < 1e-5)
        assert int(region.sum()) >= 5
        assert abs(float(error[region].mean())) < (5 if value in (0.0, 0.85) else 25), f"mean where x is {value}"
    assert float(error[flat].square().mean().sqrt()) < 32
    # A mirrored or turned image would not correlate.
    assert float(torch.corrcoef(torch.stack((image.flatten(), truth.flatten())))[0, 1]) > 0.97


@pytest.mark.parametrize(("angle", "is_above"), [(0.0, False), (math.pi / 2, True)])
def test_direction_of_the_gantry(angle, is_above):
    """At angle 0 the detector runs along +x; a positive angle turns it anticlockwise, towards +y (the top row)."""
    image = torch.zeros(1, 62, 74)
    if is_above:
        image[0, 5:9, 35:39] = 1  # above the centre
    else:
        image[0, 29:33, 65:69] = 1  # right of the centre
    for operator in (parallel([angle]), fan([angle]), fan([angle], curved=True)):
        profile = operator(image)[0, 0]
        assert int(profile.argmax()) > operator.range_shape[-1] // 2 + 20


def test_a_limited_arc_counts_each_view_for_its_step():
    """30 degrees of a disc: the mean over all angles that are missing is lost, nothing is counted twice."""
    disc = [(0.0, 0.0, 20.0, 20.0, 0.0, 1.0)]
    narrow, full = fan(evenly(60, math.radians(30))), fan(evenly(360, FULL))
    centre = (0, slice(27, 34), slice(33, 40))
    share = narrow.direct_inverse(analytic(narrow, disc))[centre].mean()
    whole = full.direct_inverse(analytic(full, disc))[centre].mean()
    assert float(whole) == pytest.approx(1, abs=0.01)
    assert float(share / whole) == pytest.approx(1 / 6, rel=0.05)
    assert covered_angle(np.asarray(narrow.geometry.angles)) == pytest.approx(math.radians(30))


def test_opposite_rays_share_the_weight():
    """Parker's condition: both measurements of a line together count as one."""
    operator = fan(evenly(200, SHORT + 0.3), axis_offset=4.0)
    n = operator.range_shape[-1]
    u = (np.arange(n) - (n - 1) / 2) * 1.3
    gamma = np.arctan(u / 280) - math.atan2(4.0, 160.0)
    angles = np.asarray(operator.geometry.angles)
    weights = operator.shares.numpy()
    step = angles[1] - angles[0]
    for k in range(15, n - 15, 30):
        total = weights[:, k] * math.pi / len(angles) / step
        other = np.interp(-gamma[k], gamma, np.arange(n))
        opposite = angles + math.pi - 2 * gamma[k]
        table = weights * math.pi / len(angles) / step
        for i, angle in enumerate(opposite):
            v = (angle - angles[0]) % FULL / step
            if v > len(angles) - 2 or not 1 < other < n - 2:
                continue
            a, b = int(v), int(other)
            fv, fb = v - a, other - b
            mirrored = (1 - fv) * ((1 - fb) * table[a, b] + fb * table[a, b + 1]) + fv * (
                (1 - fb) * table[a + 1, b] + fb * table[a + 1, b + 1]
            )
            assert total[i] + mirrored == pytest.approx(1, abs=0.02)


def test_a_full_turn_needs_no_weights():
    for operator in (fan(evenly(60, FULL)), fan(evenly(60, FULL), curved=True), parallel(evenly(30, math.pi))):
        assert operator.shares is None
    assert redundancy_weights(np.array([0.3]), np.linspace(-1, 1, 5), 0.5, np.zeros(5)) is None


def test_the_curved_detector_is_flat_near_the_centre():
    flat, curved = fan([0.3], n_detectors=21), fan([0.3], n_detectors=21, curved=True)
    image = torch.rand(1, 62, 74)
    torch.testing.assert_close(flat(image), curved(image), rtol=1e-2, atol=0.05)
    wide = {"n_detectors": 181, "detector_spacing": 2.1}
    assert not torch.allclose(fan([0.3], **wide)(image), fan([0.3], curved=True, **wide)(image), rtol=0.05)


@pytest.mark.parametrize("kind", ["parallel", "flat", "flat offsets"])
def test_agrees_with_astra(kind):
    astra = pytest.importorskip("astra", exc_type=ImportError)
    # Our line per cell against ASTRA's, with the vectors of a general position; cells per view stay in order.
    angles = np.array([0.21, 1.1, 2.6, 4.0])
    make = {"parallel": parallel, "flat": fan, "flat offsets": lambda *a, **k: fan(*a, **k, **OFFSETS)}[kind]
    operator = make(angles, shape=(48, 52), n_subrays=1)
    image = torch.rand(1, 48, 52)
    half = np.array([52, 48]) * 1.3 / 2
    volume = astra.create_vol_geom(48, 52, -half[0], half[0], -half[1], half[1])
    vectors = []
    for angle in angles:
        axis, normal = np.array([math.cos(angle), math.sin(angle)]), np.array([-math.sin(angle), math.cos(angle)])
        if kind == "parallel":
            first, centre = normal, np.zeros(2)
        else:
            first = -operator.geometry.source_distance * normal - operator.geometry.axis_offset * axis
            shift = operator.geometry.detector_offset - operator.geometry.axis_offset
            centre = operator.geometry.detector_distance * normal + shift * axis
        vectors.append([*first, *centre, *(axis * operator.geometry.detector_spacing)])
    n, geometry = operator.range_shape[-1], operator.geometry
    name = "parallel_vec" if kind == "parallel" else "fanflat_vec"
    projections = [astra.create_proj_geom(name, n, np.array(vectors))]
    if kind == "flat":  # by angles, as it is documented
        distances = geometry.source_distance, geometry.detector_distance
        projections.append(astra.create_proj_geom("fanflat", geometry.detector_spacing, n, angles, *distances))
    for each in projections:
        projector = astra.create_projector("line" if kind == "parallel" else "line_fanflat", each, volume)
        matrix = astra.matrix.get(astra.projector.matrix(projector))
        expected = (matrix @ image.numpy().ravel()).reshape(operator.range_shape[1:])
        np.testing.assert_allclose(operator(image)[0].numpy(), expected, atol=2e-3)


@pytest.mark.parametrize("name", ["parallel", "flat short scan offsets", "curved"])
def test_the_solvers_work(name):
    operator = BEAMS[name]()
    keep = torch.zeros(operator.range_shape, dtype=torch.bool)
    keep[:, :: operator.range_shape[1] // 36] = True
    part, take = operator.partition.restrict(keep)
    measured = take(analytic(operator))
    truth = picture(operator.domain_shape[1:], operator.geometry.pixel_spacing)
    size = truth.square().mean().sqrt()
    direct = float((part.direct_inverse(measured) - truth).square().mean().sqrt() / size)
    for method in (
        SIRT(n_iterations=60),
        TotalVariation(tv_weight=0.3, absolute=True, non_negative=True, n_iterations=60),
    ):
        image = method.solve(Scan(part, measured))
        assert float((image - truth).square().mean().sqrt() / size) < min(0.15, direct)


def test_residuals_are_image_errors():
    """The estimate of the image's error from its projections, whatever the beam."""
    generator = torch.Generator().manual_seed(0)
    truth = picture((62, 74), 1.3)
    error = torch.nn.functional.avg_pool2d(torch.randn(1, 62, 74, generator=generator), 3, 1, 1)
    error = error * (picture((62, 74), 1.3, [(0, 0, 35, 35, 0, 1.0)]) > 0.5)
    for name in ("parallel", "flat", "curved"):
        operator = BEAMS[name]()
        residual = operator(truth + error) - operator(truth)
        assert float(operator.noise.residual_energy(residual)) == pytest.approx(float(error.square().mean()), rel=0.25)
        back = operator.noise.residual_image(residual)
        assert float((back * error).sum() / error.square().sum()) == pytest.approx(1, abs=0.35)


def test_preconditioned_residual_has_image_units():
    operator = fan(evenly(6, FULL), shape=(90, 90), spacing=1.0)
    filtered = operator.precondition(operator(picture((90, 90), 1.0, [(0, 0, 35, 35, 0, 1.0)])))
    assert 0.8 < float(filtered[0, :, 90].mean()) < 1.2
