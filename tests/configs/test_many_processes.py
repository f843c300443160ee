"""Processes on the CPU: each has its own subjects, all have the same shared pair, and together they are one run."""

from __future__ import annotations

import csv
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from unittest import mock

import pytest
import torch
import torch.multiprocessing
from ignite.engine import Engine
from monai.engines import IterationEvents, SupervisedTrainer
from monai.handlers import LrScheduleHandler
from torch.utils.data import DataLoader

from disinr_monai.checkpoints.named_state import to_global
from disinr_monai.data import EpochSampler, list_cases
from disinr_monai.data.simulate.phantoms import write_phantoms
from disinr_monai.errors import InputError
from disinr_monai.fitting.losses import MeasurementLoss
from disinr_monai.fitting.prepare_batch import collate_cases, prepare_training_batch
from disinr_monai.handlers import AverageSharedGradients, ResumeCheckpoint, SaveShared
from disinr_monai.handlers.resume import FILE_NAME
from disinr_monai.networks import DisINR
from disinr_monai.runtime import distributed
from disinr_monai.runtime.distributed import shard
from tests.conftest import ROOT
from tests.problems import mri_case, small_network

TRAIN = "'configs/train.json','configs/mri.json'"
SMALL = ["--encoder#n_levels", "4", "--encoder#log2_hashmap_size", "10", "--encoder#n_features_per_level", "2"]
SMALL += ["--encoder#out_dim", "16", "--encoder#hidden_dim", "16", "--network_def#hidden_dim", "16"]
OPTIONS = ["--image_size", "32", "--acs", "12", "--amp", "false", "--quiet", "true"]
ENV = {**os.environ, "OMP_NUM_THREADS": "1"}
OPTIONS += ["--device", "cpu", *SMALL]


def command(n_processes: int, phase: str, data: Path, out: Path, *more: str) -> list[str]:
    """A bundle command; without torchrun and overlay for ``n_processes`` 0."""
    phases = {"training": ["train"], "evaluate": ["inference", "evaluate"]}.get(phase, [phase])
    configs = [f"'configs/{name}.json'" for name in (*phases, "mri")]
    start = [sys.executable]
    if n_processes:
        configs.append(f"'configs/multi_gpu_{'train' if phase == 'training' else 'evaluate'}.json'")
        start += ["-m", "torch.distributed.run", "--standalone", f"--nproc_per_node={n_processes}"]
    start += ["-m", "monai.bundle", "run", phase, "--config_file", f"[{','.join(configs)}]", *OPTIONS]
    if phase == "training":
        start += ["--checkpoint_seconds", "0"]
    return [*start, "--dataset_dir", str(data), "--output_dir", str(out), *more]


def run(*arguments, expect: int = 0) -> str:
    done = subprocess.run(command(*arguments), cwd=ROOT, capture_output=True, text=True, timeout=900, env=ENV)
    assert done.returncode == expect, done.stderr[-3000:]
    return done.stderr


def released(out: Path) -> dict[str, torch.Tensor]:
    return torch.load(out / "model.pt", weights_only=True)["model"]


def subjects(out: Path) -> dict[str, torch.Tensor]:
    """All subject encoders of a resume checkpoint, by the number of their case."""
    state = torch.load(out / FILE_NAME, weights_only=True)
    for part in state["parts"]:
        state["network"] |= torch.load(out / part, weights_only=True)["network"]
    return {name: value for name, value in state["network"].items() if name.startswith("subjects.")}


def largest_difference(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor]) -> float:
    """Largest relative error of a tensor, in its norm."""
    assert a.keys() == b.keys()
    return max(float((a[k].float() - b[k].float()).norm() / b[k].float().norm().clamp(min=1e-12)) for k in a)


@pytest.fixture(scope="module")
def phantoms(tmp_path_factory):
    folders = {n: tmp_path_factory.mktemp(f"subjects{n}") for n in (5, 8)}
    for n, folder in folders.items():
        write_phantoms(folder, "mri", n_subjects=n, size=32, seed=3)
    return folders


# What the processes do, in this process.


