"""The same seed gives the same result, bit for bit on one machine and thread count, closely on others."""

from __future__ import annotations

import subprocess
import sys

import nibabel
import numpy as np
import pytest

from disinr_monai.data.phantoms import write_phantoms
from tests.conftest import ROOT


def reconstruct(data, out, threads: int, *overlays: str) -> np.ndarray:
    configs = [f"configs/{name}.json" for name in ("inference", "ct", *overlays)]
    command = [sys.executable, "-m", "monai.bundle", "run", "inference", "--config_file", str(configs)]
    command += ["--dataset_dir", str(data), "--output_dir", str(out), "--quiet", "true", "--image_size", "64"]
    environment = {**__import__("os").environ, "OMP_NUM_THREADS": str(threads)}
    result = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=600)
    assert result.returncode == 0, result.stderr[-2000:]
    (file,) = out.glob("*/*_recon.nii.gz")
    return nibabel.load(file).get_fdata()


@pytest.mark.slow
@pytest.mark.parametrize("overlays", [(), ("ngp",)], ids=["shipped prior", "ngp"])
def test_same_seed_same_image(tmp_path, overlays):
    write_phantoms(tmp_path / "data", "ct", n_subjects=1, size=64, seed=3)
    first = reconstruct(tmp_path / "data", tmp_path / "a", 1, *overlays)
    second = reconstruct(tmp_path / "data", tmp_path / "b", 1, *overlays)
    assert np.array_equal(first, second)
    other = reconstruct(tmp_path / "data", tmp_path / "c", 2, *overlays)
    # Sums in another order; 1200 HU are the range of the images.
    assert np.sqrt(np.mean((first - other) ** 2)) < 0.005 * 1200
