from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from disinr_monai.fitting.case_inferer import CaseInferer
from disinr_monai.methods import DirectInverse
from disinr_monai.output.metrics import image_metrics, to_display
from disinr_monai.runtime.memory import peak_memory_mb


@dataclass
class Comparison:
    """Result of one method on one case.

    Args:
        name: of the method.
        image: ``(C, *S)``; None where the method failed.
        row: of ``metrics.csv``; None for a method that is only shown.
        error: why it failed.
    """

    name: str
    image: Tensor | None
    row: dict[str, Any] | None
    error: str = ""


class CompareBaselines:
    """Run the baselines on a case, on the same scan as the method under test.

    They run where the case has a reference to measure them by. The direct inverse is always there, without a row of its
    own where no baseline is one: it shows what the measurement alone gives.

    Args:
        baselines: methods by name.
        modality: how their images are shown.
    """

    def __init__(self, baselines: Mapping[str, CaseInferer] | None, modality: str) -> None:
        self.baselines, self.modality = dict(baselines or {}), modality

    def __call__(self, case: dict[str, Any]) -> Iterator[Comparison]:
        """Yield the results of a case one by one, the direct inverse first."""
        baselines = self.baselines if "reference" in case else {}
        if not any(isinstance(method, DirectInverse) for method in baselines.values()):
            image, error, _ = self._run(DirectInverse(), case)
            yield Comparison("direct inverse", image, None, error)
        for name, method in baselines.items():
            image, error, seconds = self._run(method, case)
            row = None if image is None else table_row(case, name, image, seconds, method, self.modality)
            yield Comparison(name, image, row, error)

    @staticmethod
    def _run(method: CaseInferer, case: dict[str, Any]) -> tuple[Tensor | None, str, float]:
        started = time.perf_counter()
        image = method(None, None, case=case)
        return None if image is None else image[0], method.error, time.perf_counter() - started


def table_row(
    case: Mapping[str, Any], name: str, image: Tensor, seconds: float, method: CaseInferer, modality: str
) -> dict[str, Any]:
    """Fill the row of ``metrics.csv`` of a method that has just reconstructed a case."""
    row = {"case": case["name"], "subject": case["subject"], "method": name}
    if "reference" in case:
        shown = to_display(image, modality, case["image_scale"])
        row |= image_metrics(shown, to_display(case["reference"], modality))
    row |= {"seconds": seconds, "iterations": method.iterations_run, "peak_memory_mb": peak_memory_mb()}
    fallbacks = [entry["fallback"] for entry in method.history if "fallback" in entry]
    if fallbacks:
        row["fallback"] = max(fallbacks)
    if method.residual is not None:
        row["residual"] = method.residual.unexplained
    return row
