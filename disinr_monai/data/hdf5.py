from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from disinr_monai.errors import InputError


@contextmanager
def open_hdf5(path: str | Path) -> Iterator[Any]:
    """Open an HDF5 file for reading; everything that HDF5 dislikes about it becomes an :class:`InputError`."""
    import h5py

    if not Path(path).is_file():
        raise InputError(f"{path}: expected an HDF5 file, found no such file")
    try:
        with h5py.File(path, "r") as file:
            yield file
    except InputError:
        raise
    except (OSError, RuntimeError, KeyError) as error:
        raise InputError(
            f"{path}: expected a readable HDF5 file, found a damaged, truncated or different one "
            f"({str(error).splitlines()[0]}); copy or export it again"
        ) from error
