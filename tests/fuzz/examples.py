"""How many examples, how long one may take, and what is counted for the table at the end."""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from hypothesis import HealthCheck, given, settings
from hypothesis.strategies import SearchStrategy

from tests.faults.record import record_inputs

FEW, MANY = 25, 10_000
SECONDS = 20  # that one example may take at most


@contextmanager
def at_most(seconds: int = SECONDS) -> Iterator[None]:
    """Interrupt what hangs; a test that waits for its end would hang with it."""

    def stop(*_: object) -> None:
        raise AssertionError(f"still running after {seconds} s")

    before = signal.signal(signal.SIGALRM, stop)
    signal.alarm(seconds)
    try:
        yield
    finally:
        signal.alarm(0)
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
