from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from monai.transforms import Transform

from disinr_monai.data.describe import describe
from disinr_monai.errors import InputError
from disinr_monai.out_of_memory import is_out_of_memory, out_of_memory


class Guard(Transform):
    """Run a transform on a case; a failed one becomes ``{"name", "subject", "path", "error"}``.

    Failed is what cannot be read or does not fit into memory. How the file was read is kept as ``info["read_as"]``.

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
        except (InputError, ValueError, OSError, MemoryError, RuntimeError) as error:
            if is_out_of_memory(error):
                error = out_of_memory(error, str(case["name"]))
            elif isinstance(error, RuntimeError):
                raise
            reason = str(error) if isinstance(error, InputError) else f"{case['path']}: {type(error).__name__}: {error}"
            return {"name": case["name"], "subject": case["subject"], "path": case["path"], "error": reason}
        info = result.setdefault("info", {})
        info["read_as"] = describe(info)
        return result
