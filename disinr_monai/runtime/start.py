from __future__ import annotations

import atexit
import gc

from disinr_monai.runtime.distributed import start_distributed
from disinr_monai.runtime.memory import keep_freed_memory
from disinr_monai.runtime.overrides import check_config, find_config
from disinr_monai.runtime.run import RUN
from disinr_monai.runtime.shown_errors import install_excepthook


def start(timeout_minutes: float | None = None) -> None:
    """Begin a run: install one-line errors, check the settings, tune the allocator; first in every ``initialize``.

    Args:
        timeout_minutes: join the processes that ``torchrun`` has started, and wait for them no longer than that.
    """
    install_excepthook()
    keep_freed_memory()
    # At exit Python collects cycles among all objects of all packages three times, which takes two seconds.
    atexit.register(gc.freeze)
    config, files = find_config()
    RUN.begin(config)
    if config:
        check_config(config, files)
    if timeout_minutes is not None:
        start_distributed(timeout_minutes)
