from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from disinr_monai.data.readers.hdf5_trial import PROBE
from disinr_monai.errors import InputError

_SMALL, _COMPRESSION = 2**26, 1100  # bytes; deflate reaches 1032 : 1


@contextmanager
def open_hdf5(path: str | Path) -> Iterator[Any]:
    """Open an HDF5 file for reading; everything that HDF5 dislikes about it becomes an :class:`InputError`."""
    import h5py

    if not Path(path).is_file():
        raise InputError(f"{path}: expected an HDF5 file, found no such file")
    if problem := PROBE.problem(path):
        raise InputError(
            f"{path}: expected a readable HDF5 file, found a damaged one ({problem}); copy or export it again"
        )
    try:
        with h5py.File(path, "r") as file:
            yield file
    except InputError:
        raise
    except (OSError, RuntimeError, LookupError, ValueError, TypeError, AttributeError, MemoryError) as error:
        raise InputError(
            f"{path}: expected a readable HDF5 file, found a damaged, truncated or different one "
            f"({first_line(error)}); copy or export it again"
        ) from error


def first_line(error: BaseException) -> str:
    """First line of an error's message."""
    return next(iter(str(error).splitlines()), "") or type(error).__name__


def check_size(dataset: Any, path: str | Path) -> None:
    """Refuse a dataset that announces far more than the file holds, before memory is asked for.

    Raises:
        InputError: more bytes than any compression could have stored, or values that cannot lie where the file says.
    """
    stored = min(dataset.id.get_storage_size(), Path(path).stat().st_size)  # what is damaged announces anything
    if dataset.nbytes > max(_SMALL, _COMPRESSION * stored):
        raise InputError(
            f"{path}: `{dataset.name.strip('/')}` announces {dataset.nbytes / 1e6:,.0f} MB {dataset.shape}, found "
            f"{stored / 1e6:,.1f} MB in the file; copy or export it again"
        )
    elsewhere = Path(dataset.file.filename).resolve() != Path(path).resolve()  # behind an external link
    if elsewhere or getattr(dataset, "external", None) or dataset.is_virtual:
        damage = "keeps its values in other files"
    else:
        damage = PROBE.problem(path, dataset.name)
    if damage:
        raise InputError(f"{path}: `{dataset.name.strip('/')}` {damage}; copy or export it again")


def check_announced(path: str | Path, n_bytes: int, compressed: bool) -> None:
    """Refuse a file whose header announces more data than the file can hold, before memory is allocated.

    Raises:
        InputError: more bytes than the file has, or could have compressed.
    """
    held = Path(path).stat().st_size
    if n_bytes > (max(_SMALL, _COMPRESSION * held) if compressed else held):
        raise InputError(
            f"{path}: expected readable voxel values, found a header that announces {n_bytes / 1e6:,.1f} MB in a file "
            f"of {held / 1e6:,.1f} MB; copy or export it again"
        )


def read_array(file: Any, key: str, path: str | Path) -> NDArray:
    """A small numeric dataset as a whole.

    Raises:
        InputError: a group, text or another type, or one that announces more than the file holds.
    """
    dataset = file[key]
    dtype = getattr(dataset, "dtype", None)
    if dtype is None or dtype.kind not in "buifc" or dataset.shape is None:
        raise InputError(f"{path}: `{key}` must be a dataset of numbers, found {dtype or 'a group'}")
    check_size(dataset, path)
    return np.asarray(dataset[()])


def read_small(file: Any, path: str | Path, without: Sequence[str] = ()) -> dict[str, Any]:
    """All datasets of a file but those named, as they are (numbers or text).

    Raises:
        InputError: one that announces more than the file holds.
    """
    found = {}
    for key, dataset in file.items():
        if key not in without and getattr(dataset, "dtype", None) is not None and dataset.shape is not None:
            check_size(dataset, path)
            found[key] = dataset[()]
    return found
