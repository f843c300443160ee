"""The least time that an iteration can take: bytes over the measured bandwidth plus operations over measured rates."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch

from benchmarks.steps import Step, interleaved


def measure_rates(rounds: int = 15, n: int = 8192) -> dict[str, float]:
    """Copy bandwidth (bytes/s, read and written), bfloat16 and float32 product rates (operations/s) of this machine."""
    a = torch.zeros(16 * 2**20)
    b = torch.empty_like(a)
    jobs: dict[str, Callable[[], Any]] = {"bandwidth": lambda: b.copy_(a)}
    for name, dtype in (("bfloat16", torch.bfloat16), ("float32", torch.float32)):
        x, w = torch.ones(n, 128, dtype=dtype), torch.ones(128, 128, dtype=dtype)
        out = torch.empty(n, 128, dtype=dtype)
        jobs[name] = lambda x=x, w=w, out=out: [torch.mm(x, w, out=out) for _ in range(8)]
    seconds = interleaved(jobs, rounds)
    work = {"bandwidth": 2 * a.nbytes, "bfloat16": 8 * 2 * n * 128**2, "float32": 8 * 2 * n * 128**2}
    return {key: work[key] / seconds[key] for key in work}


def floor(step: Step, method: str, rates: dict[str, float]) -> dict[str, Any]:
    """Seconds, and the counts behind them, for one iteration of ``disinr`` or ``ngp`` on multi-coil MRI.

    Products: forward, gradient of the inputs (all matrices) and of the matrices (those that are fitted), with the
    subject encoder's last and the decoder's first matrix taken as one. Bytes: sparse entries (8 each), table, features
    and gradients of the encoding once forward and once back; activations written once and read twice in bfloat16;
    Adam reads four and writes three arrays; k-space and image of each coil six times.
    """
    n, channels = len(step.flat), step.shape[0]
    frozen = [128 * 128, 128 * channels] if method == "disinr" else []
    fitted = [80 * 128, 128 * 128, 128 * 128] if method == "disinr" else [80 * 128, 128 * 128, 128 * channels]
    operations = 2 * n * (2 * sum(frozen) + 3 * sum(fitted))
    _, grid_matrix = step.grid._compact
    n_entries = grid_matrix._pair.matrix.values().numel()
    n_parameters = sum(p.numel() for p in step.parameters)
    table = 4 * grid_matrix.shape[1] * 8
    features = 4 * n * 80
    n_hidden = 4 if method == "disinr" else 2
    coils = step.case["scan"].operator.range_shape[0]
    transform = 4 * coils * 5 * n * math.log2(n)
    moved = {
        "encode": 2 * (8 * n_entries + table + features),
        "mlp": 3 * n_hidden * 2 * n * 128 + 2 * 2 * n * 80,
        "operator": 6 * 8 * coils * n,
        "optimiser": 7 * 4 * n_parameters,
    }
    encode_operations = 2 * 2 * 8 * n_entries
    seconds = sum(moved.values()) / rates["bandwidth"] + operations / rates["bfloat16"]
    seconds += (transform + encode_operations) / rates["float32"]
    arithmetic = (
        f"{sum(moved.values()) / 1e6:.0f} MB / {rates['bandwidth'] / 1e9:.1f} GB/s + "
        f"{operations / 1e9:.1f} GFlop / {rates['bfloat16'] / 1e9:.0f} GFlop/s (bfloat16) + "
        f"{(transform + encode_operations) / 1e9:.2f} GFlop / {rates['float32'] / 1e9:.0f} GFlop/s (float32)"
    )
    return {"seconds": seconds, "arithmetic": arithmetic, "megabytes": {k: v / 1e6 for k, v in moved.items()}}
