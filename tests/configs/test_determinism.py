"""The same seed gives the same result, bit for bit on one machine and thread count, closely on others."""

import os
import subprocess
import sys

import nibabel
import numpy as np
import pytest
import torch

from disinr_monai.data.simulate.phantoms import write_phantoms
from tests.conftest import ROOT

# What an older processor lacks: the instructions, and with them the order of sums and the way of rounding, are others.
OLD_PROCESSOR = {"ATEN_CPU_CAPABILITY": "avx2", "ONEDNN_MAX_CPU_ISA": "AVX2", "MKL_ENABLE_INSTRUCTIONS": "AVX2"}


def start(run_id: str, configs: tuple[str, ...], data, out, threads: int, processor=None, **options: object) -> None:
    files = [f"configs/{name}.json" for name in configs]
    command = [sys.executable, "-m", "monai.bundle", "run", run_id, "--config_file", str(files)]
    options = {"dataset_dir": data, "output_dir": out, "quiet": "true", "image_size": 64, **options}
    command += [str(word) for key, value in options.items() for word in (f"--{key}", value)]
    environment = {**os.environ, "OMP_NUM_THREADS": str(threads), **(processor or {})}
    result = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=600)
    assert result.returncode == 0, result.stderr[-2000:]


def reconstruct(data, out, threads: int, *overlays: str, processor: dict[str, str] | None = None) -> np.ndarray:
    options = {"amp": "false"} if processor else {}  # what `amp: null` means there
    start("inference", ("inference", *overlays), data, out, threads, processor, **options)
    (file,) = out.glob("*/*_recon.nii.gz")
    return nibabel.load(file).get_fdata()


# Root mean square difference of images as a share of their range. Two threads of one machine gave none at all; with
# more, sums are split elsewhere. Without AMX the learned prior differed by 0.0002 and fields fitted from scratch by
# 0.001 (MRI) and 0.013 (CT, 0.4 dB): each rounding sends such a fit to another end.
TOLERANCE = 0.005
TOLERANCE_FROM_SCRATCH = 0.03


@pytest.mark.slow
@pytest.mark.parametrize("overlays", [("ct",), ("ct", "ngp"), ("mri",), ("mri", "ngp")], ids="-".join)
def test_same_seed_same_image(tmp_path, overlays):
    write_phantoms(tmp_path / "data", overlays[0], n_subjects=1, size=64, seed=3)
    first = reconstruct(tmp_path / "data", tmp_path / "a", 1, *overlays)
    second = reconstruct(tmp_path / "data", tmp_path / "b", 1, *overlays)
    assert np.array_equal(first, second)
    other = reconstruct(tmp_path / "data", tmp_path / "c", 2, *overlays)
    scale = 1200 if overlays[0] == "ct" else first.max()  # HU of the images; magnitude
    difference = np.sqrt(np.mean((first - other) ** 2)) / scale
    print(f"{overlays}: {difference:.2e} of the range between one thread and two")
    assert difference < TOLERANCE
    other = reconstruct(tmp_path / "data", tmp_path / "d", 1, *overlays, processor=OLD_PROCESSOR)
    difference = np.sqrt(np.mean((first - other) ** 2)) / scale
    print(f"{overlays}: {difference:.2e} of the range without the instructions after AVX2")
    assert difference < (TOLERANCE_FROM_SCRATCH if "ngp" in overlays else TOLERANCE)


@pytest.mark.slow
@pytest.mark.parametrize("modality", ["ct", "mri"])
def test_same_seed_same_checkpoint(tmp_path, modality):
    write_phantoms(tmp_path / "data", modality, n_subjects=2, size=64, seed=3)
    for out, threads in (("a", 1), ("b", 1), ("c", 2)):
        start("training", ("train", modality, "quick"), tmp_path / "data", tmp_path / out, threads)
    one, two, three = (torch.load(tmp_path / out / "model.pt", weights_only=True)["model"] for out in "abc")
    assert one.keys() == two.keys()
    assert all(torch.equal(one[name], two[name]) for name in one)
    furthest = max(float((one[name].float() - three[name].float()).abs().max()) for name in one)
    print(f"{modality}: weights differ by {furthest:.2e} at most between one thread and two")
    assert furthest < 0.05
