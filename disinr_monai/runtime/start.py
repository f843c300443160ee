from __future__ import annotations

import atexit
import gc

from disinr_monai.runtime.distributed import start_distributed
from disinr_monai.runtime.logs import collect_warnings, hide_paths
from disinr_monai.runtime.memory import keep_freed_memory, remember_settings
from disinr_monai.runtime.overrides import check_overrides, find_config
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
    collect_warnings()
    check_overrides()
    parser, _ = find_config()
    remember_settings(parser.config if parser is not None else {})
    _keep_logs_private()
    if timeout_minutes is not None:
        start_distributed(timeout_minutes)


def _keep_logs_private() -> None:
    """With ``--anonymize true`` log lines name no folder of the run from here on, before any scan is read."""
    parser, _ = find_config()
    config = {} if parser is None else parser.config
    if str(config.get("anonymize")).strip().lower() != "true":
        hide_paths(())
        return
    given = [config.get(key) for key in ("dataset_dir", "output_dir", "checkpoint", "bundle_root")]
    hide_paths(path for path in given if path and not str(path).startswith(("$", "@")))
