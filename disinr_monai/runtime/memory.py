"""Memory of the process: settings of the allocator, and messages for out-of-memory errors on any device."""

from __future__ import annotations

import contextlib
import ctypes
import errno
import re
import resource
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, TypeVar

import torch

from disinr_monai.errors import InputError
from disinr_monai.runtime.run import RUN

_M_TRIM_THRESHOLD, _M_TOP_PAD, _M_MMAP_MAX = -1, -2, -4


def keep_freed_memory() -> None:
    """Let the C library keep large freed blocks instead of returning them to the system at once.

    Every iteration frees and allocates the same tensors of tens of MB. By default glibc maps each one anew and the
    kernel clears its pages: a quarter of the time of an adaptation iteration on a CPU (50,000 page faults). The process
    keeps its peak memory until it ends. Does nothing where the C library is another one.
    """
    if sys.platform.startswith("linux"):
        with contextlib.suppress(OSError, AttributeError):
            mallopt = ctypes.CDLL("libc.so.6").mallopt
            for key, value in ((_M_MMAP_MAX, 0), (_M_TRIM_THRESHOLD, 2**31 - 1), (_M_TOP_PAD, 2**28)):
                mallopt(key, value)


def return_freed_memory() -> None:
    """Return freed memory to the system, also holes between blocks in use. Does nothing without glibc."""
    if sys.platform.startswith("linux"):
        with contextlib.suppress(OSError, AttributeError):
            ctypes.CDLL("libc.so.6").malloc_trim(0)


def peak_memory_mb() -> float:
    """Peak memory of this process (MB): on the GPU if there is one, else resident."""
    if torch.cuda.is_available():
        return torch.cuda.max_memory_allocated() / 1e6
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / (1e6 if sys.platform == "darwin" else 1e3)


_SIGNS = ("out of memory", "can't allocate memory", "not enough memory", "std::bad_alloc", "STATUS_ALLOC_FAILED")
_ASKED = re.compile(r"(?:tried to allocate|Unable to allocate) ([\d.]+) (bytes|[KMGTPE]iB)", re.IGNORECASE)
_UNITS = {"bytes": 1, "kib": 2**10, "mib": 2**20, "gib": 2**30, "tib": 2**40, "pib": 2**50, "eib": 2**60}
_SMALLEST_PART = 2**10

# Options that decide how much is needed; only those that a run has are named.
_COSTLY = {
    "max_voxels": "a smaller --max_voxels", "points_per_step": "--points_per_step",
    "image_size": "a smaller --image_size (simulated scans)", "n_coils": "--n_coils (simulated scans)",
}  # fmt: skip
_T = TypeVar("_T")


def is_out_of_memory(error: BaseException) -> bool:
    """Tell whether an error of Python, NumPy, torch (CPU or CUDA) or the system means out of memory."""
    if isinstance(error, OSError):
        return error.errno == errno.ENOMEM
    return isinstance(error, MemoryError) or (
        isinstance(error, RuntimeError) and any(sign in str(error) for sign in _SIGNS)
    )


def out_of_memory(error: BaseException, what: str) -> InputError:
    """Make the error that tells the user what to reduce.

    Args:
        error: for which :func:`is_out_of_memory` is true.
        what: task that failed, a scan's name for instance.
    """
    found = _ASKED.search(str(error))
    asked = f" ({float(found[1]) * _UNITS[found[2].lower()] / 1e9:.3g} GB more were asked for)" if found else ""
    where = "GPU memory" if "CUDA" in str(error) else "memory"
    return InputError(f"{what}: {where} ran out{asked}; {needs_less(RUN.config, where)}")


def needs_less(settings: Mapping[str, Any], where: str = "memory") -> str:
    """List the options of a config that reduce memory, as the end of a sentence."""
    now = {key: str(value).lower() for key, value in settings.items()}
    options = ["a coarser --output_spacing"] if now.get("output_spacing", "none") != "none" else []
    options += [text for key, text in _COSTLY.items() if key in settings]
    if "train" in settings:  # all its scans are kept
        least = {"batch_size": "1", "slices_per_subject": "1", "subjects_on_disk": "true"}
    else:
        least = {"guard": "false"}
    options += [f"--{key} {value}" for key, value in least.items() if now.get(key, value) != value]
    if where == "GPU memory":
        options.append("--device cpu")
    return f"what needs less: {', '.join(options)}" if options else "use a smaller image or a machine with more memory"


@contextmanager
def tell_if_full(what: str, tell: Callable[[str], None]) -> Iterator[None]:
    """Pass the message to ``tell`` if memory runs out inside the block, and continue after it."""
    try:
        yield
    except (MemoryError, RuntimeError, OSError) as error:
        if not is_out_of_memory(error):
            raise
        tell(str(out_of_memory(error, what)))


def in_parts(function: Callable[[int], _T], size: int) -> _T:
    """Call ``function(size)``, with half the size each time memory runs out.

    For work that gives the same result in parts of any size.
    """
    while True:
        try:
            return function(size)
        except (MemoryError, RuntimeError) as error:
            if not is_out_of_memory(error) or size <= _SMALLEST_PART:
                raise
        # Outside the handler: inside, the error would keep the tensors of the failed attempt.
        size //= 2
        if torch.cuda.is_available():
            torch.cuda.empty_cache()
