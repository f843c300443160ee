from __future__ import annotations

import gzip
import zlib
from pathlib import Path

_NAME = "disinr_monai"
_DESCRIP = slice(148, 228)  # of a NIfTI-1 header
_WITHIN = 4096  # Manufacturer, (0008,0070), comes early, before anything long
_MANUFACTURER = b"\x08\x00\x70\x00LO"


def is_own_result(file: Path) -> bool:
    """Tell whether a file is a result of this package, not a scan to reconstruct.

    A NIfTI file says so in its ``descrip``, a DICOM file in its Manufacturer. One without is a result if it lies where
    a run puts it: ``NAME/NAME_recon*`` beside the ``metrics.csv`` and ``report.html`` of the run.
    """
    folder = file.parent
    if file.name.startswith(f"{folder.name}_recon") and all(
        (folder.parent / name).is_file() for name in ("metrics.csv", "report.html")
    ):
        return True
    name = file.name.lower()
    try:
        if name.endswith((".nii", ".nii.gz")):
            with gzip.open(file) if name.endswith(".gz") else file.open("rb") as opened:
                return _NAME.encode() in opened.read(_DESCRIP.stop)[_DESCRIP]
        with file.open("rb") as opened:
            start = opened.read(_WITHIN)
    except (OSError, EOFError, ValueError, zlib.error):  # damaged: its reader says so
        return False
    if start[128:132] != b"DICM":
        return False
    place = start.find(_MANUFACTURER)
    return place >= 0 and start[place + 8 : place + 8 + len(_NAME)] == _NAME.encode()
