"""How far a long task is: a bar on a terminal, plain log lines elsewhere."""

from __future__ import annotations

import logging
import sys
import time
from types import TracebackType
from typing import Any

from tqdm import tqdm

logger = logging.getLogger(__name__)


def wants_bars(quiet: bool) -> bool:
    """Whether bars can be drawn: not in a log file or a pipe, where each step would be a line."""
    return not quiet and sys.stderr.isatty()


class _Bar(tqdm):
    """A bar by the clock that nobody can set: tqdm's own would stand still for as long as the other is set back."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self._time = time.monotonic
        self.start_t = self.last_print_t = self._time()


class Steps:
    """A bar with the latest loss and the time left; without a terminal a log line every ``interval`` seconds.

    Args:
        total: steps in all.
        name: what is being done.
        quiet: show nothing at all.
        initial: steps done before.
        leave: keep the finished bar on the terminal; without one, a task that took less than ``interval`` is silent.
        interval: seconds between two log lines.
    """

    def __init__(
        self, total: int, name: str, quiet: bool = False, initial: int = 0, leave: bool = True, interval: float = 10.0
    ) -> None:
        self.total, self.name, self.done, self.leave, self.interval = total, name, initial, leave, interval
        self._initial, self._started = initial, time.monotonic()
        self._spoke, self._said, self._loss = self._started, 0, ""
        self._bar = _Bar(total=total, initial=initial, desc=name, leave=leave) if wants_bars(quiet) else None
        self._lines = not quiet and self._bar is None

    def update(self, loss: float | None = None) -> None:
        """One step more, and its loss where it is known."""
        self.done += 1
        if loss is not None:
            self._loss = f"{loss:.3g}"
        if self._bar is not None:
            if loss is not None:
                self._bar.set_postfix(loss=self._loss)
            self._bar.update()
        elif self._lines and time.monotonic() - self._spoke >= self.interval:
            self._say()

    def close(self) -> None:
        """The end: the bar goes or stays, a last line says how long it took."""
        if self._bar is not None:
            self._bar.close()
        elif self._lines and self._said < self.done and (self.leave or self._said):
            self._say()
        self._bar, self._lines = None, False

    def _say(self) -> None:
        self._spoke, self._said = time.monotonic(), self.done
        elapsed = self._spoke - self._started
        left = elapsed / max(self.done - self._initial, 1) * (self.total - self.done)
        loss = f", loss {self._loss}" if self._loss else ""
        when = f"{_duration(left)} left" if self.done < self.total else "done"
        logger.info(
            "%s: %d of %d (%.0f %%)%s, %s, %s",
            self.name, self.done, self.total, 100 * self.done / max(self.total, 1), loss, _duration(elapsed), when,
        )  # fmt: skip

    def __enter__(self) -> Steps:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()


def _duration(seconds: float) -> str:
    minutes, seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes:02d} min" if hours else f"{minutes} min {seconds:02d} s" if minutes else f"{seconds} s"
