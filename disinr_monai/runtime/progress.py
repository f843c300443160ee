"""Progress of a long task: a bar on a terminal, log lines elsewhere."""

from __future__ import annotations

import logging
import sys
import time
from typing import Any

import torch
from ignite.engine import Engine
from monai.utils import CommonKeys
from torch import Tensor
from tqdm import tqdm

logger = logging.getLogger(__name__)


def current_loss(engine: Engine) -> Tensor | None:
    """Loss of the current iteration, detached; None for an engine without one."""
    output = engine.state.output
    if not isinstance(output, dict) or CommonKeys.LOSS not in output:
        return None
    return torch.as_tensor(output[CommonKeys.LOSS]).detach()


def wants_bars(quiet: bool) -> bool:
    """Tell whether bars can be drawn: not in a log file or a pipe, where each step would be a line."""
    return not quiet and sys.stderr.isatty()


class _Bar(tqdm):
    """Progress bar on a monotonic clock; tqdm's stalls when the system clock is set back."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self._time = time.monotonic
        self.start_t = self.last_print_t = self._time()


class Steps:
    """Progress bar with the latest loss and the time left; without a terminal a log line every ``interval`` seconds.

    Args:
        total: steps in all.
        name: of the task.
        quiet: show nothing.
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
        """Count a step, and show its loss if known."""
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
        """Remove or keep the bar, or log a last line with the time it took."""
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

    def __exit__(self, *error: object) -> None:
        self.close()


def _duration(seconds: float) -> str:
    minutes, seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes:02d} min" if hours else f"{minutes} min {seconds:02d} s" if minutes else f"{seconds} s"
