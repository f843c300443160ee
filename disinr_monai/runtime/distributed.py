"""Several processes started by ``torchrun``; all functions also work in a single process."""

from __future__ import annotations

import datetime
import os
from collections.abc import Sequence
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from disinr_monai.errors import InputError


def _is_joined() -> bool:
    return dist.is_available() and dist.is_initialized()


def rank() -> int:
    """Rank of this process, 0 when there is only one."""
    return dist.get_rank() if _is_joined() else 0


def world_size() -> int:
    """Number of processes that work together."""
    return dist.get_world_size() if _is_joined() else 1


def local_device() -> torch.device:
    """The device of this process: the GPU of its number on this machine, or the CPU."""
    if not torch.cuda.is_available():
        return torch.device("cpu")
    return torch.device("cuda", int(os.environ.get("LOCAL_RANK", 0)))


def start_distributed(timeout_minutes: float = 30.0) -> None:
    """Join the process group that ``torchrun`` describes: NCCL between CUDA devices, gloo between CPUs.

    Args:
        timeout_minutes: wait for other processes before an error.

    Raises:
        InputError: not started by ``torchrun``.
    """
    if not dist.is_initialized():
        if "RANK" not in os.environ:
            raise InputError(
                "multi_gpu overlay: expected to be started by torchrun, found a single process; use "
                "`torchrun --standalone --nproc_per_node=N -m monai.bundle run ...` or leave the overlay out"
            )
        if torch.cuda.is_available():
            torch.cuda.set_device(int(os.environ["LOCAL_RANK"]))
        backend = "cpu:gloo,cuda:nccl" if torch.cuda.is_available() else "gloo"
        dist.init_process_group(backend, timeout=datetime.timedelta(minutes=float(timeout_minutes)))


def shard(cases: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """The cases of this process: of ``n`` processes every ``n``-th, from its rank on. They keep their ``index``.

    Raises:
        InputError: more processes than cases.
    """
    if world_size() > len(cases):
        raise InputError(
            f"dataset_dir: expected at least one scan per process, found {len(cases)} for {world_size()}; start fewer"
        )
    return list(cases[rank() :: world_size()])


def own_index(index: int) -> int:
    """Index of a case among those of its process (:func:`shard`)."""
    return index // world_size()


def sum_over_processes(tensors: Sequence[Tensor]) -> list[Tensor]:
    """Sum of each tensor over all processes, in one message; all give the same shapes, dtype and device."""
    if world_size() == 1 or not tensors:
        return list(tensors)
    flat = torch.cat([tensor.reshape(-1) for tensor in tensors])
    dist.all_reduce(flat)
    parts = flat.split([tensor.numel() for tensor in tensors])
    return [part.view_as(tensor) for part, tensor in zip(parts, tensors, strict=True)]


def gather_on_first(value: Any) -> list[Any] | None:
    """The values of all processes, by rank, on the first one; None on the others."""
    if world_size() == 1:
        return [value]
    values: list[Any] | None = [None] * world_size() if rank() == 0 else None
    dist.gather_object(value, values, dst=0)
    return values
