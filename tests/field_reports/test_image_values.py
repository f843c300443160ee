"""Negative magnitudes, impossible HU, and what is clipped: refused or counted (cases 06 and 20)."""

from __future__ import annotations

import logging
import re

import h5py
import numpy as np
import pytest

from disinr_monai.data import AcquireCT, AcquireMRI, AcquirePET, AcquireVolume, list_cases
from disinr_monai.data.readers.image import read_image
from disinr_monai.errors import InputError
from tests.field_reports.images import body, head, nifti, outside


def _read(path, modality: str) -> np.ndarray:
    return read_image(list_cases(path, modality)[0], modality).image


@pytest.mark.parametrize("modality", ["mri", "pet"])
@pytest.mark.parametrize(
    ("change", "cause"),
    [
        (lambda image: (image - image.mean()) / image.std(), "most likely a z-score"),
        (lambda image: (image - image[image > 0].mean()) / image[image > 0].std() * (image > 0), "z-score"),
        (lambda image: 2 * image / image.max() - 1, "phase, real or imaginary"),
        (lambda image: image - 0.05 * image.max(), "normalisation"),
    ],
    ids=["z-score", "z-score of the object", "-1 to 1", "offset"],
)
def test_an_image_with_many_negative_values_is_refused_with_the_likely_cause(tmp_path, modality, change, cause):
    path = nifti(tmp_path / "a.nii.gz", change(head()))
    with pytest.raises(InputError, match=f"a.nii.gz: expected .* without negative values, found .*{cause}") as error:
        _read(path, modality)
    assert re.search(r"\d+ % of the voxels negative", str(error.value))


def test_a_slice_of_a_z_scored_volume_is_refused_although_it_has_few_negative_values_itself(tmp_path):
    volume = np.stack([head() * (k == 2) + 100 * (k == 2) for k in range(5)], axis=-1)
    path = nifti(tmp_path / "a.nii.gz", (volume - volume.mean()) / volume.std())
    middle = next(case for case in list_cases(path, "mri") if case["slice"] == 2)
    with pytest.raises(InputError, match="z-score"):
        read_image(middle, "mri")


@pytest.mark.parametrize("modality", ["mri", "pet"])
def test_ringing_is_clipped_and_counted(tmp_path, caplog, modality):
    image = head()
    ringing = np.zeros(image.shape, bool)
    ringing[3, :40] = True
    image[ringing] = -3.0
    with caplog.at_level(logging.INFO):
        found = _read(nifti(tmp_path / "a.nii.gz", image), modality)
    np.testing.assert_array_equal(found, np.where(ringing, 0, image))
    assert "a.nii.gz: 40 values (0.98 %) below 0, down to -3, set to 0" in caplog.text


def test_an_image_without_negative_values_comes_back_untouched_and_nothing_is_logged(tmp_path, caplog):
    with caplog.at_level(logging.INFO):
        found = _read(nifti(tmp_path / "a.nii.gz", head()), "mri")
    np.testing.assert_array_equal(found, head())
    assert "set to" not in caplog.text


@pytest.mark.parametrize("change", [lambda image: image * 1e-6, lambda image: image + 1000.0, lambda image: image * 10])
def test_other_scales_of_a_magnitude_are_taken(tmp_path, change):
    np.testing.assert_allclose(_read(nifti(tmp_path / "a.nii.gz", change(head())), "mri"), change(head()), rtol=1e-6)


def test_the_reference_of_a_simulated_scan_is_the_image(tmp_path):
    image = head()
    image[2, :30] = -2
    path = nifti(tmp_path / "a.nii.gz", image)
    case = AcquireMRI(image_size=64, acs=12)(list_cases(path, "mri")[0])
    difference = np.asarray(case["reference"][0] * case["output_scale"]) - np.maximum(image, 0)
    assert np.abs(difference).mean() < 2  # rings a little at its edges
    case = AcquirePET(image_size=32)(list_cases(path, "pet")[0])
    expected = np.maximum(image, 0).reshape(32, 2, 32, 2).mean((1, 3))
    np.testing.assert_allclose(case["reference"][0] * case["output_scale"], expected, atol=1e-3)


def test_a_mu_map_with_many_negative_values_is_refused_and_ringing_is_counted(tmp_path, caplog):
    path = nifti(tmp_path / "a.nii.gz", head())
    mu = 0.0096 * (head() > 0)
    nifti(tmp_path / "a_mumap.nii.gz", mu - 0.0001 * (mu == 0) * (np.arange(64) < 3))
    acquire = AcquirePET(image_size=32, attenuation="file")
    with caplog.at_level(logging.INFO):
        acquire(list_cases(path, "pet")[0])
    assert "a_mumap.nii.gz: 192 values (4.7 %) below 0" in caplog.text
    nifti(tmp_path / "a_mumap.nii.gz", body())
    with pytest.raises(InputError, match=r"expected attenuation in 1/mm \(not HU\) without negative values"):
        acquire(list_cases(path, "pet")[0])


