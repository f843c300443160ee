"""The run of this process: its settings, its warnings, and the names that its log must not show."""

from __future__ import annotations

import logging
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

_PATHS = ("dataset_dir", "output_dir", "checkpoint", "bundle_root", "cache_dir")
_MOST = 200


class Run(logging.Handler):
    """State of the current run; a log handler that counts the warnings of this package.

    With ``--anonymize true`` it also rewrites the records of all log handlers (:meth:`hide`), so that a log can be
    shared like the results.

    Attributes:
        config: the merged config, before it is evaluated.
    """

    def __init__(self) -> None:
        super().__init__(level=logging.WARNING)
        self.config: Mapping[str, Any] = {}
        self._warnings: dict[str, int] = {}
        self._names: Callable[[str], str] | None = None
        self._folders: re.Pattern[str] | None = None

    def begin(self, config: Mapping[str, Any]) -> None:
        """Start a run. With ``anonymize`` log lines show no folder of it from here on.

        Called before anything is read, when the names of the scans are not known yet.
        """
        self.config, self._names, self._folders = config, None, None
        self._warnings.clear()
        logging.getLogger("disinr_monai").addHandler(self)  # adding it twice does nothing
        if str(config.get("anonymize")).strip().lower() == "true":
            self._folders = _pattern([config.get(key) for key in _PATHS])
        for handler in _all_handlers():
            handler.removeFilter(self.hide)
            if self._folders is not None:
                handler.addFilter(self.hide)

    def hide_names(self, text: Callable[[str], str]) -> None:
        """Also replace names (:meth:`disinr_monai.runtime.names.Names.text`), once the scans are listed."""
        if self._folders is not None:
            self._names = text

    def hidden(self, text: str) -> str:
        """Hide names and folders in a text."""
        if self._names is not None:
            text = self._names(text)
        return self._folders.sub("(hidden)", text) if self._folders is not None else text

    def hide(self, record: logging.LogRecord) -> bool:
        """Rewrite a record before it is written; the filter of all log handlers."""
        message = record.getMessage()
        private = self.hidden(message)
        if private != message:
            record.msg, record.args = private, ()
        if record.exc_info and record.exc_info[0] is not None:  # a traceback quotes paths
            record.exc_text = self.hidden(logging.Formatter().formatException(record.exc_info))
        return True

    def emit(self, record: logging.LogRecord) -> None:
        """Count a warning or an error."""
        message = (record.getMessage().splitlines() or [""])[0]
        if message in self._warnings or len(self._warnings) < _MOST:
            self._warnings[message] = self._warnings.get(message, 0) + 1

    def warnings(self) -> list[str]:
        """Warnings and errors so far, each once, with the number of times."""
        return [message if n == 1 else f"{message} ({n} times)" for message, n in self._warnings.items()]


RUN = Run()


def _pattern(paths: list[Any]) -> re.Pattern[str] | None:
    """Pattern of these folders, in any spelling, and of all paths in them."""
    given = [Path(path) for path in paths if path and not str(path).startswith(("$", "@"))]
    forms = {form for path in given for form in (path, path.absolute(), path.resolve())}
    texts = {str(form) for form in forms if len(form.parts) > 1 and form != Path(form.anchor)}
    if not texts:
        return None
    longest_first = "|".join(re.escape(text) for text in sorted(texts, key=len, reverse=True))
    # To the colon that ends what an error message names; folders may have blanks in their names.
    return re.compile(rf"(?<![\w.])(?:{longest_first})(?:/[^:|\n]*)?")


def _all_handlers() -> list[logging.Handler]:
    """Handlers of all loggers: MONAI's, which logs the command line, has its own."""
    loggers = [logging.getLogger(), *logging.getLogger().manager.loggerDict.values()]
    return [handler for logger in loggers for handler in getattr(logger, "handlers", ())]
