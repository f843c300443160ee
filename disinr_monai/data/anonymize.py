from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from monai.transforms import Transform

from disinr_monai.privacy import Names


class Anonymize(Transform):
    """Give a measured case its neutral names, if these are wanted everywhere; nothing after this knows the others.

    It comes after the acquisition, whose simulated noise and coils go by the true name: a scan gives the same image
    with and without.

    Args:
        names: of the run.
    """

    def __init__(self, names: Names) -> None:
        self.names = names

    def __call__(self, case: Mapping[str, Any]) -> dict[str, Any]:
        if not self.names.everywhere:
            return dict(case)
        name, subject = self.names.cases[case["name"]], self.names.subjects[case["subject"]]
        result = {**case, "name": name, "subject": subject}
        if "error" in case:
            result["error"] = self.names.text(case["error"])
        if "info" in case:
            result["info"] = self.names.settings({k: v for k, v in case["info"].items() if k != "source"})
        return result
