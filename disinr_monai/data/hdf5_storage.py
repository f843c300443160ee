"""Where an HDF5 file says that its values lie, looked at before the HDF5 library asks for the memory."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

_ON_DISK = 16  # bytes of a reference to values of variable length: their number (4), address (8) and index (4)


def storage_damage(dataset: Any, path: str | Path) -> str:
    """What in the places of a dataset's values cannot be; empty if nothing is.

    A damaged number of chunk bytes or of values of variable length makes the library ask for as much memory, before it
    finds that the file is shorter.
    """
    held = Path(path).stat().st_size
    elsewhere = Path(dataset.file.filename).resolve() != Path(path).resolve()  # behind an external link
    if elsewhere or getattr(dataset, "external", None) or dataset.is_virtual:
        return "keeps its values in other files"
    chunks: list[tuple[int, int]] = []
    if dataset.chunks is not None:
        dataset.id.chunk_iter(lambda chunk: chunks.append((int(chunk.byte_offset), int(chunk.size))))
        if any(start + size > held for start, size in chunks):
            return "has a part beyond the end of the file"
    lengths = _lengths(dataset, path, chunks, held)
    if lengths is None:
        return "has a part beyond the end of the file"
    return f"announces {int(lengths):,} bytes in rows of variable length" if lengths > held else ""


def _lengths(dataset: Any, path: str | Path, chunks: list[tuple[int, int]], held: int) -> int | None:
    """Bytes that values of variable length announce; 0 where there are none or filters hide them, None if outside."""
    kind = dataset.id.get_type()
    members = list(_variable(kind))
    if not members or dataset.id.get_create_plist().get_nfilters():
        return 0
    is_text = kind.get_class() != _h5t().COMPOUND
    size = _ON_DISK if is_text else kind.get_size()
    starts = _starts(dataset, chunks, size)
    if len(starts) == 0:
        return 0
    if int(starts.max()) + size > held:
        return None
    content = np.memmap(path, dtype=np.uint8, mode="r")
    total = 0
    for offset, item in members:
        at = starts + offset
        number = sum(content[at + i].astype(np.int64) << (8 * i) for i in range(4))
        total += int(number.sum()) * item
    return total


def _h5t() -> Any:
    import h5py

    return h5py.h5t


def _variable(kind: Any, offset: int = 0) -> Iterator[tuple[int, int]]:
    """Places of the references in one element, and bytes of one value."""
    h5t = _h5t()
    if kind.get_class() == h5t.VLEN:
        yield offset, kind.get_super().get_size()
    elif kind.get_class() == h5t.STRING and kind.is_variable_str():
        yield offset, 1
    elif kind.get_class() == h5t.COMPOUND:
        for i in range(kind.get_nmembers()):
            yield from _variable(kind.get_member_type(i), offset + kind.get_member_offset(i))


def _starts(dataset: Any, chunks: list[tuple[int, int]], size: int) -> NDArray[np.int64]:
    """Where each element begins in the file; none where that is unknown (compact, not written, other sizes)."""
    block = dataset.file.userblock_size
    if dataset.chunks is not None:
        count = int(np.prod(dataset.chunks))
        if any(length != count * size for _, length in chunks):
            return np.zeros(0, np.int64)
        firsts = np.array([start for start, _ in chunks], dtype=np.int64)
        return (firsts[:, None] + np.arange(count) * size).ravel() + block
    first = dataset.id.get_offset()
    return np.zeros(0, np.int64) if first is None else int(first) + block + np.arange(dataset.size) * size
