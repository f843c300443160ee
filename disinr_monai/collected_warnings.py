"""The warnings of a run, for its report: what only scrolls by is not seen."""

from __future__ import annotations

import logging

_MOST = 200
_messages: dict[str, int] = {}


class _Collector(logging.Handler):
    def emit(self, record: logging.LogRecord) -> None:
        message = record.getMessage().splitlines()[0] if record.getMessage() else ""
        if message in _messages or len(_messages) < _MOST:
            _messages[message] = _messages.get(message, 0) + 1


_collector = _Collector(level=logging.WARNING)


def collect_warnings() -> None:
    """Begin anew: forget what was collected and listen to this package's loggers."""
    _messages.clear()
    logging.getLogger("disinr_monai").addHandler(_collector)  # adding it twice does nothing


def collected_warnings() -> list[str]:
    """Warnings and errors since then, each once, with the number of times."""
    return [message if n == 1 else f"{message} ({n} times)" for message, n in _messages.items()]
