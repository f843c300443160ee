"""The physics of the fan-beam operator: known lengths, another package, known reconstructions, the matrix cache."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from disinr_monai.numerics import cache as matrix_cache
from disinr_monai.operators import FanBeam, FanGeometry
from disinr_monai.operators.tomography import projector as system_matrix

ANGLES = np.array([0.0, 0.7, math.pi / 2, 2.5, 4.0, 5.5])
GEOMETRY = {"n_detectors": 81, "detector_spacing": 2.0, "source_distance": 120.0, "detector_distance": 90.0}


@pytest.fixture(autouse=True)
def _own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("DISINR_CACHE", str(tmp_path / "cache"))
    system_matrix._kept.cache_clear()
    yield
    system_matrix._kept.cache_clear()


def rays(angles=ANGLES, n_detectors=81, detector_spacing=2.0, source_distance=120.0, detector_distance=90.0):
    """Source and direction (unit) of every ray, (V, D, 2), written down anew from the documented convention."""
    sources, directions = [], []
    for angle in angles:
        source = source_distance * np.array([math.sin(angle), -math.cos(angle)])
        centre = detector_distance * np.array([-math.sin(angle), math.cos(angle)])
        axis = np.array([math.cos(angle), math.sin(angle)])
        for k in range(n_detectors):
            direction = centre + (k - (n_detectors - 1) / 2) * detector_spacing * axis - source
            sources.append(source)
            directions.append(direction / np.linalg.norm(direction))
    shape = (len(angles), n_detectors, 2)
    return np.reshape(sources, shape), np.reshape(directions, shape)


def ellipse_chords(centre, semi_axes) -> np.ndarray:
    source, direction = rays()
    p, d = (source - centre) / semi_axes, direction / semi_axes
    a, b, c = (d * d).sum(-1), (p * d).sum(-1), (p * p).sum(-1) - 1
    return 2 * np.sqrt(np.maximum(b * b - a * c, 0)) / a


def box_chords(low, high) -> np.ndarray:
    source, direction = rays()
    with np.errstate(divide="ignore"):
        crossings = np.stack(((low - source) / direction, (high - source) / direction))
    return np.maximum(crossings.max(0).min(-1) - crossings.min(0).max(-1), 0)


def pixel_centres(shape, spacing, fine=1):
    """x and y in mm of (sub-)pixel centres: columns along +x, rows along -y."""
    height, width = shape
    x = ((np.arange(width * fine) + 0.5) / fine - width / 2) * spacing
    y = -((np.arange(height * fine) + 0.5) / fine - height / 2) * spacing
    return x[None], y[:, None]


def disc(shape, spacing, centre, semi_axes, fine=8) -> torch.Tensor:
    """Share of every pixel inside an ellipse, (1, H, W)."""
    x, y = pixel_centres(shape, spacing, fine)
    inside = ((x - centre[0]) / semi_axes[0]) ** 2 + ((y - centre[1]) / semi_axes[1]) ** 2 <= 1
    return torch.tensor(inside.reshape(shape[0], fine, shape[1], fine).mean((1, 3)), dtype=torch.float32)[None]


def _beam(shape, spacing) -> FanBeam:
    return FanBeam(FanGeometry(image_shape=shape, pixel_spacing=spacing, angles=ANGLES, n_subrays=1, **GEOMETRY))


def test_rectangle_is_exact():
    """A rectangle of whole pixels, off centre in both axes: every length is known to rounding."""
    shape, spacing = (61, 45), 1.5
    image = torch.zeros(1, *shape)
    image[0, 4:19, 30:41] = 1
    # Columns 30 to 41 of 45 along +x, rows 4 to 19 of 61 along -y.
    low = np.array([(30 - 22.5) * spacing, (30.5 - 19) * spacing])
    high = np.array([(41 - 22.5) * spacing, (30.5 - 4) * spacing])
    sinogram = _beam(shape, spacing)(image)
    expected = box_chords(low, high)
    # A ray along a pixel border may count on either side.
    grazing = (np.abs(rays()[1]) < 1e-9).any(-1)
    assert expected.max() > 20
    np.testing.assert_allclose(sinogram[0].numpy()[~grazing], expected[~grazing], atol=1e-4)


@pytest.mark.parametrize(("centre", "semi_axes"), [((14.0, 22.0), (11.0, 11.0)), ((-9.0, 17.0), (15.0, 8.0))])
def test_ellipse_chords(centre, semi_axes):
    shape, spacing = (190, 150), 0.5
    image = disc(shape, spacing, centre, semi_axes)
    sinogram = _beam(shape, spacing)(image)
    error = sinogram[0].numpy() - ellipse_chords(np.array(centre), np.array(semi_axes))
    assert np.sqrt((error**2).mean()) < 0.15
    assert np.abs(error).max() < 2.0  # A tangent ray meets the stairs of the pixels.


def test_sub_rays_are_averaged():
    kwargs = {"image_shape": (21, 17), "pixel_spacing": 2.0, "angles": ANGLES}
    image = torch.rand(1, 21, 17)
    coarse = FanBeam(FanGeometry(**kwargs, n_subrays=3, **GEOMETRY))(image)
    fine_geometry = GEOMETRY | {"n_detectors": 243, "detector_spacing": 2.0 / 3}
    fine = FanBeam(FanGeometry(**kwargs, n_subrays=1, **fine_geometry))(image)
    torch.testing.assert_close(coarse, fine.unflatten(-1, (81, 3)).mean(-1), atol=1e-4, rtol=1e-5)


def test_agrees_with_astra():
    astra = pytest.importorskip("astra", exc_type=ImportError)
    # Square: CPU ASTRA and ours must agree on axes, signs and lengths.
    shape, spacing = (48, 48), 1.25
    image = torch.rand(1, *shape)
    half = shape[0] * spacing / 2
    volume = astra.create_vol_geom(shape[0], shape[1], -half, half, -half, half)
    projections = astra.create_proj_geom("fanflat", 2.0, 81, ANGLES, 120.0, 90.0)
    projector = astra.create_projector("line_fanflat", projections, volume)
    matrix = astra.matrix.get(astra.projector.matrix(projector))
    expected = (matrix @ image.numpy().ravel()).reshape(len(ANGLES), 81)
    ours = _beam(shape, spacing)(image)[0].numpy()
    grazing = (np.abs(rays()[1]) < 1e-9).any(-1)
    np.testing.assert_allclose(ours[~grazing], expected[~grazing], atol=2e-3)


def test_fbp_of_a_disc_is_one():
    shape, spacing = (64, 74), 1.0
    angles = np.arange(360) * 2 * math.pi / 360
    operator = FanBeam(
        FanGeometry(
            image_shape=shape,
            pixel_spacing=spacing,
            angles=angles,
            n_detectors=130,
            detector_spacing=1.75,
            source_distance=160.0,
            detector_distance=120.0,
        )
    )
    centre = (9.0, -6.0)
    image = operator.direct_inverse(operator(disc(shape, spacing, centre, (21.0, 21.0))))[0]
    inside = disc(shape, spacing, centre, (16.0, 16.0))[0] == 1
    outside = disc(shape, spacing, centre, (26.0, 26.0))[0] == 0
    assert float(image[inside].mean()) == pytest.approx(1, abs=0.005)
    assert float((image[inside] - 1).abs().quantile(0.98)) < 0.02
    assert float(image[outside].mean().abs()) < 0.01


def test_preconditioned_residual_has_image_units():
    operator = FanBeam(FanGeometry(image_shape=(90, 90), pixel_spacing=1.0, angles=ANGLES, **GEOMETRY))
    filtered = operator.precondition(operator(disc((90, 90), 1.0, (0, 0), (35.0, 35.0))))
    assert 0.8 < float(filtered[0, :, 40].mean()) < 1.2


def _small(pixel_spacing: float = 1.0, cache_dir=None) -> FanBeam:
    geometry = FanGeometry(image_shape=(9, 8), pixel_spacing=pixel_spacing, angles=ANGLES, **GEOMETRY)
    return FanBeam(geometry, cache_dir=cache_dir)


def _count_builds(monkeypatch) -> list:
    builds = []
    build = system_matrix.ray_matrix
    monkeypatch.setattr(system_matrix, "ray_matrix", lambda geometry: builds.append(1) or build(geometry))
    return builds


def test_equal_geometries_share_one_matrix(monkeypatch):
    builds = _count_builds(monkeypatch)
    first, second = _small(), _small()
    assert len(builds) == 1
    assert first.matrix._pair is second.matrix._pair
    assert first.double().matrix._pair is not second.matrix._pair
    assert second(torch.ones(1, 9, 8)).dtype == torch.float32
    assert _small(pixel_spacing=1.1).matrix._pair is not second.matrix._pair
    assert len(builds) == 2


def test_matrix_is_read_from_disk(monkeypatch, tmp_path):
    builds = _count_builds(monkeypatch)
    image = torch.rand(1, 9, 8)
    expected = _small(cache_dir=tmp_path)(image)
    assert len(list(tmp_path.glob("*.npz"))) == 1
    system_matrix._kept.cache_clear()
    torch.testing.assert_close(_small(cache_dir=tmp_path)(image), expected, rtol=0, atol=0)
    assert len(builds) == 1


def test_default_folder_is_the_environments(tmp_path):
    _small()
    assert len(list((tmp_path / "cache").glob("*.npz"))) == 1


@pytest.mark.parametrize("damage", ["truncated", "text", "empty", "foreign", "pickled"])
def test_damaged_file_is_rebuilt(monkeypatch, tmp_path, damage):
    image = torch.rand(1, 9, 8)
    expected = _small(cache_dir=tmp_path)(image)
    (file,) = tmp_path.glob("*.npz")
    if damage == "truncated":
        file.write_bytes(file.read_bytes()[:500])
    elif damage == "foreign":
        np.savez(file, key="something else", data=np.ones(3))
    elif damage == "pickled":
        np.savez(file, key=np.array([object()], dtype=object))
    else:
        file.write_bytes(b"" if damage == "empty" else b"not a matrix")
    builds = _count_builds(monkeypatch)
    for _ in range(2):
        system_matrix._kept.cache_clear()
        torch.testing.assert_close(_small(cache_dir=tmp_path)(image), expected, rtol=0, atol=0)
    assert len(builds) == 1
    assert [path.suffix for path in tmp_path.iterdir()] == [".npz"]


def test_folder_that_cannot_be_written(tmp_path):
    (tmp_path / "file").write_text("in the way")
    assert _small(cache_dir=tmp_path / "file" / "cache")(torch.ones(1, 9, 8)).max() > 0


def test_old_matrices_are_removed(monkeypatch, tmp_path):
    monkeypatch.setattr(matrix_cache._SETTINGS, "max_bytes", 1)
    _small(cache_dir=tmp_path)
    _small(cache_dir=tmp_path, pixel_spacing=1.1)
    assert len(list(tmp_path.glob("*.npz"))) == 1
