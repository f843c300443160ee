"""Full, read-only, vanishing and shared output folders."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from disinr_monai.errors import InputError
from disinr_monai.output.write_case import write_nifti
from disinr_monai.runtime.files import atomic_path, claim_output_dir
from tests.faults.record import record

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def small_disk(tmp_path):
    """A file system of 1 MB."""
    folder = tmp_path / "disk"
    folder.mkdir()
    if shutil.which("mount") is None or os.geteuid() != 0:
        pytest.skip("mounting a small tmpfs needs root")
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(folder)], capture_output=True).returncode:
        pytest.skip("tmpfs cannot be mounted here")
    yield folder
    subprocess.run(["mount", "-o", "remount,rw", str(folder)], capture_output=True)
    subprocess.run(["umount", "-l", str(folder)], check=True)


def test_full_disk_leaves_the_old_file_and_nothing_else(small_disk):
    path = small_disk / "model.pt"
    with atomic_path(path) as temporary:
        torch.save({"a": torch.zeros(10)}, temporary)
    for write in (
        lambda p: torch.save({"a": torch.randn(2_000_000)}, p),
        lambda p: p.write_bytes(os.urandom(3_000_000)),
    ):
        with pytest.raises(InputError, match=r"model\.pt: cannot be written \(.*; free some space"):
            with atomic_path(path) as temporary:
                write(temporary)
    assert [p.name for p in small_disk.iterdir()] == ["model.pt"]
    assert torch.equal(torch.load(path, weights_only=True)["a"], torch.zeros(10))
    record("disk full while writing", 2, 2, "the file being written")


def test_full_disk_while_a_nifti_is_written(small_disk):
    image = torch.from_numpy(np.random.default_rng(0).normal(size=(800, 800)))
    with pytest.raises(InputError, match=r"recon\.nii\.gz: cannot be written"):
        write_nifti(small_disk / "recon.nii.gz", image, np.eye(4))
    assert not list(small_disk.iterdir())
    record("disk full while writing", 1, 1)


def test_read_only_folder(small_disk):
    subprocess.run(["mount", "-o", "remount,ro", str(small_disk)], check=True)
    with pytest.raises(InputError, match=r"x\.txt: cannot be written \(Read-only file system\)"):
        with atomic_path(small_disk / "x.txt") as temporary:
            temporary.write_text("x")


def test_folder_that_vanishes(tmp_path):
    folder = tmp_path / "out"
    folder.mkdir()

    def write() -> None:
        with atomic_path(folder / "x.txt") as temporary:
            shutil.rmtree(folder)
            temporary.write_text("x")

    with pytest.raises(InputError, match=r"x\.txt: cannot be written \(No such file or directory\)"):
        write()


def _claim(folder: Path, then: str = "") -> subprocess.Popen:
    code = (
        "import sys; from disinr_monai.errors import InputError\n"
        "from disinr_monai.runtime.files import claim_output_dir\n"
        f"try: claim_output_dir({str(folder)!r}); print('mine', flush=True)\n"
        f"except InputError as e: print(e, flush=True); sys.exit(3)\n{then}"
    )
    return subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True, cwd=ROOT)


def test_two_jobs_in_one_folder(tmp_path):
    first = _claim(tmp_path, "sys.stdin.read(); import time; time.sleep(60)")
    assert first.stdout.readline() == "mine\n"
    second = _claim(tmp_path)
    said, _ = second.communicate(timeout=60)
    assert second.returncode == 3
    assert said == f"output_dir: {tmp_path} is in use by another run; wait for it to end or give another folder\n"
    first.kill()  # the lock goes with its process
    first.wait()
    third = _claim(tmp_path)
    assert third.communicate(timeout=60)[0] == "mine\n"
    record("second job in one output folder", 1, 1)


def test_one_process_may_go_on_in_its_folder(tmp_path):
    claim_output_dir(tmp_path)
    claim_output_dir(tmp_path)
    shutil.rmtree(tmp_path)
    tmp_path.mkdir()
    claim_output_dir(tmp_path)
    assert not list(tmp_path.iterdir())


def test_half_written_files_of_a_kill_go_with_the_next_run(tmp_path):
    for name in (".metrics-u1nggscs.csv", ".report-abcd_123.html", ".private_resume_checkpoint-abcd_123.pt"):
        (tmp_path / name).write_text("half")
    kept = {".metrics_rank1-u1nggscs.csv", ".hidden", "metrics-u1nggscs.csv", ".users-settings.json"}
    for name in kept:
        (tmp_path / name).write_text("whole")
    claim_output_dir(tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == kept
