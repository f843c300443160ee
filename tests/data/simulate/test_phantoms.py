import nibabel
import numpy as np
import pytest

from disinr_monai.data.cases import list_cases
from disinr_monai.data.readers.image import read_image
from disinr_monai.data.simulate.phantoms import brain_phantom, thorax_phantom, write_phantoms
from disinr_monai.errors import InputError


@pytest.mark.parametrize(("draw", "low", "high"), [(brain_phantom, 0, 1), (thorax_phantom, -1000, 1000)])
def test_subjects_share_an_anatomy_but_differ(draw, low, high):
    images = [draw(64, np.random.default_rng(seed)) for seed in range(6)]
    np.testing.assert_array_equal(images[0], draw(64, np.random.default_rng(0)))
    for image in images:
        assert image.dtype == np.float32
        assert low <= image.min() < image.max() <= high
    correlation = np.corrcoef([image.ravel() for image in images])
    assert correlation.min() > 0.5
    assert np.sort(correlation.ravel())[-7] < 0.99


def test_edges_are_smooth_and_the_size_does_not_move_anything():
    fine, coarse = (thorax_phantom(n, np.random.default_rng(1)) for n in (256, 64))
    mean = fine.reshape(64, 4, 64, 4).mean((1, 3))
    assert np.abs(mean - coarse).mean() < 15
    assert np.unique(coarse).size > 500


@pytest.mark.parametrize("modality", ["mri", "ct"])
def test_written_phantoms_are_cases_of_different_subjects(tmp_path, modality):
    paths = write_phantoms(tmp_path / "new" / modality, modality, 3, size=48, seed=1)
    cases = list_cases(tmp_path / "new" / modality, modality)
    assert [case["path"] for case in cases] == [str(path) for path in paths]
    assert len({case["subject"] for case in cases}) == 3
    first = read_image(cases[0], modality)
    assert first.image.shape == (48, 48)
    assert np.linalg.norm(first.affine[:3, 0]) * 48 == pytest.approx(240 if modality == "mri" else 400)
    again = write_phantoms(tmp_path / "again", modality, 1, size=48, seed=1)
    assert again[0].read_bytes()
    np.testing.assert_array_equal(read_image(list_cases(again[0], modality)[0], modality).image, first.image)


def test_where_phantoms_cannot_be_written(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match=r"file.*expected a folder that can be written"):
        write_phantoms(tmp_path / "file", "mri", 1, 32)
    with pytest.raises(InputError, match="modality: expected"):
        write_phantoms(tmp_path, "xray", 1)


def test_a_volume_phantom_has_its_organs_where_the_affine_says(tmp_path):
    (path,) = write_phantoms(tmp_path, "volume", 1, size=48, seed=1)
    image = nibabel.load(path)
    values = image.get_fdata()
    assert values.shape == (48, 48, 24)
    inverse = np.linalg.inv(image.affine)

    def at(*mm):
        return values[tuple(np.round(inverse @ [*mm, 1])[:3].astype(int))]

    # RAS mm: lungs left and right, the liver low on the right, the spine behind, air around.
    assert at(80, 0, 30) < -600
    assert at(-80, 0, 30) < -600
    assert 0 < at(60, 0, -90) < 120
    assert at(0, -70, 0) > 100
    assert at(-195, 0, 0) == -1000
