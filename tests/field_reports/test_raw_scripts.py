"""The reports themselves, where their folder is present: raw MRI (cases 14, 21, 22 and 23)."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from disinr_monai.data import AcquireMRI, list_cases
from disinr_monai.data.readers.ismrmrd import read_ismrmrd
from disinr_monai.methods import TotalVariation
from tests.field_reports.raw_mri import psnr


def _fitted(path: Path, truth: np.ndarray, **settings: object) -> tuple[float, float]:
    """PSNR in dB, up to a factor, of total variation and (where there is one) of the reference."""
    case = AcquireMRI(**settings)(list_cases(path, "mri")[0])
    images = [TotalVariation()(None, None, case=case)[0].norm(dim=0), case.get("reference", [None])[0]]
    return tuple(
        np.nan
        if image is None
        else psnr(image.numpy() * ((image.numpy() * truth).sum() / (image**2).sum().item()), truth)
        for image in images
    )


def test_14_one_slice_of_four_coils(report):
    folder = report(14)
    (listed,) = list_cases(folder / "c14_one_slice.h5", "mri")
    found, _ = _fitted(folder / "c14_one_slice.h5", np.load(folder / "c14_truth_image.npy"))
    assert listed["slice"] is None
    assert found > 35


def test_21_slices_without_a_counter(report):
    folder = report(21)
    for index in range(3):
        found, truth = (read_ismrmrd(folder / f"c21_{name}.h5", index) for name in ("uncounted", "counted"))
        np.testing.assert_array_equal(found.kspace, truth.kspace)
        np.testing.assert_array_equal(found.affine, truth.affine)


def test_22_an_echo_train_with_phase_correction(report):
    folder = report(22)
    truth = np.load(folder / "c22_truth_image.npy")
    settings = {"acceleration": 2, "acs": 24}
    clean, _ = _fitted(folder / "c22_clean.h5", truth, **settings)
    found, reference = _fitted(folder / "c22_epi.h5", truth, **settings)
    assert found > max(38, clean - 0.5)
    assert reference > 30  # the noise of the full scan


def test_23_the_ending_mrd(report):
    folder = report(23)
    assert [case["reader"] for case in list_cases(folder / "c23_mrd", "mri")] == ["ismrmrd_hdf5"]
    assert read_ismrmrd(folder / "c23_mrd" / "scan.mrd").is_full