def process(rank: int, world_size: int):
    """As if this were one of many processes."""
    return mock.patch.multiple(distributed, rank=lambda: rank, world_size=lambda: world_size)


@pytest.mark.parametrize(("n_cases", "batch_size"), [(8, 4), (5, 4), (7, 4), (3, 4), (6, 2), (5, 1)])
def test_processes_share_the_batches_of_one(n_cases, batch_size):
    cases = [{"name": str(i), "index": i} for i in range(n_cases)]

    def batches(rank: int, world_size: int) -> list[list[int]]:
        """Global numbers, step by step, without those that count nothing."""
        with process(rank, world_size):
            sampler, own = EpochSampler(cases, 7, batch_size), shard(cases)
        sampler.set_epoch(3)
        order = list(sampler)
        assert len(order) == len(sampler)
        size = batch_size // world_size
        steps = [order[i : i + size] for i in range(0, len(order), size)]
        assert len(steps) == -(-n_cases // batch_size)  # all processes make equally many steps
        shares = [sampler.share(k) for k in range(len(steps))]
        return [[own[i]["index"] for i in step] if share else [] for step, share in zip(steps, shares, strict=True)]

    whole = batches(0, 1)
    assert sorted(i for step in whole for i in step) == list(range(n_cases))
    for world_size in (2, 4):
        if batch_size % world_size or world_size > n_cases:
            continue
        parts = [batches(rank, world_size) for rank in range(world_size)]
        for k, step in enumerate(whole):
            assert sorted(step) == sorted(i for part in parts for i in part[k])
            for rank, part in enumerate(parts):
                with process(rank, world_size):
                    share = EpochSampler(cases, 7, batch_size).share(k)
                assert share == pytest.approx(len(part[k]) / len(step))


def test_one_case_a_step_has_the_order_of_old():
    generator = torch.Generator().manual_seed(7 * 1_000_003 + 1)
    assert list(EpochSampler(range(9), 7)) == torch.randperm(9, generator=generator).tolist()


def test_batch_size_is_for_all_processes():
    with pytest.raises(InputError, match=r"batch_size: expected a multiple of the number of processes \(2\), found 3"):
        with process(0, 2):
            EpochSampler(range(9), 7, 3)


def test_more_processes_than_scans():
    cases = [{"name": str(i), "index": i} for i in range(5)]
    with pytest.raises(InputError, match="at least one scan per process, found 5 for 6"):
        with process(0, 6):
            shard(cases)


def test_list_cases_numbers_them(tmp_path):
    write_phantoms(tmp_path, "mri", n_subjects=3, size=16, seed=0)
    assert [case["index"] for case in list_cases(tmp_path, "mri")] == [0, 1, 2]


def test_without_torchrun_the_overlay_is_refused(monkeypatch):
    monkeypatch.delenv("RANK", raising=False)
    with pytest.raises(InputError, match="expected to be started by torchrun"):
        distributed.start_distributed()


# Two processes.

# Of the weights of whole runs, relative: 1e-5 and less in most, 8e-3 in one; gradients are compared strictly.
TOLERANCE = 5e-2
CASES = [mri_case(shift=0.05 * i, seed=i, index=i) for i in range(5)]


class Record:
    """Keep the weights and the averaged gradient of every step."""

    def __init__(self, network: DisINR) -> None:
        self.network, self.steps = network, []

    def attach(self, engine: Engine) -> None:
        engine.add_event_handler(IterationEvents.BACKWARD_COMPLETED, self.keep)

    def keep(self, engine: Engine) -> None:
        step = {"loss": torch.as_tensor(engine.state.output["loss"]).detach(), "weights": {}, "gradients": {}}
        step["cases"] = [case["index"] for case in engine.state.batch]
        for name, parameter in self.network.named_parameters():
            step["weights"][to_global(name)] = parameter.detach().clone()
            if parameter.grad is not None:
                step["gradients"][to_global(name)] = parameter.grad.clone()
        self.steps.append(step)


def train(folder: Path, max_epochs: int, resume: bool = False, batch_size: int = 2) -> SupervisedTrainer:
    """Five subjects, two or four a step: the last batch of an epoch holds one, and all processes but one none of it."""
    folder.mkdir(parents=True, exist_ok=True)
    own = shard(CASES)
    network = small_network(n_subjects=len(own))
    optimizer = torch.optim.Adam(network.parameters(), lr=1e-2)
    scheduler = torch.optim.lr_scheduler.StepLR(optimizer, 4, gamma=0.5)
    sampler = EpochSampler(CASES, 3, batch_size)
    record = Record(network)
    trainer = SupervisedTrainer(
        device="cpu",
        max_epochs=max_epochs,
        train_data_loader=DataLoader(own, sampler.own_batch_size, sampler=sampler, collate_fn=collate_cases),
        network=network,
        optimizer=optimizer,
        loss_function=MeasurementLoss(),
        prepare_batch=prepare_training_batch,
        train_handlers=[
            AverageSharedGradients(network, sampler),
            record,
            sampler,
            LrScheduleHandler(scheduler, print_lr=False, epoch_level=False),
            ResumeCheckpoint(str(folder), network, optimizer, scheduler, {}, interval_seconds=0, resume=resume),
            SaveShared(str(folder), network, "mri", start="mean", n_persons=8),
        ],
        decollate=False,
        optim_set_to_none=True,
    )
    trainer.run()
    torch.save(record.steps, folder / f"steps{distributed.rank()}.pt")
    return trainer


def work(rank: int, folder: str) -> None:
    """What each of two processes does: train, go on from what one process has done, and average once by hand."""
    torch.set_num_threads(1)
    torch.distributed.init_process_group("gloo", init_method=f"file://{folder}/group", rank=rank, world_size=2)
    train(Path(folder) / "two", 2)
    torch.distributed.barrier()
    trainer = train(Path(folder) / "one", 4, resume=True)
    average_once(rank, trainer)
    torch.distributed.destroy_process_group()


def average_once(rank: int, trainer: SupervisedTrainer) -> None:
    """Process 1 has no case in the batch, and a gradient of its repeated case that must not count."""
    network = trainer.network
    handler = AverageSharedGradients(network, EpochSampler(CASES, 3, 2))
    handler._start(trainer)
    trainer.state.iteration = 3  # the third batch of an epoch of three
    parameters = list(network.shared.parameters())
    for parameter in parameters:
        parameter.grad = torch.full_like(parameter, 3.0 if rank == 0 else float("nan"))
    parameters[0].grad = None
    own = next(network.subjects.parameters())
    own.grad = torch.ones_like(own)
    trainer.state.output = {"loss": torch.tensor(5.0 if rank == 0 else float("nan"))}
    handler._average(trainer)
    assert parameters[0].grad is None
    assert all(bool((parameter.grad == 3.0).all()) for parameter in parameters[1:])
    assert float(trainer.state.output["loss"]) == 5.0
    assert (own.grad is None) == (rank == 1)


def train_by_four(rank: int, folder: str) -> None:
    torch.set_num_threads(1)
    torch.distributed.init_process_group("gloo", init_method=f"file://{folder}/group", rank=rank, world_size=4)
    train(Path(folder), 4, batch_size=4)
    torch.distributed.destroy_process_group()


def check_gradients(folder: Path, world_size: int, batch_size: int) -> None:
    """Every step's gradient is what one process finds at the same weights for the whole batch.

    Weights of whole runs are compared less strictly: the gradient is not continuous in the weights (rectifiers).
    """
    logs = [torch.load(folder / f"steps{rank}.pt", weights_only=True) for rank in range(world_size)]
    batches = -(-len(CASES) // batch_size)
    network, order = small_network(n_subjects=len(CASES)), EpochSampler(CASES, 3, batch_size)
    for k, steps in enumerate(zip(*logs, strict=True)):
        order.set_epoch(k // batches + 1)
        cases = [CASES[i] for i in list(order)[k % batches * batch_size : (k % batches + 1) * batch_size]]
        network.load_state_dict({name: value for step in steps for name, value in step["weights"].items()})
        network.zero_grad(set_to_none=True)
        points, targets, _, more = prepare_training_batch(cases)
        loss = MeasurementLoss()(network(points, **more), targets)
        loss.backward()
        expected = {name: p.grad for name, p in network.named_parameters() if p.grad is not None}
        for step in steps:  # all have the same pair, gradient and loss
            torch.testing.assert_close(step["loss"], loss.detach(), rtol=1e-5, atol=0)
            for name, gradient in step["gradients"].items():
                assert torch.equal(step["weights"][name], network.get_parameter(name))
                assert float((gradient - expected[name]).norm() / expected[name].norm()) < 1e-5
        assert {name for step in steps for name in step["gradients"]} == expected.keys()


def test_two_processes_are_one_run_and_each_resumes_the_other(tmp_path):
    train(tmp_path / "whole", 4)
    train(tmp_path / "one", 2)
    torch.multiprocessing.spawn(work, (str(tmp_path),), nprocs=2)
    check_gradients(tmp_path / "two", 2, 2)
    assert (tmp_path / "two" / f"{FILE_NAME.removesuffix('.pt')}_2_1of2.pt").is_file()
    assert len(list((tmp_path / "two").glob("private_*"))) == 3  # and no part of the first epoch
    train(tmp_path / "two", 4, resume=True)
    assert [path.name for path in (tmp_path / "two").glob("private_*")] == [FILE_NAME]
    for name in ("one", "two"):  # from one process to two, from two to one
        assert largest_difference(subjects(tmp_path / name), subjects(tmp_path / "whole")) < TOLERANCE
        # model.pt holds the pair and the mean of all five subject encoders, not of one process's
        assert largest_difference(released(tmp_path / name), released(tmp_path / "whole")) < TOLERANCE


@pytest.mark.slow
def test_four_processes_make_the_steps_of_one(tmp_path):
    torch.multiprocessing.spawn(train_by_four, (str(tmp_path),), nprocs=4)
    check_gradients(tmp_path, 4, 4)


def test_a_missing_part_is_named(tmp_path):
    train(tmp_path, 1)
    state = torch.load(tmp_path / FILE_NAME, weights_only=True)
    torch.save({**state, "parts": ["private_resume_checkpoint_1_0of2.pt"]}, tmp_path / FILE_NAME)
    with pytest.raises(InputError, match=r"1_0of2\.pt cannot be read"):
        train(tmp_path, 2, resume=True)


# With torchrun and the configs.


@pytest.mark.slow
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


@pytest.mark.slow
def test_a_killed_process_ends_the_job_and_other_numbers_resume_it(tmp_path, phantoms):
    more = ["--batch_size", "4", "--max_epochs", "60"]
    run(0, "training", phantoms[8], tmp_path / "whole", *more)
    out = tmp_path / "killed"
    job = subprocess.Popen(
        command(2, "training", phantoms[8], out, *more),
        cwd=ROOT,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        env=ENV,
    )
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


@pytest.mark.slow
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
        assert "error: 1 of 6 scans failed" in error
        assert error.count("error: 1 of 6 scans failed") == 1
        with (out / "metrics.csv").open() as file:
            tables[n] = [(row["case"], row["psnr"]) for row in csv.DictReader(file)]
        assert not list(out.glob("metrics_rank*"))
        assert len(list(out.glob("*/*_recon.nii.gz"))) == 5
    assert len(tables[0]) == 5
    assert tables[0] == tables[2] == tables[4]


@pytest.mark.slow
def test_the_learned_prior_is_trained_by_two_processes(tmp_path, phantoms):
    prior = ["--config_file", f"[{TRAIN},'configs/prior.json','configs/multi_gpu_train.json']", "--max_epochs", "1"]
    prior += ["--network_def#prior#widths", "[8,12]", "--n_splits", "1", "--variations", "{}"]
    run(2, "training", phantoms[5], tmp_path / "out", *prior)
    names = released(tmp_path / "out").keys()
    assert any(name.startswith("shared.prior.") for name in names)
