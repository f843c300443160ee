"""Many processes with PyTorch's own engine (``torchrun``); a single process needs none of this."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any

import torch
import torch.distributed as dist

from disinr_monai.errors import InputError


def rank() -> int:
    """Rank of this process, 0 when there is only one."""
    return dist.get_rank() if dist.is_available() and dist.is_initialized() else 0


def n_processes() -> int:
    """How many processes run this job."""
    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1


def start_distributed() -> None:
    """Join the process group that ``torchrun`` describes: NCCL with CUDA devices, gloo without.

    Raises:
        InputError: not started by ``torchrun``.
    """
    if dist.is_initialized():
        return
    if "RANK" not in os.environ:
        raise InputError(
            "configs/multi_gpu_train.json: expected to be started by torchrun, found a single process; use "
            "`torchrun --standalone --nproc_per_node=N -m monai.bundle run training ...` or leave the overlay out"
        )
    if torch.cuda.is_available():
        torch.cuda.set_device(int(os.environ["LOCAL_RANK"]))
    dist.init_process_group("nccl" if torch.cuda.is_available() else "gloo")


def shard(cases: Sequence[dict[str, Any]], rank: int, world_size: int) -> list[dict[str, Any]]:
    """Every ``world_size``-th case, numbered anew; all ranks get equally many, the last ones start over.

    Raises:
        InputError: more processes than cases.
    """
    if world_size > len(cases):
        raise InputError(f"dataset_dir: expected at least one scan per process, found {len(cases)} for {world_size}")
    n_each = -(-len(cases) // world_size)
    mine = [cases[(rank + i * world_size) % len(cases)] for i in range(n_each)]
    return [{**case, "index": i} for i, case in enumerate(mine)]
