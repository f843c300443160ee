from __future__ import annotations

import contextlib
import ctypes
import resource
import sys

import torch

_M_TRIM_THRESHOLD, _M_TOP_PAD, _M_MMAP_MAX = -1, -2, -4


def keep_freed_memory() -> bool:
    """Let the C library keep large freed blocks instead of returning them to the system at once.

    Every iteration frees and allocates the same tensors of tens of MB. By default glibc maps each one anew and the
    kernel clears its pages: a quarter of the time of an adaptation iteration on a CPU (50,000 page faults). The process
    keeps its peak memory until it ends. Does nothing where the C library is another one.

    Returns:
        Whether the setting was made.
    """
    if not sys.platform.startswith("linux"):
        return False
    try:
        mallopt = ctypes.CDLL("libc.so.6").mallopt
    except (OSError, AttributeError):
        return False
    settings = ((_M_MMAP_MAX, 0), (_M_TRIM_THRESHOLD, 2**31 - 1), (_M_TOP_PAD, 2**28))
    return all(mallopt(key, value) == 1 for key, value in settings)


def return_freed_memory() -> None:
    """Give what was freed back to the system, also holes between blocks in use. Does nothing without glibc."""
    if sys.platform.startswith("linux"):
        with contextlib.suppress(OSError, AttributeError):
            ctypes.CDLL("libc.so.6").malloc_trim(0)


def peak_memory_mb() -> float:
    """Most memory this process has used so far (MB): on the GPU if there is one, else resident."""
    if torch.cuda.is_available():
        return torch.cuda.max_memory_allocated() / 1e6
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / (1e6 if sys.platform == "darwin" else 1e3)
