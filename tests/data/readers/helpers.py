"""How the tests of readers ask them."""

from pathlib import Path
from typing import Any

from disinr_monai.data.readers.dicom import group_series, open_series
from disinr_monai.data.readers.fastmri import fastmri_summary
from disinr_monai.data.readers.hdf5 import open_hdf5
from disinr_monai.data.readers.ismrmrd import ismrmrd_summary
from disinr_monai.data.readers.ismrmrd_acquisitions import has_ismrmrd


def image_case(path: Path | str | list[str], index: int | None = None) -> dict[str, Any]:
    """A case of a NIfTI file or a DICOM series, as it would be listed."""
    case = {"name": "case", "subject": "case", "slice": index}
    if isinstance(path, list):
        return case | {"path": path, "reader": "dicom"}
    return case | {"path": str(path), "reader": "nifti"}


def sorted_series(paths: list[str], modality: str = "ct") -> list[str]:
    """The files of one series in the order of their slices."""
    ((series,), _) = group_series([Path(path) for path in paths], modality)
    with open_series(series):
        return series.paths


def kspace_summary(path: Path) -> tuple[int, bool]:
    """Number of slices, and whether they are full, as the listing finds them."""
    with open_hdf5(path) as file:
        return (ismrmrd_summary if has_ismrmrd(file) else fastmri_summary)(file, path)
