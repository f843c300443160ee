"""Results inside ``dataset_dir`` are no scans: they are recognised by content, left out and counted."""

from __future__ import annotations

import logging
import shutil

import nibabel
import numpy as np
import pytest

from disinr_monai.data import list_cases
from disinr_monai.errors import InputError
from tests import runs


def write_chest(folder, name: str = "chest.nii.gz", descrip: str = "") -> None:
    """A slice in HU: an ellipse of soft tissue in air."""
    y, x = (np.mgrid[:32, :32] - 15.5) * 8.0
    image = nibabel.Nifti1Image(
        np.where((x / 90) ** 2 + (y / 70) ** 2 < 1, 40, -1000).astype(np.int16)[..., None], np.diag([8.0, 8, 5, 1])
    )
    image.header["descrip"] = descrip
    folder.mkdir(parents=True, exist_ok=True)
    nibabel.save(image, folder / name)


@pytest.mark.parametrize("inside", ["results", "."])
def test_a_second_run_reads_the_same_scans(tmp_path, caplog, inside):
    """NIfTI, DICOM and numpy results of the first, in a folder below the scans or among them."""
    write_chest(tmp_path)
    for _ in range(2):
        assert not runs.infer(tmp_path, tmp_path / inside, "ct", dicom=True, save_numpy=True)
    with caplog.at_level(logging.INFO):
        cases = list_cases(tmp_path, "ct")
    assert [case["name"] for case in cases] == ["chest"]
    for kind in ("(.nii.gz)", "(.dcm)"):
        assert f"1 x result of disinr_monai {kind}" in caplog.text


def test_moved_results_are_known_by_their_content(tmp_path):
    write_chest(tmp_path / "scans")
    assert not runs.infer(tmp_path / "scans", tmp_path / "out", "ct", dicom=True)
    for number, file in enumerate(
        sorted(path for path in (tmp_path / "out" / "chest").rglob("chest*") if path.is_file())
    ):
        if file.suffix in (".gz", ".dcm"):
            shutil.copy(file, tmp_path / "scans" / f"moved{number}{''.join(file.suffixes)}")
    assert len(list((tmp_path / "scans").iterdir())) == 3
    assert [case["name"] for case in list_cases(tmp_path / "scans", "ct")] == ["chest"]


def test_only_results_are_no_scans(tmp_path):
    write_chest(tmp_path, descrip="disinr_monai 0.1, disinr")
    with pytest.raises(InputError, match=r"found 1 others \(1 x result of disinr_monai \(.nii.gz\)\)"):
        list_cases(tmp_path, "ct")
    assert len(list_cases(tmp_path / "chest.nii.gz", "ct")) == 1  # named itself


def test_what_only_looks_like_a_result_is_read(tmp_path):
    """A name that ends in _recon in a folder of that name, another program's tables, or another description."""
    write_chest(tmp_path / "a", "a_recon.nii.gz", "a scanner's")
    write_chest(tmp_path, "b_recon.nii.gz")
    (tmp_path / "metrics.csv").write_text("mine")
    assert len(list_cases(tmp_path, "ct")) == 2
