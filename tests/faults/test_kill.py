"""SIGKILL at random moments of pre-training, adaptation and saving."""

import csv
import multiprocessing
import os
import random
import shutil
import signal
import time
from pathlib import Path

import nibabel
import numpy as np
import pytest
import torch
from PIL import Image

from disinr_monai.checkpoints.released import read_checkpoint
from disinr_monai.handlers.resume import FILE_NAME
from tests.faults import jobs
from tests.faults.record import record

EPOCHS = 6


@pytest.fixture(scope="module")
def processes():
    """Processes that start with everything imported and nothing running."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["tests.faults.jobs", "tests.engines", "disinr_monai.handlers"])
    return context


def run(processes, target, *arguments, kill_after: float | None = None) -> int:
    """Exit code of a job; a negative one if it was killed."""
    process = processes.Process(target=target, args=arguments)
    process.start()
    process.join(kill_after if kill_after is not None else 120)
    if process.is_alive():
        os.kill(process.pid, signal.SIGKILL)
        process.join()
    return process.exitcode


@pytest.fixture(scope="module")
def whole(processes, tmp_path_factory):
    """The uninterrupted run, and how long it and its start take."""
    folder = tmp_path_factory.mktemp("whole")
    started = time.monotonic()
    assert run(processes, jobs.pretrain, str(folder), False, EPOCHS) == 0
    return torch.load(folder / FILE_NAME, weights_only=True), time.monotonic() - started


def trials(n_default: int, n_slow: int):
    return [
        pytest.param(range(n_default), id=f"{n_default} kills"),
        pytest.param(range(n_default, n_slow), id=f"{n_slow - n_default} kills", marks=pytest.mark.slow),
    ]


@pytest.mark.parametrize("seeds", trials(2, 60))
def test_pretraining_survives(processes, whole, tmp_path, seeds):
    expected, seconds = whole
    survived = 0
    for seed in seeds:
        generator = random.Random(seed)
        folder = tmp_path / str(seed)
        folder.mkdir()
        run(processes, jobs.pretrain, str(folder), False, EPOCHS, kill_after=generator.uniform(0, seconds))
        before = _epochs(folder)
        if (folder / "model.pt").exists():
            read_checkpoint(folder / "model.pt")
        # Again while it resumes, then to its end.
        run(processes, jobs.pretrain, str(folder), True, EPOCHS, kill_after=generator.uniform(0, seconds))
        assert _epochs(folder) >= before, "a checkpoint went backwards"
        assert run(processes, jobs.pretrain, str(folder), True, EPOCHS) == 0
        found = torch.load(folder / FILE_NAME, weights_only=True)
        for name, tensor in expected["network"].items():
            torch.testing.assert_close(found["network"][name], tensor, rtol=0, atol=1e-6)
        assert {p.name for p in folder.iterdir()} == {FILE_NAME, "model.pt"}
        survived += 1
        shutil.rmtree(folder)
    record("SIGKILL during pre-training, twice each", len(seeds), survived, "at most one checkpoint interval")


def _epochs(folder: Path) -> int:
    """Epochs in the resume checkpoint, which must be whole if it is there."""
    file = folder / FILE_NAME
    return torch.load(file, weights_only=True)["trainer"]["iteration"] // 3 if file.exists() else 0


@pytest.mark.parametrize("seeds", trials(2, 40))
def test_saving_survives(processes, tmp_path, seeds):
    n_cases, survived, seen = 6, 0, 0
    started = time.monotonic()
    assert run(processes, jobs.reconstruct, str(tmp_path / "whole"), n_cases) == 0
    seconds = time.monotonic() - started
    for seed in seeds:
        folder = tmp_path / str(seed)
        run(processes, jobs.reconstruct, str(folder), n_cases, kill_after=random.Random(seed).uniform(0, seconds))
        seen += _check_results(folder)
        assert run(processes, jobs.reconstruct, str(folder), n_cases) == 0
        assert _check_results(folder) == n_cases
        assert not [p for p in folder.iterdir() if p.name.startswith(".")], "remains of the kill"
        survived += 1
        shutil.rmtree(folder)
    assert seen > 0 or len(seeds) < 10, "no kill came after a first result: the test proves nothing"
    record("SIGKILL during adaptation and saving", len(seeds), survived, "the scan in progress")


def _check_results(folder: Path) -> int:
    """Every file that has its final name is whole; number of images."""
    images = sorted(folder.glob("[!.]*/[!.]*.nii.gz"))
    for file in images:
        assert np.isfinite(nibabel.load(file).get_fdata()).all()
    for file in folder.glob("[!.]*/[!.]*.png"):
        Image.open(file).load()
    table = folder / "metrics.csv"
    if table.exists():
        rows = list(csv.DictReader(table.open()))
        assert all(row["case"] and row["seconds"] for row in rows)
    return len(images)
