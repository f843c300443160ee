"""Log lines without the names of persons: with ``--anonymize true`` a log can be passed on like the results."""

from __future__ import annotations

import logging
import re
from collections.abc import Callable, Iterable
from pathlib import Path

_hide: Callable[[str], str] | None = None
_folders: re.Pattern[str] | None = None


class _Filter(logging.Filter):
    """Rewrites a record before any handler writes it."""

    def filter(self, record: logging.LogRecord) -> bool:
        message = record.getMessage()
        private = hidden(message)
        if private != message:
            record.msg, record.args = private, ()
        if record.exc_info and record.exc_info[0] is not None:  # a traceback quotes paths
            record.exc_text = hidden(logging.Formatter().formatException(record.exc_info))
        return True


_filter = _Filter()


def hide_paths(paths: Iterable[str | Path | None]) -> None:
    """From now on hide these folders, and what lies in them, in every log line and error of this process.

    It comes before anything is read, when the names of the scans are not known yet. No paths: hide nothing.
    """
    global _hide, _folders
    _hide, _folders = None, None
    forms = {
        form for path in paths if path for form in (str(path), str(Path(path).absolute()), str(Path(path).resolve()))
    }
    forms = {form for form in forms if len(Path(form).parts) > 1 and form != Path(form).anchor}
    for handler in _handlers():
        handler.removeFilter(_filter)
        if forms:
            handler.addFilter(_filter)
    if forms:
        longest_first = "|".join(re.escape(form) for form in sorted(forms, key=len, reverse=True))
        # To the colon that ends what an error message names; folders may have blanks in their names.
        _folders = re.compile(rf"(?<![\w.])(?:{longest_first})(?:/[^:|\n]*)?")


def _handlers() -> list[logging.Handler]:
    """Of all loggers: MONAI's, which repeats the command line, has one of its own."""
    loggers = [logging.getLogger(), *logging.getLogger().manager.loggerDict.values()]
    return [handler for logger in loggers for handler in getattr(logger, "handlers", ())]


def hide_names(text: Callable[[str], str]) -> None:
    """Also put neutral names in (:meth:`disinr_monai.runtime.names.Names.text`), once the scans are listed."""
    global _hide
    if _folders is not None:
        _hide = text


def hidden(text: str) -> str:
    """``text`` as it may be logged."""
    if _hide is not None:
        text = _hide(text)
    return _folders.sub("(hidden)", text) if _folders is not None else text


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
