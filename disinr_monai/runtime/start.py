from __future__ import annotations

import atexit
import gc

from disinr_monai.runtime.command_line import find_config
from disinr_monai.runtime.distributed import start_distributed
from disinr_monai.runtime.memory import keep_freed_memory
from disinr_monai.runtime.overrides import check_config
from disinr_monai.runtime.run import RUN
from disinr_monai.runtime.shown_errors import install_excepthook


def start(timeout_minutes: float | None = None) -> None:
    """First line of every ``initialize`` list: readable errors, no override that nobody reads, quick memory.

    Args:
        timeout_minutes: join the processes that ``torchrun`` has started, and wait for them no longer than that.
    """
    install_excepthook()
    keep_freed_memory()
    # At the end Python looks for cycles among all objects of all packages, three times, which takes two seconds.
    atexit.register(gc.freeze)
    config, files = find_config()
    RUN.begin(config)
    if config:
        check_config(config, files)
    if timeout_minutes is not None:
        start_distributed(timeout_minutes)
