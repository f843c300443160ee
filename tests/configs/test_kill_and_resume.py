"""SIGKILL in the middle of pre-training, then `--resume true`: the same weights as an uninterrupted run."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from disinr_monai.data.simulate.phantoms import write_phantoms
from tests.conftest import ROOT

CONFIG = "['configs/train.json','configs/mri.json']"
OPTIONS = ["--image_size", "32", "--acs", "12", "--max_epochs", "6", "--checkpoint_seconds", "0", "--amp", "false"]


def start(data: Path, out: Path, *more: str) -> subprocess.Popen:
    command = [sys.executable, "-m", "monai.bundle", "run", "training", "--config_file", CONFIG, *OPTIONS]
    command += ["--dataset_dir", str(data), "--output_dir", str(out), "--quiet", "true", *more]
    return subprocess.Popen(command, cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)


def finish(process: subprocess.Popen) -> None:
    _, error = process.communicate(timeout=600)
    assert process.returncode == 0, error[-2000:]


@pytest.mark.slow
def test_killed_and_resumed_equals_uninterrupted(tmp_path):
    data = tmp_path / "data"
    write_phantoms(data, "mri", n_subjects=4, size=32, seed=3)
    finish(start(data, tmp_path / "whole"))

    killed = start(data, tmp_path / "killed")
    checkpoint = tmp_path / "killed" / "private_resume_checkpoint.pt"
    writes, last, deadline = 0, 0, time.monotonic() + 300
    while writes < 3 and time.monotonic() < deadline and killed.poll() is None:
        stamp = checkpoint.stat().st_mtime_ns if checkpoint.exists() else 0
        writes, last = writes + (stamp != last), stamp
        time.sleep(0.01)
    assert killed.poll() is None, "it ended before it could be killed"
    os.kill(killed.pid, signal.SIGKILL)
    killed.wait()
    assert not (tmp_path / "killed" / "model.pt").exists()

    finish(start(data, tmp_path / "killed", "--resume", "true"))
    whole, resumed = (
        torch.load(tmp_path / name / "private_resume_checkpoint.pt", weights_only=True) for name in ("whole", "killed")
    )
    assert whole["trainer"]["iteration"] == resumed["trainer"]["iteration"] == 24
    for name, tensor in whole["network"].items():
        torch.testing.assert_close(resumed["network"][name], tensor, rtol=0, atol=1e-6)
    models = [torch.load(tmp_path / name / "model.pt", weights_only=True)["model"] for name in ("whole", "killed")]
    for name, tensor in models[0].items():
        torch.testing.assert_close(models[1][name], tensor, rtol=0, atol=1e-6)


@pytest.mark.slow
def test_mistyped_override_on_the_command_line(tmp_path):
    write_phantoms(tmp_path / "data", "mri", n_subjects=1, size=32, seed=3)
    process = start(tmp_path / "data", tmp_path / "out", "--max_epoch", "3")
    _, error = process.communicate(timeout=300)
    assert process.returncode == 1
    assert (
        error.strip().splitlines()[-1]
        == "error: max_epoch: no such key in the configs of this run; did you mean 'max_epochs'?"
    )
    assert "Traceback" not in error
    assert not (tmp_path / "out").exists()
