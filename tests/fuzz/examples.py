"""How many examples, how long one may take, and what is counted for the table at the end."""

import resource
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from hypothesis import HealthCheck, given, settings
from hypothesis.strategies import SearchStrategy

from tests.faults.record import record_inputs

FEW, MANY = 25, 10_000
SECONDS = 60  # that one example may take at most; a busy machine has stood still for 20


@contextmanager
def at_most(seconds: int = SECONDS) -> Iterator[None]:
    """Interrupt what hangs; a test that waits for its end would hang with it.

    Again and again: an exception raised while rubbish is collected goes no further.
    """

    def stop(*_: object) -> None:
        raise AssertionError(f"still running after {seconds} s")

    before = signal.signal(signal.SIGALRM, stop)
    signal.setitimer(signal.ITIMER_REAL, seconds, 1)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def run(strategy: SearchStrategy, body: Callable[[Any], None], n_examples: int, kind: str) -> None:
    """Give ``n_examples`` of a strategy to ``body`` and count them; a failing one counts as a crash."""
    options: dict[str, Any] = {"database": None, "deadline": None, "derandomize": n_examples == FEW}
    options["suppress_health_check"] = list(HealthCheck)
    done = 0

    def one(example: Any) -> None:
        nonlocal done
        with at_most():
            body(example)
        done += 1

    try:
        settings(max_examples=n_examples, **options)(given(strategy)(one))()
    except BaseException:
        record_inputs(kind, done + 1, 1)
        raise
    record_inputs(kind, done, 0)


def memory_mb(reset: bool = False) -> float:
    """Most resident memory since the last reset (MB), where the system can count anew; else since the start."""
    status, counter = Path("/proc/self/status"), Path("/proc/self/clear_refs")
    if not status.exists():
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (1e6 if sys.platform == "darwin" else 1e3)
    if reset:
        with suppress(OSError):
            counter.write_text("5")
    return int(status.read_text().split("VmHWM:")[1].split()[0]) / 1e3
