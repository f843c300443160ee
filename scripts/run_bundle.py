"""Run a bundle's configs, from others too.

    python scripts/run_bundle.py --trusted false run inference --config_file "['/downloads/configs/inference.json']" ...

The words after `--trusted` are those of `python -m monai.bundle`. With `--trusted false` the config files are first
checked: anything they would execute outside this package and a short allow-list is refused, and the code that runs is
this package's, not the copy in the downloaded bundle. The check has to come before MONAI
reads the file, hence a script. With `true` nothing is checked. Either way what MONAI cannot read, a missing file or a
misspelled name, is one line; `python -m monai.bundle` ends in a traceback before any code of ours runs.
"""

from __future__ import annotations

import ast
import os
import runpy
import sys

from trust import check_trusted

import disinr_monai.bundle
from disinr_monai.errors import InputError
from disinr_monai.runtime.overrides import as_bool
from disinr_monai.runtime.run import RUN
from disinr_monai.runtime.shown_errors import SHOW, of_config_language, one_line


def config_files(words: list[str]) -> list[str]:
    """The files named by `--config_file`.

    Raises:
        InputError: none named.
    """
    for i, word in enumerate(words):
        name, equals, value = word.partition("=")
        if name in ("--config_file", "--config-file"):
            text = value if equals else (words[i + 1] if i + 1 < len(words) else "")
            try:
                found = ast.literal_eval(text) if text.startswith(("[", "(")) else text
            except (SyntaxError, ValueError):
                found = ""
            if found:
                return [found] if isinstance(found, str) else [str(file) for file in found]
    raise InputError("config_file: expected --config_file FILE or \"['FILE','FILE']\", found none")


def main() -> None:
    words = sys.argv[1:]
    if len(words) < 3 or words[0] != "--trusted":
        raise SystemExit(__doc__)
    try:
        trusted, rest = as_bool(words[1]), words[2:]
        if not trusted:
            if any(word.startswith(("--args_file", "--args-file", "--logging_file", "--meta_file")) for word in rest):
                raise InputError("args_file, logging_file, meta_file: not with --trusted false")
            check_trusted(config_files(rest))
    except InputError as error:
        raise SystemExit(f"error: {error}") from None
    sys.argv = ["monai.bundle", *rest]
    try:
        runpy.run_module("monai.bundle", run_name="__main__", alter_sys=False)
    except Exception as error:
        line = None if os.environ.get(SHOW) else one_line(error) or of_config_language(error)
        if line is None:
            raise
        raise SystemExit(f"error: {RUN.hidden(line)}") from None


if __name__ == "__main__":
    assert disinr_monai.bundle  # imported before the bundle's own folder is on the path
    main()
