"""Processes that torchrun starts with the configs give what one gives, and survive what one survives."""

import os
import signal
import subprocess
import time
from pathlib import Path

import pytest
import torch

from disinr_monai.data.simulate.phantoms import write_phantoms
from disinr_monai.handlers.resume import FILE_NAME
from tests.conftest import ROOT
from tests.engines import rows_of
from tests.processes import ENV, TOLERANCE, TRAIN, command, largest_difference, released, run, subjects

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def phantoms(tmp_path_factory):
    folders = {n: tmp_path_factory.mktemp(f"subjects{n}") for n in (5, 8)}
    for n, folder in folders.items():
        write_phantoms(folder, "mri", n_subjects=n, size=32, seed=3)
    return folders


@pytest.mark.parametrize("n_subjects", [8, 5])
def test_two_and_four_processes_give_what_one_gives(tmp_path, phantoms, n_subjects):
    more = ["--batch_size", "4", "--max_epochs", "6"]
    run(0, "training", phantoms[n_subjects], tmp_path / "0", *more)
    for n in (1, 2, 4):
        run(n, "training", phantoms[n_subjects], tmp_path / str(n), *more)
        pair = largest_difference(released(tmp_path / str(n)), released(tmp_path / "0"))
        own = largest_difference(subjects(tmp_path / str(n)), subjects(tmp_path / "0"))
        print(f"{n_subjects} subjects, {n} processes: pair {pair:.1e}, subject encoders {own:.1e}")
        assert max(pair, own) <= (0 if n == 1 else TOLERANCE)
        assert len(list((tmp_path / str(n)).glob("private_*"))) == (1 if n == 1 else n + 1)
    # Every case has its own encoder, and no two are alike.
    tables = [value for name, value in subjects(tmp_path / "4").items() if name.endswith("grid.table")]
    assert len(tables) == n_subjects
    assert not any(torch.equal(tables[0], other) for other in tables[1:])


def workers_of(pid: int) -> list[int]:
    """The processes that torchrun started."""
    found = [int(child) for task in Path(f"/proc/{pid}/task").iterdir() for child in _read(task / "children").split()]
    return sorted(child for child in found if "monai.bundle" in _read(Path(f"/proc/{child}/cmdline")))


def is_running(pid: int) -> bool:
    state = _read(Path(f"/proc/{pid}/stat")).rpartition(")")[2].split()
    return bool(state) and state[0] != "Z"


def _read(path: Path) -> str:
    try:
        return path.read_text()
    except OSError:
        return ""


def test_a_killed_process_ends_the_job_and_other_numbers_resume_it(tmp_path, phantoms):
    more = ["--batch_size", "4", "--max_epochs", "60"]
    run(0, "training", phantoms[8], tmp_path / "whole", *more)
    out = tmp_path / "killed"
    words = command(2, "training", phantoms[8], out, *more)
    pipes = {"stdout": subprocess.DEVNULL, "stderr": subprocess.PIPE}
    job = subprocess.Popen(words, cwd=ROOT, text=True, env=ENV, **pipes)
    deadline = time.monotonic() + 200
    while not (out / FILE_NAME).exists() and job.poll() is None and time.monotonic() < deadline:
        time.sleep(0.02)
    assert job.poll() is None, job.stderr.read()[-3000:]
    workers = workers_of(job.pid)
    assert len(workers) == 2
    os.kill(workers[-1], signal.SIGKILL)
    started = time.monotonic()
    _, error = job.communicate(timeout=120)
    assert job.returncode != 0, error[-2000:]
    assert time.monotonic() - started < 90
    assert not any(is_running(worker) for worker in workers)  # the other one has ended too
    assert not (out / "model.pt").exists()

    done = torch.load(out / FILE_NAME, weights_only=True)["trainer"]["iteration"]
    assert 0 < done < 120
    error = run(2, "training", phantoms[8], out, "--max_epochs", "60", "--resume", "true", expect=1)
    assert "was written with batch_size = 4, this run has 2" in error
    run(4, "training", phantoms[8], out, *more, "--resume", "true")
    assert largest_difference(released(out), released(tmp_path / "whole")) < 2 * TOLERANCE
    assert largest_difference(subjects(out), subjects(tmp_path / "whole")) < 2 * TOLERANCE


def test_scans_are_shared_out_and_a_bad_one_is_survived(tmp_path, phantoms):
    run(0, "training", phantoms[5], tmp_path / "pair", "--max_epochs", "1")
    data = tmp_path / "data"
    write_phantoms(data, "mri", n_subjects=5, size=32, seed=9)
    (data / "broken.h5").write_bytes(b"not a scan")
    more = ["--checkpoint", str(tmp_path / "pair" / "model.pt"), "--n_iterations", "5"]
    tables = {}
    for n in (0, 2, 4):
        out = tmp_path / str(n)
        error = run(n, "evaluate", data, out, *more, "--baselines", "{}", expect=1)
        assert error.count("error: 1 of 6 scans failed") == 1
        tables[n] = [(row["case"], row["psnr"]) for row in rows_of(out)]
        assert not list(out.glob("metrics_rank*"))
        assert len(list(out.glob("*/*_recon.nii.gz"))) == 5
    assert len(tables[0]) == 5
    assert tables[0] == tables[2] == tables[4]


def test_the_learned_prior_is_trained_by_two_processes(tmp_path, phantoms):
    prior = ["--config_file", f"[{TRAIN},'configs/prior.json','configs/multi_gpu_train.json']", "--max_epochs", "1"]
    prior += ["--network_def#prior#widths", "[8,12]", "--n_splits", "1", "--variations", "{}"]
    run(2, "training", phantoms[5], tmp_path / "out", *prior)
    names = released(tmp_path / "out").keys()
    assert any(name.startswith("shared.prior.") for name in names)
