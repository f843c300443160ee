"""Reads HDF5 files on trial, in a process of its own: the HDF5 library crashes on some damaged files.

Run as a script it takes paths on standard input, one a line, and answers each with a line. It imports nothing of this
package, to start quickly.
"""

from __future__ import annotations

import atexit
import contextlib
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

_ROW_BYTES = 2**20  # larger rows are left out
_SECONDS = 300.0  # a slow disk is no hang,
_CPU_SECONDS = 10.0  # but work without end is
_MEMORY = 2**28  # bytes, and four times the file: damaged sizes within a file make the library ask for any number


class Probe:
    """One helper process for all files; started with the first, and again after a crash."""

    def __init__(self) -> None:
        self._process: subprocess.Popen[str] | None = None
        self._owner = 0
        self._lock = threading.Lock()
        self._known: dict[tuple[str, int, int], str] = {}

    def problem(self, path: str | Path) -> str:
        """What happened when the file was read on trial; empty if nothing did or only an error that is no crash."""
        status = Path(path).stat()
        key = (str(Path(path).resolve()), status.st_mtime_ns, status.st_size)
        with self._lock:
            if key not in self._known:
                if len(self._known) > 10_000:
                    self._known.clear()
                self._known[key] = self._ask(key[0])
            return self._known[key]

    def _ask(self, path: str) -> str:
        if "\n" in path or "\r" in path or not self._start():
            return ""
        process = self._process
        timer = threading.Timer(_SECONDS, process.kill)
        timer.daemon = True
        timer.start()
        answer = ""
        try:
            with contextlib.suppress(OSError):
                process.stdin.write(path + "\n")
                process.stdin.flush()
                answer = process.stdout.readline()
        except BaseException:  # interrupted: its late answer must not be taken for one about the next file
            self.close()
            raise
        finally:
            timer.cancel()
        if answer == "read\n":
            return ""
        if answer:
            return "the HDF5 library asks for far more memory for it than it is large"
        self.close()
        return "the HDF5 library crashes or hangs on it"

    def _start(self) -> bool:
        """Whether there is a helper process; where none can be made files are read untried."""
        if self._owner != os.getpid():  # after a fork the pipes are the parent's
            self._process, self._owner = None, os.getpid()
        if self._process is None:
            code = "import runpy, sys; runpy.run_path(sys.argv[1], run_name='__main__')"
            with contextlib.suppress(OSError):
                self._process = subprocess.Popen(
                    [sys.executable, "-c", code, __file__],
                    stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True,
                    encoding="utf-8", errors="surrogateescape",
                )  # fmt: skip
                atexit.register(self.close)
                if self._process.stdout.readline() != "ready\n":
                    self.close()
        return self._process is not None

    def close(self) -> None:
        """End the helper process."""
        atexit.unregister(self.close)
        process, self._process = self._process, None
        if process is not None and self._owner == os.getpid():
            process.kill()
            process.communicate()


PROBE = Probe()


def read_on_trial(path: str) -> str:
    """Names, attributes, shapes and first rows of all that is in a file.

    Returns:
        `read`, or `greedy` if the library asked for far more memory than the file is large.
    """
    import h5py

    greedy = False

    @contextlib.contextmanager
    def tried() -> Iterator[None]:
        nonlocal greedy
        try:
            yield
        except Exception as error:
            greedy |= isinstance(error, MemoryError) or "memory allocation" in str(error)

    def visit(_: str, item: object) -> None:
        with tried():
            for name in item.attrs:
                with tried():
                    item.attrs[name]
        with tried():
            if isinstance(item, h5py.Dataset) and item.shape is not None:
                rows = max(item.shape[0], 1) if item.shape else 1
                if item.dtype.itemsize * item.size / rows <= _ROW_BYTES:
                    item[:1] if item.shape else item[()]

    with tried(), h5py.File(path, "r") as file:
        visit("/", file)
        file.visititems(visit)
    return "greedy" if greedy else "read"


@contextlib.contextmanager
def limited(path: str) -> Iterator[None]:
    """Bounds on memory and on processor time, where the system has them; the end of the latter ends the process."""
    if sys.platform != "linux":
        yield
        return
    import resource

    held = Path(path).stat().st_size if Path(path).is_file() else 0
    used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    before = resource.getrlimit(resource.RLIMIT_AS)
    resource.setrlimit(resource.RLIMIT_AS, (used + _MEMORY + 4 * held, before[1]))
    signal.setitimer(signal.ITIMER_PROF, _CPU_SECONDS)  # its signal ends work within the library too
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)
        resource.setrlimit(resource.RLIMIT_AS, before)


if __name__ == "__main__":
    import h5py  # noqa: F401  (without it nobody is ready)

    sys.stdin.reconfigure(encoding="utf-8", errors="surrogateescape")
    sys.stdout.write("ready\n")
    sys.stdout.flush()
    for line in sys.stdin:
        name = line.rstrip("\n")
        with limited(name):
            said = read_on_trial(name)
        sys.stdout.write(said + "\n")
        sys.stdout.flush()


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
