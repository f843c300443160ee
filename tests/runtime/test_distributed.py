"""Many processes: each has its own subjects, all have the same shared pair, and together they are one run."""

from pathlib import Path
from unittest import mock

import pytest
import torch
import torch.multiprocessing
from monai.engines import SupervisedTrainer

from disinr_monai.data import EpochSampler
from disinr_monai.errors import InputError
from disinr_monai.fitting.losses import MeasurementLoss
from disinr_monai.fitting.prepare_batch import prepare_training_batch
from disinr_monai.handlers import AverageSharedGradients
from disinr_monai.handlers.resume import FILE_NAME
from disinr_monai.runtime import distributed
from disinr_monai.runtime.distributed import shard
from tests.problems import small_network
from tests.processes import CASES, TOLERANCE, largest_difference, released, subjects, train


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


def test_without_torchrun_the_overlay_is_refused(monkeypatch):
    monkeypatch.delenv("RANK", raising=False)
    with pytest.raises(InputError, match="expected to be started by torchrun"):
        distributed.start_distributed()


# What each of the processes does.


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
