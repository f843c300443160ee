from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import torch


class SideBySide:
    """Run independent computations on the two halves of a CPU's threads, for tensors too small for all threads.

    On 256² images two threads inside one operation gain little, and where other programs use the same cores they wait
    for each other most of the time. Two computations of half the threads each gain nearly twofold and do not wait.
    With one thread, or on another device, everything runs at once in the calling thread, in the order given.

    A context manager. Autograd is off inside the computations.

    Args:
        device: where the tensors are.
    """

    def __init__(self, device: torch.device) -> None:
        self._n_threads = torch.get_num_threads()
        self._pool: ThreadPoolExecutor | None = None
        if device.type == "cpu" and self._n_threads > 1:
            self._pool = ThreadPoolExecutor(2, "reconstruct", torch.set_num_threads, (self._n_threads // 2,))

    def __enter__(self) -> SideBySide:
        return self

    def __exit__(self, *error: object) -> None:
        if self._pool is not None:
            self._pool.shutdown(cancel_futures=True)
            torch.set_num_threads(self._n_threads)

    def submit(self, function: Callable[..., Any], *arguments: Any) -> Future:
        """Start ``function(*arguments)``; the future has its result, or raises its error when asked."""
        if self._pool is not None:
            return self._pool.submit(_without_gradients, function, arguments)
        future: Future = Future()
        try:
            future.set_result(_without_gradients(function, arguments))
        except Exception as error:
            future.set_exception(error)
        return future


def _without_gradients(function: Callable[..., Any], arguments: tuple) -> Any:
    with torch.no_grad():  # a setting of each thread
        return function(*arguments)
