"""DICOM that is no slice of magnitudes, inverted display, padding, endings (cases 02, 06 and 23)."""

from __future__ import annotations

import logging

import numpy as np
import pytest

from disinr_monai.data import list_cases
from disinr_monai.data.readers.dicom import read_dicom
from disinr_monai.data.readers.image import read_image
from disinr_monai.errors import InputError
from tests.field_reports.images import body, dicom, enhanced, head, nifti, outside

MR = {"Modality": "MR", "PixelRepresentation": 0}


def _kind(*values: str) -> dict:
    return {**MR, "ImageType": ["ORIGINAL", "PRIMARY", *values]}


def _stored_as_it_was_shown(image: np.ndarray) -> np.ndarray:
    """The RAS array of an axial slice (rows to the back, columns to the left), as DICOM stores it."""
    return image[::-1, ::-1].T


NO_SLICES = {
    "mosaic": (_kind("M", "ND", "MOSAIC"), "a mosaic of several slices"),
    "Siemens phase": (_kind("P", "ND"), "a phase image"),
    "Philips phase": (_kind("PHASE MAP", "P", "FFE"), "a phase image"),
    "Philips real": (_kind("R_FFE", "R", "FFE"), "a real image"),
    "Philips imaginary": (_kind("I_FFE", "I", "FFE"), "a imaginary image"),
    "velocity": (_kind("V", "ND"), "a velocity image"),
    "component": ({**_kind("OTHER"), "ComplexImageComponent": "PHASE"}, "a phase image"),
    "iodine": ({"RescaleType": "MGML"}, "values in MGML, not HU"),
}


@pytest.mark.parametrize(("attributes", "reason"), NO_SLICES.values(), ids=NO_SLICES)
def test_what_is_no_slice_is_left_out_and_counted_or_refused(tmp_path, caplog, attributes, reason):
    modality = "mri" if attributes.get("Modality") == "MR" else "ct"
    image = head() if modality == "mri" else body()
    for k in range(3):
        place = {"ImagePositionPatient": [0.0, 0.0, 4.0 * k], "SeriesInstanceUID": "9"}
        dicom(tmp_path / f"other{k}.dcm", image, **{**place, **attributes})
    with pytest.raises(InputError, match=f"found none but 3 x .*{reason}"):
        list_cases(tmp_path, modality)
    with pytest.raises(InputError, match=f"expected a DICOM slice, found none but 1 x {reason}"):
        read_dicom([str(tmp_path / "other0.dcm")], modality)
    plain = _kind("M", "ND") if modality == "mri" else {}
    dicom(tmp_path / "scan.dcm", image, **plain)
    with caplog.at_level(logging.INFO):
        (case,) = list_cases(tmp_path, modality)
    assert f"3 x DICOM {'MR' if modality == 'mri' else 'CT'} ({reason})" in caplog.text
    np.testing.assert_array_equal(_stored_as_it_was_shown(read_image(case, modality).image), image)


GOOD = [
    ("M", "ND", "NORM"),
    ("M_FFE", "M", "FFE"),
    ("OTHER",),
    ("IN_PHASE",),
    ("OPP_PHASE", "M"),
    ("W", "M"),
    ("M", "IP"),
]


@pytest.mark.parametrize("values", GOOD, ids="-".join)
def test_magnitudes_of_every_vendor_are_taken(tmp_path, values):
    (case,) = list_cases(dicom(tmp_path / "a.dcm", head(), **_kind(*values)), "mri")
    np.testing.assert_array_equal(_stored_as_it_was_shown(read_image(case, "mri").image), head())


def test_private_attributes_say_mosaic_and_phase_too(tmp_path):
    import pydicom

    for name, group, creator, element, value in (
        ("tiles", 0x0019, "SIEMENS MR HEADER", 0x0A, 16),
        ("ge", 0x0043, "GEMS_PARM_01", 0x2F, 1),
    ):
        path = dicom(tmp_path / f"{name}.dcm", head(), **_kind("OTHER"), SeriesInstanceUID=str(group))
        dataset = pydicom.dcmread(path)
        dataset.private_block(group, creator, create=True).add_new(element, "US" if element == 0x0A else "SS", value)
        dataset.save_as(path)
    with pytest.raises(InputError, match=r"1 x MR \(a phase image\), 1 x MR \(a mosaic of several slices\); split"):
        list_cases(tmp_path, "mri")


def test_phase_frames_of_an_enhanced_object_are_left_out_and_its_magnitudes_stay(tmp_path, caplog):
    magnitudes = np.stack([head() + 10 * k for k in range(3)])
    phases = np.full_like(magnitudes, 4000)
    path = enhanced(tmp_path / "e.dcm", np.concatenate([phases, magnitudes]), ["PHASE"] * 3 + ["MAGNITUDE"] * 3)
    with caplog.at_level(logging.INFO):
        cases = list_cases(path, "mri", 3)
    assert "3 x DICOM MR (a phase image)" in caplog.text
    for case, magnitude in zip(cases[-2:], magnitudes[1:], strict=True):
        np.testing.assert_array_equal(_stored_as_it_was_shown(read_image(case, "mri").image), magnitude)


