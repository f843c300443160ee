"""Memory runs out: one line, the other scans are done, nothing half-written."""

import os
import subprocess
import sys

import nibabel
import numpy as np
import pytest
import torch

from disinr_monai.data import SkipFailed
from disinr_monai.data.simulate.phantoms import write_phantoms
from disinr_monai.errors import InputError
from disinr_monai.fitting.adaptation import AdaptationInferer
from disinr_monai.fitting.losses import MeasurementLoss
from disinr_monai.handlers import SaveCases
from disinr_monai.runtime.memory import in_parts, is_out_of_memory, needs_less, out_of_memory
from tests.configs.test_volume import AFFINE, volume
from tests.conftest import ROOT
from tests.engines import evaluator
from tests.faults.record import record
from tests.problems import changed, mri_case, small_network

CUDA = "CUDA out of memory. Tried to allocate 2.00 GiB. GPU 0 has a total capacity of 7.79 GiB of which 1.2 GiB is free"


@pytest.mark.parametrize(
    ("take", "asked"),
    [
        (lambda: torch.empty(2**52), " (1.8e+07 GB more were asked for)"),
        (lambda: np.empty(2**51), " (1.8e+07 GB more were asked for)"),
        (lambda: [0] * 2**56, ""),
    ],
)
def test_real_errors_are_known(take, asked):
    with pytest.raises((RuntimeError, MemoryError)) as caught:
        take()
    assert is_out_of_memory(caught.value)
    assert str(out_of_memory(caught.value, "scan-1")).startswith(f"scan-1: memory ran out{asked}; ")


def test_other_errors_are_not_taken_for_it():
    assert not is_out_of_memory(RuntimeError("shapes do not match"))
    assert not is_out_of_memory(OSError(2, "No such file"))
    assert is_out_of_memory(OSError(12, "Cannot allocate memory"))


def test_only_options_of_the_run_are_case():
    training = {"train": {}, "image_size": 64, "batch_size": "4", "slices_per_subject": 4, "subjects_on_disk": False}
    assert needs_less(training) == (
        "what needs less: a smaller --image_size (simulated scans), --batch_size 1, --slices_per_subject 1, "
        "--subjects_on_disk true"
    )
    assert "--max_voxels" in needs_less({"max_voxels": 5})
    assert "--device cpu" in str(out_of_memory(torch.OutOfMemoryError(CUDA), "x"))
    assert needs_less({}) == "use a smaller image or a machine with more memory"


def test_the_field_is_drawn_in_smaller_parts_where_it_does_not_fit(monkeypatch):
    """Raised by hand: no test can rely on how much memory a machine has."""
    network, points = small_network(), mri_case()["points"]
    expected, sizes, render = network.image(points), [], network.render

    def limited(flat, prepared=None, subject=0):
        sizes.append(len(flat))
        if len(flat) > 300:
            raise torch.OutOfMemoryError(CUDA)
        return render(flat, prepared, subject)

    monkeypatch.setattr(network, "render", limited)
    with pytest.raises(torch.OutOfMemoryError):
        network.image(points)
    assert sizes[0] == points[0].numel()
    monkeypatch.setattr("disinr_monai.runtime.memory._SMALLEST_PART", 256)
    torch.testing.assert_close(network.image(points), expected)
    assert in_parts(lambda size: size, 5) == 5


class Greedy(torch.nn.Module):
    """An operator that fails as one on a full GPU does; raised by hand, there is none here."""

    def __init__(self, operator):
        super().__init__()
        self.operator = operator

    def __getattr__(self, name):
        try:
            return super().__getattr__(name)
        except AttributeError:
            return getattr(self.operator, name)

    def forward(self, image):
        raise torch.OutOfMemoryError(CUDA)


def evaluate(folder, cases, **options):
    inferer = AdaptationInferer(MeasurementLoss(), n_iterations=2, quiet=True)
    with pytest.raises(InputError) as caught:
        evaluator(cases, inferer, [SaveCases(str(folder), inferer, "mri", **options)]).run()
    return str(caught.value)


def case(i: int) -> dict:
    return mri_case(shift=0.02 * i, seed=i, index=i) | {"path": f"blob-{i}.h5"}


def test_one_scan_does_not_fit_on_the_gpu(tmp_path):
    cases = [case(i) for i in range(3)]
    cases[1] = changed(cases[1], operator=Greedy(cases[1]["scan"].operator))
    told = evaluate(tmp_path, cases)
    assert told.startswith("1 of 3 scans failed: blob-1: GPU memory ran out (2.15 GB more were asked for); ")
    assert "--device cpu" in told
    assert sorted(p.name for p in tmp_path.iterdir()) == ["blob-0", "blob-2", "metrics.csv"]
    record("one scan does not fit into GPU memory (raised by hand)", 1, 1, "that scan")


