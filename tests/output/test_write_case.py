import nibabel
import numpy as np
import pytest
import torch

from disinr_monai.errors import InputError
from disinr_monai.modality import facts_of
from disinr_monai.output.dicom import DicomWriter
from disinr_monai.output.write_case import CaseWriter
from disinr_monai.runtime.files import staged_folder
from tests.problems import blob

AFFINE = np.diag([2.0, 3.0, 4.0, 1.0])


def case(**more) -> dict:
    return {
        "name": "scan",
        "subject": "scan",
        "affine": AFFINE,
        "info": {},
        "image_scale": 2.0,
        "output_scale": 10.0,
        **more,
    }


def image() -> torch.Tensor:
    return torch.stack((blob(), 0.5 * blob()))


def writer(folder, modality="mri", **options) -> CaseWriter:
    return CaseWriter(folder, facts_of(modality), **options)


def write(to: CaseWriter, **more):
    one = case(**more)
    return to.write(one, image(), one["affine"], {"direct": blob()[None], "disinr": blob()[None]})


def files(folder) -> set[str]:
    return {str(file.relative_to(folder)) for file in folder.rglob("*") if file.is_file()}


def test_what_was_asked_for_is_written_and_nothing_else(tmp_path):
    write(writer(tmp_path))
    assert files(tmp_path) == {"scan/scan_recon.nii.gz", "scan/scan_recon.png"}
    everything = {"save_complex": True, "save_numpy": True, "dicom": DicomWriter("MR", "disinr")}
    write(writer(tmp_path, **everything))
    assert files(tmp_path) == {
        "scan/scan_recon.nii.gz", "scan/scan_recon.png", "scan/scan_recon_complex.nii.gz", "scan/scan_recon.npy",
        "scan/scan_recon_complex.npy", "scan/dicom/scan.dcm",
    }  # fmt: skip
    values = np.load(tmp_path / "scan/scan_recon.npy", allow_pickle=False)
    np.testing.assert_allclose(values, 20 * np.hypot(1, 0.5) * blob().abs(), rtol=1e-5)
    assert values.dtype == np.float32
    stored = nibabel.load(tmp_path / "scan/scan_recon_complex.nii.gz")
    assert stored.get_data_dtype() == np.complex64
    np.testing.assert_array_equal(stored.affine, AFFINE)
    complex_values = np.load(tmp_path / "scan/scan_recon_complex.npy")
    np.testing.assert_array_equal(np.asarray(stored.dataobj)[..., 0], complex_values)
    np.testing.assert_allclose(complex_values, 20 * (1 + 0.5j) * blob(), rtol=1e-5)


def test_results_of_an_earlier_run_do_not_stay_beside_the_new_ones(tmp_path):
    write(writer(tmp_path, save_numpy=True, dicom=DicomWriter("MR", "disinr")))
    (tmp_path / "scan" / "segmentation.nii.gz").write_text("the user's own")
    write(writer(tmp_path))
    assert files(tmp_path) == {"scan/scan_recon.nii.gz", "scan/scan_recon.png", "scan/segmentation.nii.gz"}


@pytest.mark.parametrize("fails", ["png", "dicom"])
def test_a_failing_case_leaves_nothing(tmp_path, monkeypatch, fails):
    options, more = {}, {}
    if fails == "dicom":
        options["dicom"] = DicomWriter("MR", "disinr")
        more["affine"] = AFFINE + np.eye(4, k=1) * [0, 1, 0, 0]
        expected = pytest.raises(InputError, match="perpendicular")
    else:
        monkeypatch.setattr(
            "disinr_monai.output.write_case.save_panels", lambda *_: (_ for _ in ()).throw(OSError(28, "No space left"))
        )
        expected = pytest.raises(InputError, match=r"output_dir: cannot write to .* \(No space left\)")
    with expected:
        write(writer(tmp_path, **options), **more)
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_was_there_keeps_its_files_when_the_new_ones_fail(tmp_path):
    (tmp_path / "scan").mkdir()
    (tmp_path / "scan" / "old").write_text("old")

    def fail() -> None:
        with staged_folder(tmp_path / "scan") as folder:
            (folder / "old").write_text("new")
            raise RuntimeError("stop")

    with pytest.raises(RuntimeError, match="stop"):
        fail()
    assert (tmp_path / "scan" / "old").read_text() == "old"
    assert len(list(tmp_path.iterdir())) == 1


def test_ct_reference_and_result_are_in_hounsfield_units():
    to = writer(None, "ct")
    one = case(image_scale=1.0, output_scale=1.0, reference=torch.full((1, 3, 3), 1000 / 1200))
    np.testing.assert_allclose(to.reference(one), 0.0, atol=1e-4)
    np.testing.assert_allclose(to.physical(one, torch.zeros(1, 3, 3)), -1000.0)
    assert to.reference(case()) is None
