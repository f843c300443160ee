"""Orientation and scale that a file does not hold: named in the case, said once, marked on every case."""

import h5py
import nibabel
import numpy as np
import pytest

from disinr_monai.data import AcquireCT, AcquireMRI, AcquirePET, AcquireVolume, list_cases
from disinr_monai.methods import DirectInverse
from tests.data.readers.ismrmrd_files import Writer, grid, header
from tests.engines import evaluated

POINTS = np.array([[18.0, 10.0], [-12.0, 24.0]])


def fastmri(path, **more):
    with h5py.File(path, "w") as file:
        file["kspace"] = np.stack([grid(24, 20, POINTS, 1)[:1]] * 2).astype(np.complex64)
        for key, value in more.items():
            file[key] = value
    return path


def ismrmrd(path, directions):
    with Writer(path, header(24, 20, oversampling=1), directions, np.zeros(3)) as writer:
        for line in range(20):
            writer.line(grid(24, 20, POINTS, 1)[..., line], kspace_encode_step_1=line)
    return path


def sinogram(path, scale=1.0, **more):
    with h5py.File(path, "w") as file:
        file["sinogram"] = scale * np.random.default_rng(0).poisson(9, (6, 20)).astype(np.float32)
        file["angles"] = np.arange(6) * np.pi / 6
        lengths = {"detector_spacing": 2.0, "bin_spacing": 2.0, "fwhm": 0.0}
        file.attrs.update({**lengths, "source_distance": 300.0, "detector_distance": 300.0, **more})
    return path


def nifti(path, code):
    image = nibabel.Nifti1Image(np.random.default_rng(0).random((12, 12, 3)).astype(np.float32), np.eye(4))
    image.set_sform(np.eye(4), code)
    image.set_qform(np.eye(4), code)
    nibabel.save(image, path)
    return path


MRI, CT, PET = AcquireMRI(acceleration=1, acs=8, image_size=12, n_coils=2), AcquireCT(image_size=16), AcquirePET()
HEADER = {"ismrmrd_header": header(24, 20, oversampling=1).encode()}
LACKING = {
    "fastMRI": (lambda f: fastmri(f / "a.h5"), "mri", MRI, ["orientation", "voxel size"]),
    "fastMRI with a header": (lambda f: fastmri(f / "a.h5", **HEADER), "mri", MRI, ["orientation"]),
    "ISMRMRD": (lambda f: ismrmrd(f / "a.h5", np.zeros((3, 3))), "mri", MRI, ["orientation"]),
    "ISMRMRD with positions": (lambda f: ismrmrd(f / "a.h5", np.eye(3)), "mri", MRI, []),
    "sinogram": (lambda f: sinogram(f / "a.h5", 0.1), "ct", CT, ["orientation", "scale in HU"]),
    "sinogram with both": (
        lambda f: sinogram(f / "a.h5", 0.1, affine=np.eye(4), water_attenuation=0.02), "ct", CT, [],
    ),
    "PET sinogram": (lambda f: sinogram(f / "a.h5"), "pet", PET, ["orientation", "scale"]),
    "PET sinogram with both": (
        lambda f: sinogram(f / "a.h5", affine=np.eye(4), calibration=2.0), "pet", PET, [],
    ),
    "NIfTI without a frame": (lambda f: nifti(f / "a.nii", 0), "mri", MRI, ["orientation"]),
    "NIfTI": (lambda f: nifti(f / "a.nii", 1), "mri", MRI, []),
    "volume without a frame": (lambda f: nifti(f / "a.nii", 0), "volume", AcquireVolume(), ["orientation"]),
    "volume": (lambda f: nifti(f / "a.nii", 1), "volume", AcquireVolume(), []),
}  # fmt: skip


@pytest.mark.parametrize("name", LACKING)
def test_what_a_file_does_not_hold_is_in_its_information(tmp_path, name):
    write, modality, acquire, lacking = LACKING[name]
    case = acquire(list_cases(write(tmp_path), modality)[0])
    assert [text.split(" (")[0] for text in case["info"].get("unverified", [])] == lacking


def test_it_is_logged_once_and_in_the_row_of_every_case(tmp_path, caplog):
    cases = [MRI(listed) for listed in list_cases(fastmri(tmp_path / "a.h5", mask=np.ones(20), **HEADER), "mri")]
    rows, page, said = evaluated(tmp_path / "out", cases, DirectInverse(), "mri", caplog)
    assert len(rows) == 2
    assert all(row["warnings"] == "not verified: orientation (fastMRI files hold none)" for row in rows)
    (line,) = said
    assert line.startswith("a_s000: not verified: orientation")
    assert page.count("<strong>Self-check") == 2
    (case,) = [MRI(listed) for listed in list_cases(ismrmrd(tmp_path / "b.h5", np.eye(3)), "mri")]
    rows, page, said = evaluated(tmp_path / "good", [case], DirectInverse(), "mri", caplog)
    assert rows[0]["warnings"] == ""
    assert said == []
    assert "<strong>Self-check" not in page
