"""An image that was measured by simulation says so wherever its reconstruction goes; a raw scan does not."""

from __future__ import annotations

import csv
import logging
import re

import h5py
import nibabel
import numpy as np
import pydicom
import pytest

import disinr_monai
from disinr_monai.data import AcquireCT, AcquireMRI, AcquirePET, AcquireVolume, SkipFailed, list_cases
from disinr_monai.handlers import SaveCases
from disinr_monai.methods import DirectInverse
from disinr_monai.output.orientation import radiological
from disinr_monai.output.report import Report
from tests.engines import evaluator
from tests.field_reports.images import body, dicom, head, nifti


def _raw_mri(folder):
    k = np.fft.fftshift(np.fft.fft2(np.fft.ifftshift(head() * np.ones((4, 1, 1)), axes=(1, 2))), axes=(1, 2))
    k[..., 1::2] *= np.abs(np.arange(64) - 32)[1::2] < 12
    with h5py.File(folder / "scan.h5", "w") as file:
        file["kspace"] = k.astype(np.complex64)
    return folder / "scan.h5"


def _raw_pet(folder):
    with h5py.File(folder / "scan.h5", "w") as file:
        file["sinogram"], file.attrs["bin_spacing"] = np.full((30, 24), 50.0), 4.0
    return folder / "scan.h5"


SCANS = {
    "MR DICOM": ("mri", True, lambda f: dicom(f / "a.dcm", head(), Modality="MR"), AcquireMRI(image_size=64, acs=12)),
    "CT NIfTI": ("ct", True, lambda f: nifti(f / "a.nii.gz", body()), AcquireCT(image_size=32, n_views=20)),
    "PET NIfTI": ("pet", True, lambda f: nifti(f / "a.nii.gz", head()), AcquirePET(image_size=32, n_views=20)),
    "volume": ("volume", True, lambda f: nifti(f / "a.nii.gz", np.stack([head()] * 4, -1)), AcquireVolume()),
    "raw MR": ("mri", False, _raw_mri, AcquireMRI(maps="joint")),
    "raw PET": ("pet", False, _raw_pet, AcquirePET()),
}


@pytest.mark.parametrize(("modality", "simulated", "write", "acquire"), SCANS.values(), ids=SCANS)
def test_simulated_is_said_everywhere(tmp_path, caplog, modality, simulated, write, acquire):
    path = write(tmp_path)
    listed = list_cases(path, modality)[-1]
    case = SkipFailed(acquire)(listed)
    out, method = tmp_path / "out", DirectInverse()
    results = SaveCases(str(out), method, modality, "tv", dicom=True, report=Report(str(out), "Title", "tv"))
    with caplog.at_level(logging.INFO):
        evaluator([case], method, [results]).run()
    name = case["name"]
    descrip = bytes(nibabel.load(out / name / f"{name}_recon.nii.gz").header["descrip"].item()).decode()
    assert descrip == f"{'SIMULATED, ' * simulated}disinr_monai {disinr_monai.__version__}, tv"
    written = pydicom.dcmread(next((out / name / "dicom").glob("*.dcm")))
    texts = (written.SeriesDescription, written.ImageComments, written.DerivationDescription)
    assert ["SIMULATED" in text for text in texts] == [simulated] * 3
    assert written.SeriesDescription.endswith("NOT FOR CLINICAL USE: tv")
    assert ("undersampled data" in written.ImageComments) == (not simulated)
    with (out / "metrics.csv").open() as file:
        assert {row["measurement"] for row in csv.DictReader(file)} == {"SIMULATED" if simulated else "raw"}
    assert ("SIMULATED" in caplog.text) == simulated
    page = re.sub(r"<style>.*?</style>", "", (out / "report.html").read_text(), flags=re.DOTALL)
    assert (">SIMULATED</strong></h3>" in page) == simulated
    assert ("SIMULATED" in page) == simulated


def test_a_long_method_fits_into_80_bytes(tmp_path):
    path = nifti(tmp_path / "a.nii.gz", body())
    case = SkipFailed(AcquireCT(image_size=32, n_views=20))(list_cases(path, "ct")[0])
    method = DirectInverse()
    evaluator([case], method, [SaveCases(str(tmp_path / "out"), method, "ct", "m" * 100)]).run()
    descrip = bytes(nibabel.load(tmp_path / "out" / "a" / "a_recon.nii.gz").header["descrip"].item()).decode()
    assert descrip.startswith(f"SIMULATED, disinr_monai {disinr_monai.__version__}, mmm")
    assert len(descrip) == 79


def test_raw_kspace_without_a_position_lies_in_a_viewer_as_the_png_shows_it(tmp_path):
    """Rows run to the back and columns to the left: the radiological view is the array as it is stored."""
    case = AcquireMRI(maps="joint")(list_cases(_raw_mri(tmp_path), "mri")[0])
    affine = case["affine"].numpy()
    assert nibabel.aff2axcodes(affine) == ("P", "L", "S")
    image = head()
    shown, _ = radiological(image, affine)
    np.testing.assert_array_equal(shown, image)
