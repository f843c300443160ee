"""Errors as the user sees them: one line, however deep MONAI wrapped them."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import FrameType

from disinr_monai.errors import InputError
from disinr_monai.runtime.memory import is_out_of_memory, out_of_memory
from disinr_monai.runtime.run import RUN

SHOW = "DISINR_TRACEBACK"
# What MONAI says around the error that matters.
_WRAPPERS = ("Failed to instantiate component", "Failed to evaluate ")
_PACKAGE = str(Path(__file__).parents[1])
_ENGINE = str(Path("ignite", "engine", "engine.py"))


def install_excepthook() -> None:
    """Show input errors as one line, others (with ``DISINR_TRACEBACK=1`` all) with their traceback."""
    previous = sys.excepthook
    if getattr(previous, "is_disinr", False):
        return

    def hook(kind, error, traceback):
        line = None if os.environ.get(SHOW) else one_line(error)
        if line is None:
            previous(kind, error, traceback)
        else:
            sys.stderr.write(f"error: {RUN.hidden(line)}\n")

    hook.is_disinr = True
    sys.excepthook = hook


def one_line(error: BaseException) -> str | None:
    """One line for an :class:`InputError`, an out-of-memory error, or an error while objects were built from settings.

    None for anything else: an error in a running engine is a fault of the software and keeps its traceback.
    """
    chain = list(_chain(error))
    for cause in chain:
        if isinstance(cause, InputError):
            return " ".join(str(cause).splitlines())
        if is_out_of_memory(cause):
            return str(out_of_memory(cause, _scan_of(cause) or "this run"))
    place = _config_item(chain)
    if place is None or not isinstance(error, Exception):
        return None
    return f"{place}: {_reason(chain)}"


def _reason(chain: list[BaseException]) -> str:
    reason = next((cause for cause in chain if not str(cause).startswith(_WRAPPERS)), chain[-1])
    text = " ".join(str(reason).split())
    return f"{text[:300]} ({type(reason).__name__}; {SHOW}=1 shows where)"


def of_config_language(error: Exception) -> str | None:
    """One line for an error that MONAI raises while it reads configs and overrides.

    None if an engine or code of this package was running: that is a fault of the software.
    """
    chain = list(_chain(error))
    if any(_is_engine(frame) or frame.f_code.co_filename.startswith(_PACKAGE) for frame in _frames(chain)):
        return None
    return f"configs or overrides: {_reason(chain)}"


def _scan_of(error: BaseException) -> str | None:
    """Name of the scan that was being read when the error was raised."""
    name = None
    for frame in _frames([error]):
        case = frame.f_locals.get("case")
        if isinstance(case, Mapping) and "name" in case:
            name = str(case["name"])
    return name


def _chain(error: BaseException) -> Iterator[BaseException]:
    cause: BaseException | None = error
    while cause is not None:
        yield cause
        cause = cause.__cause__ or cause.__context__


def _config_item(chain: list[BaseException]) -> str | None:
    """Id of the innermost config item being built; None if there is none or an engine was running."""
    place = None
    for frame in _frames(chain):
        if _is_engine(frame):
            return None
        if frame.f_code.co_name == "_resolve_one_item":
            place = " ".join(str(frame.f_locals.get("id", "config")).replace("::", "#").split())[:200]
    return place


def _is_engine(frame: FrameType) -> bool:
    return frame.f_code.co_name == "run" and frame.f_code.co_filename.endswith(_ENGINE)


def _frames(chain: list[BaseException]) -> Iterator[FrameType]:
    for error in chain:
        step = error.__traceback__
        while step is not None:
            yield step.tb_frame
            step = step.tb_next
