"""Run a bundle's configs, from others too.

    python scripts/run_bundle.py --trusted false run inference --config_file "['/downloads/configs/inference.json']" ...

The words after `--trusted` are those of `python -m monai.bundle`. With `--trusted false` the config files are first
checked: anything they would execute outside this package and a short allow-list is refused, and the code that runs is
this package's, not the copy in the downloaded bundle. The check has to come before MONAI
reads the file, hence a script. With `true` nothing is checked, as with `python -m disinr_monai run ...`.
"""

from __future__ import annotations

import sys

from trust import check_trusted

from disinr_monai.__main__ import main as run
from disinr_monai.errors import InputError
from disinr_monai.runtime.command_line import config_files
from disinr_monai.runtime.overrides import as_bool


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
    run(rest)


if __name__ == "__main__":
    main()
