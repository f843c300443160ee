"""What it costs to share pre-training out over processes: the same batches with 1, 2, ... of them.

    OMP_NUM_THREADS=1 python -m benchmarks.scaling --processes 1,2 --image_size 256

One batch holds as many cases as the most processes. Printed are, per step, the median time on the clock and the
processor time of all processes together. On a machine that does other work only the latter says something: an
efficiency of 1 is a step whose work is shared out without any more.
"""

from __future__ import annotations

import argparse
import itertools
import multiprocessing
import statistics
import tempfile
import time
from typing import Any

import torch
import torch.distributed as dist
from monai.engines import IterationEvents, SupervisedTrainer
from torch.utils.data import DataLoader

from benchmarks.steps import encoder
from disinr_monai.data import AcquireMRI, EpochSampler, list_cases
from disinr_monai.data.simulate.phantoms import write_phantoms
from disinr_monai.fitting.losses import MeasurementLoss
from disinr_monai.fitting.prepare_batch import collate_cases, prepare_training_batch
from disinr_monai.fitting.regularisers import TVRegulariser
from disinr_monai.handlers import AverageSharedGradients
from disinr_monai.networks import DisINR
from disinr_monai.runtime.distributed import shard


def train(rank: int, world_size: int, folder: str, size: int, batch_size: int, n_steps: int, results: Any) -> None:
    """One process: some steps, and their times."""
    torch.set_num_threads(1)
    if world_size > 1:
        dist.init_process_group("gloo", init_method=f"file://{folder}/group", rank=rank, world_size=world_size)
    write_phantoms(f"{folder}/{rank}", "mri", batch_size, size=size)
    cases = list_cases(f"{folder}/{rank}", "mri", 1)
    acquire = AcquireMRI(image_size=size, maps="simulated")
    own = [acquire(case) for case in shard(cases)]
    network = DisINR(encoder, 2, n_subjects=len(own))
    network.set_amp(None)
    sampler = EpochSampler(cases, 0, batch_size)
    clocks: list[tuple[float, float]] = []
    trainer = SupervisedTrainer(
        device="cpu",
        max_epochs=n_steps + 1,
        train_data_loader=DataLoader(own, sampler.own_batch_size, sampler=sampler, collate_fn=collate_cases),
        network=network,
        optimizer=torch.optim.Adam(network.parameters(), lr=1e-3, fused=True),
        loss_function=MeasurementLoss(regularisers=[TVRegulariser(0.03)]),
        prepare_batch=prepare_training_batch,
        train_handlers=[AverageSharedGradients(network, sampler)],
        decollate=False,
        optim_set_to_none=True,
    )
    trainer.add_event_handler(
        IterationEvents.MODEL_COMPLETED, lambda _: clocks.append((time.perf_counter(), time.process_time()))
    )
    trainer.run()
    steps = [[b - a for a, b in zip(start, end, strict=True)] for start, end in itertools.pairwise(clocks)]
    results.put([statistics.median(values) for values in zip(*steps, strict=True)])
    if world_size > 1:
        dist.destroy_process_group()


def measure(world_size: int, size: int, batch_size: int, n_steps: int) -> tuple[float, float]:
    """Median seconds of a step on the clock, and processor seconds of all processes."""
    context = multiprocessing.get_context("spawn")
    results = context.Queue()
    with tempfile.TemporaryDirectory() as folder:
        arguments = (world_size, folder, size, batch_size, n_steps, results)
        processes = [context.Process(target=train, args=(rank, *arguments)) for rank in range(world_size)]
        for process in processes:
            process.start()
        found = [results.get(timeout=1800) for _ in processes]
        for process in processes:
            process.join()
    return max(wall for wall, _ in found), sum(cpu for _, cpu in found)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--processes", default="1,2")
    parser.add_argument("--image_size", type=int, default=256)
    parser.add_argument("--n_steps", type=int, default=10)
    arguments = parser.parse_args()
    counts = [int(count) for count in arguments.processes.split(",")]
    print(f"{'processes':>9}{'clock s':>9}{'speed-up':>10}{'processor s':>13}{'efficiency':>12}")
    first = None
    for count in counts:
        wall, cpu = measure(count, arguments.image_size, max(counts), arguments.n_steps)
        first = first or (wall, cpu)
        print(f"{count:>9}{wall:>9.3f}{first[0] / wall:>10.2f}{cpu:>13.3f}{first[1] / cpu:>12.2f}", flush=True)


if __name__ == "__main__":
    main()
