import os

import h5py
import numpy as np
import pytest

from disinr_monai.data.cases import list_cases
from disinr_monai.data.readers.reader import reader_of, spread_slices
from disinr_monai.errors import InputError
from tests.data.readers.ismrmrd_files import write_slab
from tests.fuzz.readers import READERS


def _volume(n_slices: int) -> np.ndarray:
    return np.random.default_rng(0).uniform(1, 2, (5, 7, n_slices)).astype(np.float32)


def _kspace(n_slices: int) -> np.ndarray:
    return np.random.default_rng(0).standard_normal((n_slices, 2, 12, 10)).astype(np.complex64)


def test_slices_lie_evenly_in_the_middle_half():
    assert spread_slices(101, 3) == [25, 50, 75]
    assert spread_slices(101, 1) == [50]
    assert spread_slices(2, 4) == [0, 1]
    assert spread_slices(1, 4) == [0]
    for n_slices in (3, 10, 156):
        slices = spread_slices(n_slices, 4)
        assert slices == sorted(set(slices))
        assert min(slices) >= (n_slices - 1) // 4
        assert max(slices) <= 3 * n_slices / 4


def test_a_folder_of_everything(tmp_path, write_nifti, write_hdf5, write_dicom):
    write_nifti(_volume(9), name="b/sub-1_T1w.nii.gz")
    write_nifti(_volume(1), name="sub-2_007.nii")
    write_nifti(_volume(1), name=".hidden/x.nii.gz")
    write_hdf5("full.h5", kspace=_kspace(8))
    masked = _kspace(8)
    masked[..., ::2] = 0
    write_hdf5("raw.h5", kspace=masked)
    write_hdf5("ct.h5", sinogram=np.ones((3, 4)))
    write_dicom("dicom/1.dcm", Modality="CT")
    (tmp_path / "notes.txt").write_text("hello")
    cases = list_cases(tmp_path, "mri", 2)
    assert [(c["name"], c["subject"], c["reader"]) for c in cases[:4]] == [
        ("sub-1_T1w_s002", "sub-1_T1w", "nifti"),
        ("sub-1_T1w_s006", "sub-1_T1w", "nifti"),
        ("full_s002", "full", "fastmri_hdf5"),
        ("full_s005", "full", "fastmri_hdf5"),
    ]
    assert [c["slice"] for c in cases if c["subject"] == "raw"] == list(range(8))
    assert cases[-1] == {
        "name": "sub-2_007",
        "subject": "sub-2",
        "index": len(cases) - 1,
        "path": str(tmp_path / "sub-2_007.nii"),
        "slice": None,
        "reader": "nifti",
    }
    assert [c["index"] for c in cases] == list(range(len(cases)))
    assert list_cases(tmp_path, "mri", 2) == cases
    ct = list_cases(tmp_path, "ct", 2)
    assert {(c["name"], c["reader"]) for c in ct} >= {("ct", "hdf5_sinogram"), ("dicom", "dicom")}


@pytest.mark.parametrize(
    ("name", "modality", "ending"),
    [
        ("fastmri", "mri", ".h5"),
        ("ismrmrd", "mri", ".h5"),
        ("slab", "mri", ".h5"),
        ("sinogram", "ct", ".h5"),
        ("nexus", "ct", ".nxs"),
        ("pet", "pet", ".h5"),
    ],
)
def test_a_file_is_opened_once_to_list_it_and_once_a_slice(tmp_path, monkeypatch, name, modality, ending):
    path = tmp_path / f"scan{ending}"
    if name == "slab":
        write_slab(path, np.array([[18.0, 10.0, -8.0]]), range(20))
    else:
        READERS[name][1](path)
    opened, open_file = [], h5py.File
    monkeypatch.setattr(h5py, "File", lambda *a, **k: opened.append(a) or open_file(*a, **k))
    cases = list_cases(path, modality)
    assert len(opened) == 1
    for case in cases:
        key = {"mri": "slice_index", "ct": "index", "pet": "plane"}[modality]
        reader_of(case).read(case["path"], **{key: case["slice"]})
    assert len(opened) == 1 + len(cases)


def test_equal_file_names_are_told_apart_by_their_folder(tmp_path, write_nifti):
    for patient in ("p1", "p2"):
        write_nifti(_volume(1), name=f"{patient}/T1.nii.gz")
    cases = list_cases(tmp_path, "mri")
    assert [(c["name"], c["subject"]) for c in cases] == [("p1-T1", "p1"), ("p2-T1", "p2")]


def test_dicom_series_are_grouped_and_the_patient_stays_private(tmp_path, write_dicom):
    pixels = np.arange(35, dtype=np.int16).reshape(5, 7)
    for series in ("1", "2"):
        for i in range(5):
            name = f"scan/{series}-{i}" + ("" if series == "1" else ".dcm")
            write_dicom(
                name, pixels, SeriesInstanceUID=series, SeriesNumber=series, ImagePositionPatient=[0, 0, 4.0 * i]
            )
    write_dicom("other/x.dcm", pixels, SeriesInstanceUID="3", PatientID="B")
    cases = list_cases(tmp_path, "ct", 2)
    assert [c["name"] for c in cases] == [
        "other",
        "scan_series1_s001",
        "scan_series1_s003",
        "scan_series2_s001",
        "scan_series2_s003",
    ]
    assert len(cases[1]["path"]) == 5
    assert len({c["subject"] for c in cases}) == 2
    assert "SECRET" not in str(cases)


def test_a_single_file(write_nifti):
    path = write_nifti(_volume(1), name="one.nii.gz")
    (case,) = list_cases(str(path), "mri")
    assert case["name"] == case["subject"] == "one"


def test_a_bad_file_among_good_ones_is_left_to_its_reading(tmp_path, write_nifti):
    write_nifti(_volume(1), name="good.nii.gz")
    (tmp_path / "bad.h5").write_text("hello")
    assert [c["name"] for c in list_cases(tmp_path, "mri")] == ["bad", "good"]


def test_nothing_to_list(tmp_path, write_hdf5, write_dicom):
    with pytest.raises(InputError, match=r"absent.*found nothing there"):
        list_cases(tmp_path / "absent", "mri")
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match=r"empty.*found it empty"):
        list_cases(tmp_path / "empty", "mri")
    (tmp_path / "text").mkdir()
    (tmp_path / "text" / "a.txt").write_text("hello")
    with pytest.raises(InputError, match=r"text: expected fastMRI HDF5.*found 1 others \(1 x \.txt\)"):
        list_cases(tmp_path / "text", "mri")
    with pytest.raises(InputError, match=r"modality: expected one of \['ct', 'mri', 'pet', 'volume'\], found 'xray'"):
        list_cases(tmp_path, "xray")
    with pytest.raises(InputError, match="slices_per_subject"):
        list_cases(tmp_path, "mri", 0)
    path = write_hdf5("no.h5", image=np.ones(3))
    with pytest.raises(InputError, match=r"no\.h5: expected a dataset `kspace`.*\['image'\]"):
        list_cases(path, "mri")
    with pytest.raises(InputError, match=r"of modality CT, found none but 1 x MR"):
        list_cases(write_dicom("mr/1.dcm", Modality="MR").parent, "ct")


@pytest.mark.skipif(os.geteuid() == 0, reason="root reads everything")
def test_a_file_without_permission(write_hdf5):
    path = write_hdf5(kspace=_kspace(1))
    path.chmod(0)
    with pytest.raises(InputError, match="expected a readable HDF5"):
        list_cases(path, "mri")
