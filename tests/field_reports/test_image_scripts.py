"""The reports themselves, where their folder is present: images (cases 02, 06, 20 and 23)."""

from __future__ import annotations

import logging

import numpy as np
import pytest

from disinr_monai.data import list_cases
from disinr_monai.data.readers.image import read_image
from disinr_monai.errors import InputError


def _image(path, modality: str) -> np.ndarray:
    return read_image(list_cases(path, modality)[0], modality).image


def test_02_a_mosaic_is_refused_with_what_to_do(report):
    with pytest.raises(InputError, match=r"1 x MR \(a mosaic of several slices\); split mosaics into slices"):
        list_cases(report(2), "mri")


def test_06_padding_is_air(report):
    folder = report(6)
    truth = _image(folder / "c06_no_pad", "ct")
    assert (truth.min(), truth.max()) == (-1000, 300)
    for name in ("c06_pad_signed", "c06_pad_unsigned"):
        np.testing.assert_array_equal(_image(folder / name, "ct"), truth)


def test_20_a_z_score_is_refused_and_the_image_before_is_not(report):
    folder = report(20)
    assert _image(folder / "c20_plain.nii.gz", "mri").max() == 210
    with pytest.raises(InputError, match=r"c20_zscored.*most likely a z-score"):
        _image(folder / "c20_zscored.nii.gz", "mri")


def test_23_ima_files_are_read_alone_and_beside_others(report, caplog):
    folder = report(23)
    assert _image(folder / "c23_ima", "ct").max() == 30
    with caplog.at_level(logging.INFO):
        cases = list_cases(folder / "c23_mixed", "ct")
    assert {case["reader"] for case in cases} == {"nifti", "dicom"}
    images = [read_image(case, "ct").image for case in cases]
    assert {(image.min(), image.max()) for image in images} == {(-1000, 30)}
