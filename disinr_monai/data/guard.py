from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from monai.transforms import Transform

from disinr_monai.data.describe import describe
from disinr_monai.errors import InputError


class Guard(Transform):
    """Run a transform on a case; a case that cannot be read becomes ``{"name", "subject", "path", "error"}``.

    How the file was read is kept as ``info["read_as"]``.

    So one bad file does not end a batch of scans; the handler that writes results reports it at the end. Every case
    keeps its ``path``: DICOM output asks the source for its patient.

    Args:
        transform: the transform to guard.
    """

    def __init__(self, transform: Callable[[Mapping[str, Any]], dict[str, Any]]) -> None:
        self.transform = transform

    def __call__(self, case: Mapping[str, Any]) -> dict[str, Any]:
        try:
            result = {"path": case["path"], **self.transform(case)}
        except (InputError, ValueError, OSError) as error:
            reason = str(error) if isinstance(error, InputError) else f"{case['path']}: {type(error).__name__}: {error}"
            return {"name": case["name"], "subject": case["subject"], "path": case["path"], "error": reason}
        info = result.setdefault("info", {})
        info["read_as"] = describe(info)
        return result