@pytest.mark.parametrize(
    ("image", "stored", "attributes"),
    [
        (head(), 65535 - head(), MR),
        (head(), 4095 - head(), {**MR, "BitsStored": 12, "HighBit": 11}),
        (head(), 200 - head(), MR),
        (head(), -1 - head(), {"Modality": "MR"}),
        (head(), head(), MR),  # only its display is inverted
        (body(), 4095 - (body() + 1024), {"PixelRepresentation": 0, "BitsStored": 12, "RescaleIntercept": -1024}),
        (body(), body().max() - body(), {"PixelRepresentation": 0}),
        (body(), body(), {}),
    ],
    ids=["MR 16 bits", "MR 12 bits", "MR about its maximum", "MR signed", "MR as is", "CT", "CT maximum", "CT as is"],
)
def test_inverted_photometric_interpretation(tmp_path, caplog, image, stored, attributes):
    path = dicom(tmp_path / "a.dcm", stored, PhotometricInterpretation="MONOCHROME1", **attributes)
    modality = "mri" if attributes.get("Modality") == "MR" else "ct"
    with caplog.at_level(logging.INFO):
        found = read_image(list_cases(path, modality)[0], modality)
    np.testing.assert_array_equal(_stored_as_it_was_shown(found.image), image)
    assert "MONOCHROME1" in caplog.text
    assert found.info.get("inverted", False) == (not np.array_equal(image, stored))


PADDINGS = {
    "signed": (1, -2000, {"PixelPaddingValue": -2000}),
    "unsigned": (0, 65535, {"PixelPaddingValue": 65535}),
    "range": (0, 65530, {"PixelPaddingValue": 65535, "PixelPaddingRangeLimit": 65000}),
    "range upwards": (1, -1990, {"PixelPaddingValue": -2000, "PixelPaddingRangeLimit": -1500}),
    "signed, written unsigned": (1, -2000, {"PixelPaddingValue": 63536}),
    "unsigned, written signed": (0, 63536, {"PixelPaddingValue": -2000}),
    "soft tissue's value": (1, 1064, {"PixelPaddingValue": 1064}),
    "air": (0, 24, {"PixelPaddingValue": 24}),
    "0": (0, 0, {"PixelPaddingValue": 0}),
}


@pytest.mark.parametrize(("signed", "padding", "attributes"), PADDINGS.values(), ids=PADDINGS)
def test_padding_is_air_and_counted(tmp_path, caplog, signed, padding, attributes):
    stored = np.where(outside(), padding, body() + 1024)
    path = dicom(tmp_path / "a.dcm", stored, PixelRepresentation=signed, RescaleIntercept=-1024, **attributes)
    with caplog.at_level(logging.INFO):
        found = read_image(list_cases(path, "ct")[0], "ct")
    np.testing.assert_array_equal(_stored_as_it_was_shown(found.image), body())
    assert found.info["padding_voxels"] >= outside().sum()
    assert f"{found.info['padding_voxels']} voxels" in caplog.text


def test_padding_of_mr_is_0_and_without_the_attribute_impossible_hu_are_refused(tmp_path):
    stored = np.where(outside() & (head() == 0), 32767, head())
    path = dicom(tmp_path / "mr" / "a.dcm", stored, PixelPaddingValue=32767, Modality="MR")
    found = read_image(list_cases(path, "mri")[0], "mri")
    np.testing.assert_array_equal(_stored_as_it_was_shown(found.image), head())
    stored = np.where(outside(), 65535, body() + 1024)
    path = dicom(tmp_path / "ct" / "a.dcm", stored, PixelRepresentation=0, RescaleIntercept=-1024)
    with pytest.raises(InputError, match=r"found -1000 to 64511.*padding outside the field of view"):
        read_image(list_cases(path, "ct")[0], "ct")


def test_a_table_of_values_is_refused(tmp_path):
    import pydicom

    path = dicom(tmp_path / "a.dcm", body())
    dataset, table = pydicom.dcmread(path), pydicom.Dataset()
    table.LUTDescriptor, table.ModalityLUTType, table.LUTData = [2, 0, 16], "HU", b"\0\0\1\0"
    dataset.ModalityLUTSequence = [table]
    dataset.save_as(path)
    with pytest.raises(InputError, match="expected rescale slope and intercept, found a table of values"):
        list_cases(path, "ct")


@pytest.mark.parametrize("ending", [".IMA", ".img", ".dicom", ".0001.2024.01.01.IMA", "", ".17"])
def test_the_contents_say_that_a_file_is_dicom(tmp_path, ending):
    for k in range(5):
        place = {"ImagePositionPatient": [0.0, 0.0, 4.0 * k], "RescaleIntercept": 0}
        dicom(tmp_path / f"scan{k}{ending}", body() + k * (body() > 0), **place)
    cases = list_cases(tmp_path, "ct", 2)
    assert [case["slice"] for case in cases] == [1, 3]
    image = _stored_as_it_was_shown(read_image(cases[1], "ct").image)
    np.testing.assert_array_equal(image, body() + 3 * (body() > 0))


def test_a_mixed_folder_says_what_was_left_out_by_kind(tmp_path, caplog):
    nifti(tmp_path / "scan.nii.gz", body())
    for k in range(3):
        dicom(tmp_path / f"a{k}.IMA", body(), ImagePositionPatient=[0.0, 0.0, 4.0 * k])
    dicom(tmp_path / "b.IMA", head(), **_kind("M"), SeriesInstanceUID="8")
    dicom(tmp_path / "c.dcm", body(), ImageType=["ORIGINAL", "PRIMARY", "LOCALIZER"], SeriesInstanceUID="7")
    for name in ("notes.txt", "more.txt", "scan.json", "README"):
        (tmp_path / name).write_text("{}")
    with caplog.at_level(logging.INFO):
        cases = list_cases(tmp_path, "ct")
    assert {case["reader"] for case in cases} == {"nifti", "dicom"}
    for text in ("1 x DICOM MR", "1 x DICOM CT (a localizer)", "2 x .txt", "1 x .json", "1 x without ending"):
        assert text in caplog.text
