"""Batches of cases in the form that MONAI's trainer and evaluator expect."""

from __future__ import annotations

from typing import Any

import torch
from monai.data import MetaTensor
from torch import Tensor

from disinr_monai.errors import InputError
from disinr_monai.runtime.distributed import own_index
from disinr_monai.runtime.memory import tell_if_full
from disinr_monai.scan import Scan


def collate_cases(cases: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Keep a batch as a list: operators and measurements of different scans cannot be stacked."""
    return cases


def to_device(case: dict[str, Any], device: torch.device | str | None) -> dict[str, Any]:
    """Move a case's tensors and its scan to a device."""
    return {k: v.to(device) if isinstance(v, (Tensor, Scan)) else v for k, v in case.items()}


def _draw(case: dict[str, Any]) -> dict[str, Any]:
    """Draw a random part of a case; the case itself where its operator needs the whole image."""
    drawn = case["scan"].draw()
    if drawn is None:
        return case
    part_of, part = drawn
    return {**case, "scan": part, "points": part_of(case["points"])}


def prepare_training_batch(
    batch: list[dict[str, Any]], device: torch.device | str | None = None, non_blocking: bool = False, **_: Any
):
    """Batch for the trainer: points ``(B, D, *S)``, cases as targets, and the indices of their subject encoders.

    Of a case whose operator can be measured in parts (:meth:`~disinr_monai.scan.Scan.draw`) it holds a random part:
    points ``(B, D, n)`` and the scan of the part.

    Raises:
        InputError: a case could not be read, or the cases of one batch have different matrix sizes.
    """
    for case in batch:
        if "error" in case:
            raise InputError(case["error"])
        if case["info"].get("map_sets", 1) > 1:
            raise InputError(
                f"{case['name']}: expected an object inside the field of view, found one that wraps around it (2 sets "
                "of coil maps): leave it out of pre-training, or use --map_sets 1"
            )
    cases = [_draw(to_device(case, device)) for case in batch]
    if len({case["points"].shape for case in cases}) > 1:
        sizes = sorted({tuple(case["points"].shape[1:]) for case in cases})
        raise InputError(f"batch_size: scans of different matrix sizes {sizes} in one batch; use --batch_size 1")
    points = torch.stack([torch.as_tensor(case["points"]) for case in cases])
    indices = torch.tensor([own_index(case["index"]) for case in cases])
    return points, cases, (), {"subject": indices}


def prepare_case(
    batch: list[dict[str, Any]], device: torch.device | str | None = None, non_blocking: bool = False, **_: Any
):
    """Batch for the evaluator: points ``(1, D, *S)``, reference ``(1, 1, *S)`` or None, and the case for the inferer.

    Raises:
        InputError: more than one case in a batch.
    """
    if len(batch) != 1:
        raise InputError(f"batch_size: the evaluator takes one scan at a time, found {len(batch)}")
    case = batch[0]
    if "error" not in case:
        with tell_if_full(str(case["name"]), lambda text: case.update(error=text)):
            case.update(to_device(case, device))
    points, reference = case.get("points"), case.get("reference")
    if points is not None:
        points = MetaTensor(points.unsqueeze(0), affine=case["affine"])
    return points, None if reference is None else reference.unsqueeze(0), (), {"case": case}
