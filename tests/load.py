"""What the load tests run in a process of their own: many real runs, with the resident memory after every slice."""

import json
import logging
import os
import sys
import time
from pathlib import Path

from disinr_monai.data.simulate.phantoms import write_phantoms
from tests.runs import infer

_SCANS = "disinr_monai.handlers.save_cases"


def resident_mb() -> float:
    """Memory of this process that is in use now."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 1e6


class Curve(logging.Handler):
    """Notes the memory at each line that a reconstructed slice writes to the log."""

    def __init__(self, file: Path) -> None:
        super().__init__()
        self.file, self.values, self.began = file, [], time.time()
        logging.getLogger(_SCANS).addHandler(self)

    def emit(self, record: logging.LogRecord) -> None:
        if record.levelno == logging.INFO and ": read as" in record.getMessage():
            self.values.append((round(time.time() - self.began, 1), round(resident_mb(), 1)))
            if len(self.values) % 10 == 0:
                self.file.write_text(json.dumps(self.values))


def many_slices(folder: str, n_slices: int) -> None:
    """One run of many slices."""
    curve = Curve(Path(folder) / "curve.json")
    write_phantoms(Path(folder) / "data", "mri", n_subjects=n_slices, size=32, seed=0)
    assert infer(Path(folder) / "data", Path(folder) / "out", "mri", image_size=32, quiet=True) == ""
    curve.file.write_text(json.dumps(curve.values))


def soak(folder: str, seconds: float) -> None:
    """Runs of all modalities and sizes after one another, in new folders, until the time is over."""
    curve = Curve(Path(folder) / "curve.json")
    sizes = (16, 24, 32, 40, 48, 20, 28, 36, 44)
    number = 0
    while time.time() - curve.began < seconds:
        modality, size = ("mri", "ct", "pet")[number % 3], sizes[number % len(sizes)]
        data, out = Path(folder) / f"data-{modality}-{size}", Path(folder) / f"out-{number % 4}"
        if not data.is_dir():
            write_phantoms(data, modality, n_subjects=2, size=size, seed=number)
        options = {"n_views": 8 + number % 5} if modality != "mri" else {"acceleration": 2 + number % 2}
        if modality == "ct":
            options["pixel_spacing"] = 160 / size  # the same field of view
        # The smallest measurements have nothing to spare that could be withheld.
        options |= {"image_size": size, "seed": number, "early_stop": number % 2 == 1 and size > 16}
        said = infer(data, out, modality, quiet=True, **options)
        assert said == "", said
        number += 1
    curve.file.write_text(json.dumps(curve.values))


if __name__ == "__main__":
    if sys.argv[1] == "soak":
        soak(sys.argv[2], float(sys.argv[3]))
    else:
        many_slices(sys.argv[2], int(sys.argv[3]))
