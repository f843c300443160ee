"""Lengths of rays in pixels, and the matrix of them in memory and on disk."""

import math

import numpy as np
import pytest
import torch

from disinr_monai.numerics import cache as matrix_cache
from disinr_monai.operators import FanBeam, FanGeometry
from disinr_monai.operators.tomography import projector as system_matrix
from tests.operators.tomography.phantoms import lines

ANGLES = np.array([0.0, 0.7, math.pi / 2, 2.5, 4.0, 5.5])
GEOMETRY = {"n_detectors": 81, "detector_spacing": 2.0, "source_distance": 120.0, "detector_distance": 90.0}


@pytest.fixture(autouse=True)
def _own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("DISINR_CACHE", str(tmp_path / "cache"))
    system_matrix._kept.cache_clear()
    yield
    system_matrix._kept.cache_clear()


def beam(shape, spacing, **changes) -> FanBeam:
    return FanBeam(FanGeometry(image_shape=shape, pixel_spacing=spacing, angles=ANGLES, **GEOMETRY | changes))


def test_rectangle_is_exact():
    """A rectangle of whole pixels, off centre in both axes: every length is known to rounding."""
    shape, spacing = (61, 45), 1.5
    image = torch.zeros(1, *shape)
    image[0, 4:19, 30:41] = 1
    # Columns 30 to 41 of 45 along +x, rows 4 to 19 of 61 along -y.
    low = np.array([(30 - 22.5) * spacing, (30.5 - 19) * spacing])
    high = np.array([(41 - 22.5) * spacing, (30.5 - 4) * spacing])
    operator = beam(shape, spacing, n_subrays=1)
    source, direction = lines(operator)
    with np.errstate(divide="ignore"):
        crossings = np.stack(((low - source) / direction, (high - source) / direction))
    expected = np.maximum(crossings.max(0).min(-1) - crossings.min(0).max(-1), 0)
    # A ray along a pixel border may count on either side.
    grazing = (np.abs(direction) < 1e-9).any(-1)
    assert expected.max() > 20
    np.testing.assert_allclose(operator(image)[0].numpy()[~grazing], expected[~grazing], atol=1e-4)


def test_sub_rays_are_averaged():
    image = torch.rand(1, 21, 17)
    coarse = beam((21, 17), 2.0, n_subrays=3)(image)
    fine = beam((21, 17), 2.0, n_subrays=1, n_detectors=243, detector_spacing=2.0 / 3)(image)
    torch.testing.assert_close(coarse, fine.unflatten(-1, (81, 3)).mean(-1), atol=1e-4, rtol=1e-5)


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
