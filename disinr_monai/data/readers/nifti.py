from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from disinr_monai.data.readers.hdf5 import check_announced, first_line
from disinr_monai.data.readers.volume import Volume, n_slices
from disinr_monai.errors import InputError


@contextmanager
def open_nifti(path: str | Path) -> Iterator[Any]:
    """Read and check the header of a NIfTI file; its voxels are read when they are asked for.

    Raises:
        InputError: not readable, or not a real 2-D or 3-D image.
    """
    import nibabel as nib
    from nibabel.orientations import io_orientation

    if not Path(path).is_file():
        raise InputError(f"{path}: expected a NIfTI file, found no such file")
    try:
        image = nib.load(path)
    except Exception as error:
        # nibabel lets struct, zlib, OS and its own errors through.
        raise InputError(
            f"{path}: expected a readable NIfTI image, found a damaged or different file ({first_line(error)})"
        ) from error
    dtype, shape, affine = np.dtype(image.get_data_dtype()), _shape(image), image.affine
    if dtype.kind not in "buif":
        raise InputError(f"{path}: expected real voxel values, found {dtype} (complex or colour); save the magnitude")
    if len(shape) != 3 or 0 in shape:
        raise InputError(
            f"{path}: expected a 2-D or 3-D image, found shape {tuple(image.shape)}; split the series "
            "into one file an image"
        )
    usable = np.isfinite(affine).all() and abs(np.linalg.det(affine[:3, :3])) >= 1e-12
    if not usable or np.isnan(io_orientation(affine)).any():  # also where one axis is next to nothing beside the others
        raise InputError(f"{path}: expected an invertible affine, found {affine.tolist()}; repair the header")
    check_announced(path, int(np.prod(shape, dtype=object)) * dtype.itemsize, str(path).lower().endswith(".gz"))
    yield image


def nifti_slices(image: Any) -> int:
    """Number of slices of an open NIfTI file."""
    return n_slices(_shape(image), image.affine)


def read_nifti(path: str | Path, modality: str = "") -> Volume:
    """Read the values of a NIfTI file and its affine.

    Where the header has neither sform nor qform, nibabel takes the array for one in RAS order.

    Args:
        path: the file.
        modality: not checked: NIfTI does not say it.

    Raises:
        InputError: not readable, or not a real 2-D or 3-D image.
    """
    with open_nifti(path) as image:
        try:
            values = image.get_fdata(dtype=np.float32).reshape(_shape(image))
        except Exception as error:
            raise InputError(
                f"{path}: expected readable voxel values, found a damaged or truncated file "
                f"({first_line(error)}); copy or export it again"
            ) from error
        codes = [int(image.header[key]) for key in ("sform_code", "qform_code") if key in image.header]
    lacking = {"unverified": ["orientation (neither sform nor qform in the NIfTI header)"]} if codes == [0, 0] else {}
    return Volume(values, image.affine, lacking)


def _shape(image: Any) -> tuple[int, ...]:
    """Shape without trailing axes of length 1 beyond the third; a 2-D image is one slice."""
    shape = image.shape
    while len(shape) > 3 and shape[-1] == 1:
        shape = shape[:-1]
    return (*shape, 1) if len(shape) == 2 else shape
