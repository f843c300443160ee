import shutil
import subprocess

import nibabel
import numpy as np
import pydicom
import pytest

from disinr_monai.data import list_cases
from disinr_monai.data.readers.dicom import read_dicom
from disinr_monai.data.readers.image import read_image
from disinr_monai.errors import InputError
from disinr_monai.output.dicom import CT_IMAGE, MR_IMAGE, SECONDARY_CAPTURE, DicomWriter

AFFINE = np.array([[2.0, 0, 0, -10], [0, 3.0, 0, 20], [0, 0, 5.0, -7], [0, 0, 0, 1]])


def case(name="scan_s003", subject="scan", affine=AFFINE, path="scan.nii.gz", **info) -> dict:
    return {"name": name, "subject": subject, "affine": affine, "path": path, "info": info}


def values(shape=(12, 9), scale=500.0) -> np.ndarray:
    image = np.random.default_rng(0).normal(0, scale, shape).astype(np.float32)
    image[: shape[0] // 2, : shape[1] // 3] += 2 * scale  # asymmetric
    return image


def oblique() -> np.ndarray:
    a, b = 0.3, -0.2
    turn = np.array([[np.cos(a), -np.sin(a), 0], [np.sin(a), np.cos(a), 0], [0, 0, 1]])
    turn = turn @ np.array([[1, 0, 0], [0, np.cos(b), -np.sin(b)], [0, np.sin(b), np.cos(b)]])
    affine = np.eye(4)
    affine[:3, :3], affine[:3, 3] = turn @ np.diag([1.1, 2.3, 4.0]), [3.0, -70.25, 12.5]
    return affine


def at(image: np.ndarray, affine: np.ndarray, points: np.ndarray) -> np.ndarray:
    """Values of the voxels at positions (RAS mm): the same for two files of one object, however it is stored."""
    index = np.rint(nibabel.affines.apply_affine(np.linalg.inv(affine), points)).astype(int)
    return image[tuple(index.T)]


@pytest.mark.parametrize("codes", ["RAS", "LPS", "PRS", "SAR", "ASL"])
@pytest.mark.parametrize("base", [AFFINE, oblique()], ids=["straight", "oblique"])
@pytest.mark.parametrize(("modality", "step"), [("CT", 0.5), ("MR", None)])
def test_geometry_and_values_come_back(tmp_path, codes, base, modality, step):
    """A volume in any array order is the same object, voxel by voxel, after our own reader has read the DICOM."""
    shape = (6, 5, 4)
    turn = nibabel.orientations.inv_ornt_aff(nibabel.orientations.axcodes2ornt(codes), shape)
    affine = base @ turn
    image = values(shape) if modality == "CT" else np.abs(values(shape, 1e-5))
    files = DicomWriter(modality, "disinr").write(tmp_path, case(affine=affine), image)
    assert len(files) == shape[2]
    series = read_dicom([str(f) for f in files], "ct" if modality == "CT" else "mri")
    stored, found = series.image, series.affine
    step = step or 0.5001 * (image.max() - min(image.min(), 0)) / 65535
    indices = np.argwhere(np.ones(shape, dtype=bool))
    points = nibabel.affines.apply_affine(affine, indices)
    assert np.abs(at(stored, found, points) - image[tuple(indices.T)]).max() <= step * (1 + 1e-5)
    np.testing.assert_allclose(
        np.sort(np.linalg.norm(found[:3, :3], axis=0)), np.sort(np.linalg.norm(affine[:3, :3], axis=0)), rtol=1e-6
    )


def test_a_viewer_shows_front_up_and_right_on_the_left(tmp_path):
    (file,) = DicomWriter("CT", "disinr").write(tmp_path, case(), values())
    dataset = pydicom.dcmread(file)
    assert [float(v) for v in dataset.ImageOrientationPatient] == [1, 0, 0, 0, 1, 0]
    assert [float(v) for v in dataset.PixelSpacing] == [3.0, 2.0]  # rows are 3 mm apart
    # The first pixel is the voxel furthest to the right and to the front.
    np.testing.assert_allclose(dataset.ImagePositionPatient, [10 - 2.0 * 11, -20 - 3.0 * 8, -7])
    np.testing.assert_array_equal(dataset.pixel_array, np.rint(values()).T[::-1, ::-1].astype(int))


@pytest.mark.parametrize(
    ("modality", "sop", "kind"),
    [("CT", CT_IMAGE, "AXIAL"), ("MR", MR_IMAGE, "OTHER"), ("PT", SECONDARY_CAPTURE, "OTHER")],
)
def test_what_the_object_says(tmp_path, modality, sop, kind):
    (file,) = DicomWriter(modality, "disinr").write(tmp_path, case(), np.abs(values()))
    dataset = pydicom.dcmread(file)
    assert dataset.SOPClassUID == dataset.file_meta.MediaStorageSOPClassUID == sop
    assert list(dataset.ImageType) == ["DERIVED", "SECONDARY", kind]
    assert dataset.BurnedInAnnotation == "NO"
    assert "NOT FOR CLINICAL USE" in dataset.SeriesDescription
    assert "no claim of diagnostic quality" in dataset.ImageComments
    assert "disinr" in dataset.DerivationDescription
    assert str(dataset.PatientName) == ""
    assert dataset.PatientID == "scan"


def errors_of(file) -> list[str]:
    if shutil.which("dciodvfy") is None:
        pytest.skip("no dciodvfy on this machine (Debian: apt-get install dicom3tools)")
    done = subprocess.run(["dciodvfy", str(file)], capture_output=True, text=True)
    return [line for line in (done.stdout + done.stderr).splitlines() if line.startswith("Error")]


@pytest.mark.parametrize("modality", ["CT", "MR", "OT"])
@pytest.mark.parametrize("anonymize", [False, True])
@pytest.mark.parametrize("shape", [(12, 9), (6, 5, 4)])
def test_dciodvfy_finds_no_error(tmp_path, modality, anonymize, shape):
    files = DicomWriter(modality, "disinr", anonymize).write(tmp_path, case(affine=oblique()), np.abs(values(shape)))
    assert errors_of(files[0]) == []


@pytest.fixture
def series(data_dir):
    path = data_dir / "ct_dicom"
    if not path.is_dir():
        pytest.skip(f"{path} is absent")
    return list_cases(path, "ct", 2)


def test_a_real_series_keeps_patient_study_and_place(series, tmp_path):
    writer, files = DicomWriter("CT", "disinr"), []
    for listed in series:
        source = read_image(listed, "ct")
        one = {**listed, "affine": source.affine, "info": source.info}
        files += writer.write(tmp_path, one, source.image)
        assert errors_of(files[-1]) == []
    written = [pydicom.dcmread(file) for file in files]
    original = pydicom.dcmread(series[0]["path"][0])
    for key in ("PatientName", "PatientID", "StudyInstanceUID", "FrameOfReferenceUID", "StudyDate"):
        assert {str(w.get(key)) for w in written} == {str(original.get(key))}, key
    assert len({w.SeriesInstanceUID for w in written}) == 1
    assert written[0].SeriesInstanceUID != original.SeriesInstanceUID
    assert len({w.SOPInstanceUID for w in written}) == len({int(w.InstanceNumber) for w in written}) == 2
    stored = read_dicom([str(file) for file in files], "ct")
    for listed, dataset in zip(series, written, strict=True):
        match = pydicom.dcmread(listed["path"][listed["slice"]])
        assert dataset.SourceImageSequence[0].ReferencedSOPInstanceUID == match.SOPInstanceUID
        np.testing.assert_allclose(dataset.ImagePositionPatient, match.ImagePositionPatient, atol=1e-6)
        np.testing.assert_allclose(dataset.ImageOrientationPatient, match.ImageOrientationPatient, atol=1e-6)
        np.testing.assert_allclose(dataset.PixelSpacing, match.PixelSpacing, rtol=1e-6)
        expected = match.pixel_array * float(match.RescaleSlope) + float(match.RescaleIntercept)
        np.testing.assert_array_equal(dataset.pixel_array, np.maximum(expected, -1000))  # noise of air is air
    assert stored.image.shape[-1] == 2
    assert np.isfinite(stored.affine).all()


def test_anonymize_takes_nothing_of_the_person(series, tmp_path):
    listed = series[0]
    source = read_image(listed, "ct")
    one = {**listed, "name": "case-001", "subject": "subject-001", "affine": source.affine, "info": source.info}
    (file,) = DicomWriter("CT", "disinr", anonymize=True).write(tmp_path, one, source.image)
    original, written = pydicom.dcmread(listed["path"][0]), pydicom.dcmread(file)
    assert written.PatientIdentityRemoved == "YES"
    assert written.PatientID == "subject-001"
    person = {
        str(original[key].value)
        for key in ("PatientName", "PatientID", "StudyInstanceUID", "FrameOfReferenceUID", "SeriesInstanceUID",
                    "StudyDate", "StudyTime", "AccessionNumber", "SOPInstanceUID", "PatientAge")
        if key in original and str(original[key].value)
    }  # fmt: skip
    text = str(written)
    assert len(person) > 4
    assert not [word for word in person if len(word) > 4 and word in text]


@pytest.mark.filterwarnings("ignore:Invalid value for VR")  # pydicom's, when the test writes and reads it
def test_hostile_headers_are_left_out_and_named(write_hostile, tmp_path, caplog):
    one = case(path=[str(write_hostile)], slice=0)
    out = tmp_path / "out"
    out.mkdir()
    (file,) = DicomWriter("CT", "disinr").write(out, one, values())
    written = pydicom.dcmread(file)
    assert file.parent == out
    assert "PatientAge of the source is not valid" in caplog.text
    assert str(written.PatientName) == "../../<script>alert(1)</script>"


@pytest.fixture
def write_hostile(tmp_path):
    """A slice whose header holds a path, markup, and an age that is none."""
    (file,) = DicomWriter("CT", "disinr").write(tmp_path, case(), values())
    dataset = pydicom.dcmread(file)
    dataset.PatientName = "../../<script>alert(1)</script>"
    before = pydicom.config.settings.reading_validation_mode, pydicom.config.settings.writing_validation_mode
    pydicom.config.settings.writing_validation_mode = pydicom.config.IGNORE
    try:
        dataset.PatientAge = "older than the hills"
        dataset.save_as(tmp_path / "hostile.dcm")
    finally:
        pydicom.config.settings.reading_validation_mode, pydicom.config.settings.writing_validation_mode = before
    return tmp_path / "hostile.dcm"


@pytest.mark.parametrize(
    ("image", "affine", "message"),
    [
        (values(scale=1e6), AFFINE, "expected HU within 16 bits"),
        (values(), AFFINE + np.eye(4, k=1) * [0, 1, 0, 0], "expected perpendicular axes"),
    ],
)
def test_what_does_not_fit_is_refused(tmp_path, image, affine, message):
    with pytest.raises(InputError, match=message):
        DicomWriter("CT", "disinr").write(tmp_path, case(affine=affine), image)
