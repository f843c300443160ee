"""The reports themselves, where their folder is present: what was typed and what lies in the folder (12 and 25)."""

import nibabel
import pytest

from disinr_monai.data import list_cases
from tests import runs


@pytest.mark.parametrize("name", ["data#2", "50% dose?x=1", "Größe münchen"])
def test_12_the_folder_that_was_typed_is_read(report, name):
    """The scan of `data` is ten times weaker than the others: the maximum tells which was read."""
    folder = report(12)
    for source, output in ((name, f"out {name}"), ("data", "plain")):
        assert not runs.infer(folder / source, folder / output, "mri", quiet=True)
    typed, plain = (
        nibabel.load(folder / output / "scan" / "scan_recon.nii.gz").get_fdata().max()
        for output in (f"out {name}", "plain")
    )
    assert typed == pytest.approx(10 * plain, rel=0.05)


def test_25_results_inside_the_data_are_no_scans(report):
    folder = report(25)
    for _ in range(2):
        assert not runs.infer(folder, folder / "out", "ct", quiet=True, save_numpy=True)
        assert [case["name"] for case in list_cases(folder, "ct")] == ["chest"]