def test_a_volume_of_mr(tmp_path, caplog):
    volume = np.stack([head()] * 6, axis=-1)
    z_score = (volume - volume.mean()) / volume.std()
    with pytest.raises(InputError, match="volume_modality ct or mri"):
        AcquireVolume()(list_cases(nifti(tmp_path / "z.nii.gz", z_score), "volume")[0])
    volume[0, :10] = -2
    with caplog.at_level(logging.INFO):
        case = AcquireVolume()(list_cases(nifti(tmp_path / "a.nii.gz", volume), "volume")[0])
    assert case["info"]["volume_modality"] == "mri"
    assert "60 values (0.24 %) below 0" in caplog.text
    np.testing.assert_allclose(case["reference"][0] * case["output_scale"], np.maximum(volume, 0), atol=1e-3)


PADDINGS = {"-2000": -2000, "-3024 (GE)": -3024, "-1024": -1024, "the lowest int16": -32768}


@pytest.mark.parametrize("padding", PADDINGS.values(), ids=PADDINGS)
def test_padding_outside_a_round_field_of_view_is_air_and_counted(tmp_path, caplog, padding):
    path = nifti(tmp_path / "a.nii.gz", np.where(outside(), padding, body()), np.int16)
    with caplog.at_level(logging.INFO):
        found = _read(path, "ct")
    np.testing.assert_array_equal(found, body())
    assert f"{outside().sum()} values (24 %) below -1000, down to {padding}, set to -1000" in caplog.text


@pytest.mark.parametrize(
    ("change", "dtype", "message"),
    [
        (lambda hu: np.where(outside(), 64511, hu), np.int32, "found -1000 to 64511, 24 % above 4000"),
        (lambda hu: np.where(outside(), 31743, hu), np.int16, "padding outside the field of view"),
        (lambda hu: np.where(outside(), 3071, hu), np.int16, "corners of air.*24 % at the highest value"),
        (lambda hu: np.where(hu > -900, hu + 9000, hu), np.float32, "in the window|above 4000"),
        (lambda hu: hu - 1024, np.int16, "intercept subtracted twice|HU"),
        (lambda hu: hu - 1024 + np.random.default_rng(0).normal(0, 9, hu.shape), np.float32, "subtracted twice"),
        (lambda hu: hu + 1024, np.uint16, "in HU"),
        (lambda hu: (hu + 1000) / 1400, np.float32, "in HU"),
    ],
    ids=["uint16 padding", "int16 padding", "12-bit padding", "scaled", "twice", "twice, noisy", "stored", "0 to 1"],
)
def test_impossible_hu_are_refused(tmp_path, change, dtype, message):
    path = nifti(tmp_path / "a.nii.gz", change(body()), dtype)
    with pytest.raises(InputError, match=message):
        _read(path, "ct")
    volume = np.stack([change(body())] * 4, axis=-1)
    if change(body()).max() > 5000:
        with pytest.raises(InputError, match="HU"):
            AcquireVolume(volume_modality="ct")(list_cases(nifti(tmp_path / "v.nii.gz", volume, dtype), "volume")[0])


def test_metal_and_noise_are_possible(tmp_path, caplog):
    noisy = body() + np.random.default_rng(0).normal(0, 60, body().shape)
    noisy[30:34, 30:34] = 20_000
    with caplog.at_level(logging.INFO):
        found = _read(nifti(tmp_path / "a.nii.gz", noisy), "ct")
    np.testing.assert_allclose(found, np.maximum(noisy, -1000), atol=0.01)
    assert f"{(noisy.astype(np.float32) < -1000).sum()} values" in caplog.text


def test_ct_reference_of_a_padded_image_is_that_of_the_image_without(tmp_path):
    padded = nifti(tmp_path / "a.nii.gz", np.where(outside(), -2000, body()), np.int16)
    plain = nifti(tmp_path / "b.nii.gz", body(), np.int16)
    first, second = (AcquireCT(image_size=32)(list_cases(path, "ct")[0]) for path in (padded, plain))
    np.testing.assert_array_equal(first["reference"], second["reference"])


def _counts(path, counts):
    with h5py.File(path, "w") as file:
        file["sinogram"], file.attrs["bin_spacing"] = counts, 4.0
    return path


def test_precorrected_counts_are_clipped_with_a_word(tmp_path, caplog):
    y, x = np.mgrid[:30, :24] - 12.0
    counts = 100 * np.exp(-(x**2) / 30) + 0 * y
    negative = np.where(np.abs(x) > 11, -1.0, counts)
    path = _counts(tmp_path / "a.h5", negative)
    with caplog.at_level(logging.INFO):
        case = AcquirePET(precorrected=True)(list_cases(path, "pet")[0])
    assert f"a.h5: {(negative < 0).sum()} negative values (" in caplog.text
    np.testing.assert_allclose(case["scan"].measurement[0], np.maximum(negative, 0), rtol=1e-6)


def test_an_empty_plane_of_pet_is_named(tmp_path):
    counts = np.ones((3, 30, 24))
    counts[1] = 0
    path = _counts(tmp_path / "a.h5", counts)
    with pytest.raises(InputError, match=r"a\.h5: plane 1: `sinogram` must hold counts, found zeros only"):
        AcquirePET()(list_cases(path, "pet")[1])
