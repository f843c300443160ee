from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

from torch import Tensor

from disinr_monai.data.case import is_simulated
from disinr_monai.fitting.case_inferer import CaseInferer
from disinr_monai.fitting.joint_coils import JointAdaptation
from disinr_monai.methods import DirectInverse
from disinr_monai.modality import facts_of
from disinr_monai.output.metrics import all_metrics, to_display, unsampled_error
from disinr_monai.runtime.memory import peak_memory_mb

REFERENCE_FACTS = ("reference", "reference_noise", "reference_ceiling", "unsampled_noise")


class Comparison(NamedTuple):
    """Result of one method on one case.

    Attributes:
        name: of the method.
        image: ``(C, *S)``; None where the method failed.
        row: of ``metrics.csv``; None for a method that is only shown.
        error: reason of the failure.
    """

    name: str
    image: Tensor | None
    row: dict[str, Any] | None
    error: str


def compare(case: dict[str, Any], baselines: Mapping[str, CaseInferer], modality: str) -> Iterator[Comparison]:
    """Run the baselines on the scan of a case, one by one, if it has a reference to measure them by.

    The direct inverse always comes first, to show what the measurement alone gives; it has a row only as a baseline.

    Args:
        case: the measured case.
        baselines: methods by name.
        modality: of the images, for their display.
    """
    measured = baselines if "reference" in case else {}
    has_inverse = any(isinstance(method, DirectInverse) for method in measured.values())
    methods = measured if has_inverse else {"direct inverse": DirectInverse(), **measured}
    for name, method in methods.items():
        started = time.perf_counter()
        image = method(None, None, case=case)
        seconds = time.perf_counter() - started
        image = None if image is None else image[0]
        is_measured = image is not None and name in measured
        row = table_row(case, name, image, seconds, method, modality) if is_measured else None
        yield Comparison(name, image, row, method.error)


def table_row(
    case: Mapping[str, Any], name: str, image: Tensor, seconds: float, method: CaseInferer, modality: str
) -> dict[str, Any]:
    """Fill the row of ``metrics.csv`` of a method that has just reconstructed a case."""
    row = {"case": case["name"], "subject": case["subject"], "method": name}
    if "reference" in case:
        shown = to_display(image, modality, case["image_scale"])
        is_hu = case.get("units", facts_of(modality).units) == "HU"
        row |= all_metrics(shown, to_display(case["reference"], modality), is_hu)
        row |= {key: case["info"][key] for key in REFERENCE_FACTS if key in case["info"]}
    # A method with coil maps of its own predicts other k-space than the case's operator makes of its image.
    if "unsampled" in case and not isinstance(method, JointAdaptation):
        row["unsampled_error"] = unsampled_error(case["unsampled"], image)
    row |= {"seconds": seconds, "iterations": method.iterations_run, "peak_memory_mb": peak_memory_mb()}
    row |= next(({key: e[key]} for e in method.history if (key := "classical_share") in e), {})
    if method.residual is not None:
        row["residual"] = method.residual.unexplained
    if "simulated" in case["info"]:
        row["measurement"] = "SIMULATED" if is_simulated(case) else "raw"
    return row
