"""Time of a pre-training step and the memory of a whole process, each measured in a process of its own."""

from __future__ import annotations

import multiprocessing
import statistics
from collections.abc import Callable
from typing import Any

import torch

from benchmarks.steps import Step, clock, encoder, own_memory_mb, peak_memory_mb
from disinr_monai.checkpoints.on_disk import DiskTensors
from disinr_monai.fitting.losses import MeasurementLoss
from disinr_monai.fitting.regularisers import TVRegulariser
from disinr_monai.networks import DisINR
from disinr_monai.runtime.memory import keep_freed_memory


def pretrain(case: dict[str, Any], n_subjects: int, visits: int, folder: str | None = None) -> dict[str, float]:
    """Visit the first ``visits`` of ``n_subjects`` once each; one optimiser holds all of them, as in the trainer.

    With a ``folder`` subject encoders and their moments are kept there instead of in memory.
    """
    keep_freed_memory()
    disk = None if folder is None else DiskTensors(folder)
    place = None if disk is None else disk.move
    network = DisINR(encoder, case["scan"].operator.domain_shape[0], n_subjects=n_subjects, place=place)
    network.set_amp(None)
    optimizer = torch.optim.Adam(network.parameters(), lr=1e-3, fused=True)
    if disk is not None:
        disk.move_adam(optimizer, network.subjects.parameters())
    loss, points, seconds = MeasurementLoss(regularisers=[TVRegulariser(0.03)]), case["points"][None], []
    for subject in range(visits):
        start = clock()
        optimizer.zero_grad(set_to_none=True)
        loss(network(points, subject), [case]).backward()
        optimizer.step()
        seconds.append(clock() - start)
    steps = (optimizer.state[p].get("step", 0) for s in network.subjects for p in s.parameters())
    swept = sum(bool(step > 0) for step in steps)
    touched = swept / sum(1 for _ in network.subjects[0].parameters())
    # The first visit also builds the interpolation matrix.
    result = {"seconds": statistics.median(seconds[1:]), "peak_memory_mb": peak_memory_mb()}
    if disk is not None:  # pages of files count as resident while there is room; these are the rest, at the end
        result["own_memory_mb"] = own_memory_mb()
    return result | {"subjects_touched": touched}


def adapt(case: dict[str, Any], method: str, n_iterations: int = 3) -> dict[str, float]:
    """Some iterations of a fit, for the memory that they take."""
    keep_freed_memory()
    step = Step(method, case, MeasurementLoss(regularisers=[TVRegulariser(0.03)]))
    for _ in range(n_iterations):
        step()
    return {"peak_memory_mb": peak_memory_mb()}


def in_own_process(function: Callable[..., dict[str, float]], *arguments: Any) -> dict[str, float]:
    """Result of a function in a fresh process, whose peak memory is then that of the function."""
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        return pool.apply(_with_threads, (torch.get_num_threads(), function, arguments))


def _with_threads(n_threads: int, function: Callable[..., dict[str, float]], arguments: tuple) -> Any:
    torch.set_num_threads(n_threads)
    return function(*arguments)
