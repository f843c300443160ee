"""``python -m disinr_monai run ...``: the words of ``python -m monai.bundle``, and every error of theirs in one line.

MONAI's own command ends in a traceback where a config file is missing or a setting cannot be parsed, because it reads
them before any code of this package runs.
"""

from __future__ import annotations

import os
import runpy
import sys
from collections.abc import Sequence

import disinr_monai.bundle
from disinr_monai.errors import InputError
from disinr_monai.runtime.command_line import config_files, typed_words
from disinr_monai.runtime.run import RUN
from disinr_monai.runtime.shown_errors import SHOW, of_config_language, one_line


def main(words: Sequence[str]) -> None:
    """Run a command of ``monai.bundle``.

    Args:
        words: of the command line after ``monai.bundle``.
    """
    assert disinr_monai.bundle  # imported before a bundle's own folder is on the path
    is_run = list(words[:1]) == ["run"] and "args_file" not in typed_words(words)
    if is_run and not os.environ.get(SHOW):
        try:
            config_files(words)
        except InputError as error:
            raise SystemExit(f"error: {error}") from None
    sys.argv = ["monai.bundle", *words]
    try:
        runpy.run_module("monai.bundle", run_name="__main__", alter_sys=False)
    except Exception as error:
        below = error.with_traceback(error.__traceback__.tb_next if error.__traceback__ else None)
        line = None if os.environ.get(SHOW) else one_line(below) or of_config_language(below)
        if line is None:
            raise
        raise SystemExit(f"error: {RUN.hidden(line)}") from None


if __name__ == "__main__":
    main(sys.argv[1:])
