from __future__ import annotations

from unittest import mock

import numpy as np
import pytest
from monai.bundle import ConfigWorkflow

from disinr_monai.data import list_cases
from disinr_monai.data.readers.reader import READERS
from disinr_monai.data.simulate.mri import simulate_kspace
from disinr_monai.data.simulate.phantoms import brain_phantom
from disinr_monai.errors import InputError


def test_add_a_file_format(own_code, tmp_path):
    scan = simulate_kspace(brain_phantom(32, np.random.default_rng(0)), n_coils=3)
    folder = tmp_path / "new"
    folder.mkdir()
    np.savez(folder / "scan.npz", kspace=np.stack([scan.kspace] * 3), voxel_mm=[2.0, 2.0, 5.0])
    with pytest.raises(InputError, match=r"found 1 others \(.npz\)"):
        list_cases(folder, "mri")
    with mock.patch.dict(READERS):
        own_code("how-to/add-a-file-format.md", "npz_kspace")
        assert READERS["npz_kspace"].name == "NumPy k-space"
        np.savez(tmp_path / "other.npz", image=np.ones(3))
        with pytest.raises(InputError, match=r"other\.npz: expected `kspace` in a \.npz file"):
            list_cases(tmp_path / "other.npz", "mri")
        workflow = ConfigWorkflow(
            [str(tmp_path / "configs" / f"{name}.json") for name in ("inference", "mri", "ngp", "npz_kspace")],
            workflow_type="infer",
            logging_file=False,
            dataset_dir=str(folder),
            output_dir=str(tmp_path / "out"),
            acs=12,
            slices_per_subject=2,
            n_iterations=2,
            device="cpu",
            quiet=True,
        )
        workflow.initialize()
        workflow.run()
        workflow.finalize()
    rows = (tmp_path / "out" / "metrics.csv").read_text().splitlines()
    assert [row.split(",")[0] for row in rows[1:]] == ["scan_s001", "scan_s002"]
    assert "read as NumPy k-space" in (tmp_path / "out" / "report.html").read_text()