def test_one_scan_does_not_fit_while_it_is_read(tmp_path):
    def acquire(listed):
        if listed["name"] == "blob-1":
            torch.empty(2**52)
        return dict(listed)

    told = evaluate(tmp_path, [SkipFailed(acquire)(case(i)) for i in range(3)])
    assert told.startswith("1 of 3 scans failed: blob-1: memory ran out (")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["blob-0", "blob-2", "metrics.csv"]
    record("one scan does not fit into memory", 1, 1, "that scan")


def test_the_result_does_not_fit_at_its_voxel_size(tmp_path, monkeypatch):
    monkeypatch.setattr(AdaptationInferer, "at", lambda self, points, image: torch.empty(2**52))
    told = evaluate(tmp_path, [case(0)], output_spacing=1.0)
    assert "blob-0: memory ran out (" in told
    assert not list(tmp_path.iterdir())


LIMITED = """
import resource, runpy, sys
import torch, monai.bundle, mlflow, disinr_monai.handlers, disinr_monai.data
more = int(sys.argv.pop(1))
size = next(int(line.split()[1]) * 1024 for line in open("/proc/self/status") if line.startswith("VmSize"))
resource.setrlimit(resource.RLIMIT_AS, (size + more, size + more))
sys.argv[0] = "monai.bundle"
runpy.run_module("monai.bundle", run_name="__main__", alter_sys=True)
"""


def limited(more: float, phase: str, overlays: list[str], *options: str) -> subprocess.CompletedProcess:
    """``python -m monai.bundle run`` with so many bytes of address space more than it has after its imports."""
    files = str([str(ROOT / "configs" / f"{name}.json") for name in overlays])
    command = [sys.executable, "-c", LIMITED, str(int(more)), "run", phase, "--config_file", files, "--device", "cpu"]
    env = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    return subprocess.run([*command, *options], capture_output=True, text=True, env=env, cwd=ROOT, timeout=600)


@pytest.fixture(scope="module")
def volumes(tmp_path_factory):
    """Three scans, of which the middle one is large."""
    folder = tmp_path_factory.mktemp("volumes")
    for i, shape in enumerate([(24, 20, 16), (300, 300, 280), (20, 20, 20)]):
        values = np.broadcast_to(volume((*shape[:2], 1)), shape) if i == 1 else volume(shape)
        nibabel.save(nibabel.Nifti1Image(np.asarray(values, dtype=np.int16), AFFINE), folder / f"scan-{i}.nii.gz")
    return folder


@pytest.mark.slow
@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="limits of address space are Linux's")
@pytest.mark.parametrize("more", [0.5e9, 1.4e9])
def test_inference_of_a_batch(volumes, tmp_path, more):
    """At two limits: memory is full at different steps of the large scan."""
    done = limited(
        more, "inference", ["inference", "volume", "ngp"], "--dataset_dir", str(volumes), "--output_dir", str(tmp_path),
        "--n_iterations", "3", "--points_per_step", "1000", "--max_voxels", "1000000000",
        "--encoder#log2_hashmap_size", "12", "--encoder#n_levels", "5",
    )  # fmt: skip
    assert done.returncode != 0
    told = done.stderr.strip().splitlines()[-1]
    assert told.startswith("error: 1 of 3 scans failed: scan-1: memory ran out (")
    assert "a smaller --max_voxels" in told
    assert "Traceback" not in done.stdout + done.stderr
    assert {p.name for p in tmp_path.iterdir()} == {
        "metrics.csv",
        "report.html",
        "mlruns.db",
        "mlruns",
        "scan-0",
        "scan-2",
    }
    record("memory full during inference (limit of address space)", 1, 1, "that scan")


@pytest.mark.slow
@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="limits of address space are Linux's")
@pytest.mark.parametrize("modality", ["mri", "ct"])
def test_training(tmp_path, modality):
    write_phantoms(tmp_path / "scans", modality, n_subjects=2, size=64)
    done = limited(
        0.7e9, "training", ["train", modality], "--dataset_dir", str(tmp_path / "scans"),
        "--output_dir", str(tmp_path / "out"), "--image_size", "2400", "--max_epochs", "1",
    )  # fmt: skip
    assert done.returncode != 0
    told = done.stderr.strip().splitlines()[-1]
    assert told.startswith("error: phantom-000: memory ran out (")
    assert "a smaller --image_size" in told
    assert "Traceback" not in done.stdout + done.stderr
    assert not list((tmp_path / "out").glob("*"))
    record("memory full during pre-training (limit of address space)", 1, 1, "the run")
