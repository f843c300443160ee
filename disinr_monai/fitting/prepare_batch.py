"""From a list of case dictionaries to what MONAI's trainer and evaluator hand around."""

from __future__ import annotations

from typing import Any

import torch
from monai.data import MetaTensor
from torch import Tensor, nn

from disinr_monai.errors import InputError
from disinr_monai.runtime.distributed import own_index
from disinr_monai.runtime.memory import tell_if_full


def collate_cases(cases: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Keep a batch as a list: operators and measurements of different scans cannot be stacked."""
    return cases


def _to_device(case: dict[str, Any], device: torch.device | str | None) -> dict[str, Any]:
    def move(value: Any) -> Any:
        return value.to(device) if isinstance(value, (Tensor, nn.Module)) else value

    return {k: move(v) for k, v in case.items()}


def _draw(case: dict[str, Any]) -> dict[str, Any]:
    """One random part of a case, or the case itself where its operator needs the whole image."""
    part = case["operator"].partition.draw()
    if part is None:
        return case
    measured = {k: part.select(case[k]) for k in ("measurement", "weights") if case.get(k) is not None}
    return {**case, **measured, "operator": part.operator, "points": part.at(case["points"])}


def prepare_training_batch(
    batch: list[dict[str, Any]], device: torch.device | str | None = None, non_blocking: bool = False, **_: Any
):
    """Batch for the trainer: points ``(B, D, *S)``, cases as targets, and the indices of their subject encoders.

    Of a case whose operator can be measured in parts (:meth:`~disinr_monai.operators.partition.Partition.draw`) it
    holds a random part: points ``(B, D, n)`` and the part's operator and measurement.

    Raises:
        InputError: a case could not be read, or the cases of one batch have different matrix sizes.
    """
    for case in batch:
        if "error" in case:
            raise InputError(case["error"])
    cases = [_draw(_to_device(case, device)) for case in batch]
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
            case.update(_to_device(case, device))
    points, reference = case.get("points"), case.get("reference")
    if points is not None:
        points = MetaTensor(points.unsqueeze(0), affine=case["affine"])
    return points, None if reference is None else reference.unsqueeze(0), (), {"case": case}
