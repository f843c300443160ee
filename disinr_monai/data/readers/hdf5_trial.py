"""Trial reading of HDF5 files in a helper process: the HDF5 library crashes on some damaged files.

Run as a script it answers questions on standard input, one a line, with a line each (both JSON): a path and the name of
a dataset, or an empty name for the whole file; what is wrong, or an empty text. It imports nothing of this package, to
start quickly.
"""

from __future__ import annotations

import atexit
import contextlib
import json
import os
import queue
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

import numpy as np

_ROW_BYTES = 2**20  # larger rows are left out
_SECONDS = 300.0  # a slow disk is no hang,
_CPU_SECONDS = 10.0  # but work without end is
_MEMORY = 2**28  # bytes, and four times the file: damaged sizes within a file make the library ask for any number
_REFERENCE_BYTES = 16  # of values of variable length: their number (4), address (8) and index (4)
_GREEDY = "the HDF5 library asks for far more memory for it than it is large"


class Probe:
    """One helper process for all files; started with the first, and again after a crash."""

    def __init__(self) -> None:
        self._process: subprocess.Popen[str] | None = None
        self._answers: queue.SimpleQueue[str] = queue.SimpleQueue()
        self._owner = 0
        self._lock = threading.Lock()
        self._known: dict[tuple[str, str, int, int], str] = {}

    def problem(self, path: str | Path, dataset: str = "") -> str:
        """Describe the problem found by reading a file (or a dataset's storage) on trial; empty if there is none.

        Errors that the library reports by itself are not found here.
        """
        status = Path(path).stat()
        key = (str(Path(path).resolve()), dataset, status.st_mtime_ns, status.st_size)
        with self._lock:
            if key not in self._known:
                if len(self._known) > 10_000:
                    self._known.clear()
                self._known[key] = self._ask(key[:2])
            return self._known[key]

    def _ask(self, question: tuple[str, str]) -> str:
        if not self._start():
            return ""
        answer = ""
        try:
            with contextlib.suppress(OSError, queue.Empty):
                self._process.stdin.write(json.dumps(question) + "\n")
                self._process.stdin.flush()
                answer = self._answers.get(timeout=_SECONDS)
        except BaseException:  # interrupted: its late answer must not be taken for one about the next file
            self.close()
            raise
        if answer.endswith("\n"):
            return json.loads(answer)
        self.close()
        return "the HDF5 library crashes or hangs on it"

    def _start(self) -> bool:
        """Start the helper process; False if that is impossible, and files are then read without trial."""
        if self._owner != os.getpid():  # after a fork the pipes are the parent's
            self._process, self._owner = None, os.getpid()
        if self._process is None:
            code = "import runpy, sys; runpy.run_path(sys.argv[1], run_name='__main__')"
            with contextlib.suppress(OSError):
                self._process = subprocess.Popen(
                    [sys.executable, "-c", code, __file__],
                    stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True,
                )  # fmt: skip
                atexit.register(self.close)
                if self._process.stdout.readline() != "ready\n":
                    self.close()
                else:
                    self._answers = queue.SimpleQueue()
                    forward = threading.Thread(target=_forward, args=(self._process.stdout, self._answers), daemon=True)
                    forward.start()
        return self._process is not None

    def close(self) -> None:
        """End the helper process."""
        atexit.unregister(self.close)
        process, self._process = self._process, None
        if process is not None and self._owner == os.getpid():
            process.kill()
            process.wait()
            with contextlib.suppress(OSError):  # a question that was never read
                process.stdin.close()


def _forward(lines: IO[str], answers: queue.SimpleQueue[str]) -> None:
    """Pass lines on, so that they can be waited for with a limit; then an empty one: the helper process has ended."""
    with lines:
        for line in lines:
            answers.put(line)
    answers.put("")


PROBE = Probe()


def read_on_trial(path: str) -> str:
    """Read names, attributes, shapes and first rows of all that is in a file; say whether that takes memory."""
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
    return _GREEDY if greedy else ""


def storage_damage(path: str, name: str) -> str:
    """Describe impossible storage locations of a dataset's values; empty if there are none.

    A damaged number of chunk bytes or of values of variable length makes the library ask for as much memory, before it
    finds that the file is shorter.
    """
    import h5py

    held = Path(path).stat().st_size
    with h5py.File(path, "r") as file:
        dataset, pieces = file[name], []
        kind, first = dataset.id.get_type(), dataset.id.get_offset()
        members = list(_variable(kind))
        size = _REFERENCE_BYTES if members and kind.get_class() != h5py.h5t.COMPOUND else kind.get_size()
        if dataset.chunks is not None:
            dataset.id.chunk_iter(lambda chunk: pieces.append((int(chunk.byte_offset), int(chunk.size))))
        elif first is not None:
            pieces.append((int(first), int(dataset.size) * size))
        block = dataset.file.userblock_size
        if dataset.id.get_create_plist().get_nfilters():
            members = []  # hidden
    if any(block + start + length > held for start, length in pieces):
        return "has a part beyond the end of the file"
    content, announced = np.memmap(path, dtype=np.uint8, mode="r"), 0
    for start, length in pieces if members else ():
        elements = content[block + start :][: length // size * size].reshape(-1, size)
        for offset, item in members:
            announced += int(elements[:, offset : offset + 4].copy().view("<u4").sum(dtype=np.int64)) * item
    return f"announces {announced:,} bytes in rows of variable length" if announced > held else ""


def _variable(kind: Any, offset: int = 0) -> Iterator[tuple[int, int]]:
    """Places of the references in one element, and bytes of one value."""
    from h5py import h5t

    if kind.get_class() == h5t.VLEN:
        yield offset, kind.get_super().get_size()
    elif kind.get_class() == h5t.STRING and kind.is_variable_str():
        yield offset, 1
    elif kind.get_class() == h5t.COMPOUND:
        for i in range(kind.get_nmembers()):
            yield from _variable(kind.get_member_type(i), offset + kind.get_member_offset(i))


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

    sys.stdout.write("ready\n")
    sys.stdout.flush()
    for line in sys.stdin:
        file, name = json.loads(line)
        said = ""
        with limited(file), contextlib.suppress(Exception):  # the reader meets the same error, and says so
            said = storage_damage(file, name) if name else read_on_trial(file)
        sys.stdout.write(json.dumps(said) + "\n")
        sys.stdout.flush()
