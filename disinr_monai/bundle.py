"""Functions that the JSON configs call."""

from __future__ import annotations

import atexit
import gc
from pathlib import Path

from disinr_monai.checkpoints.of_run import check_pretrainable, load_pair, load_start, n_prior_passes
from disinr_monai.checkpoints.on_disk import place_moments, subject_place
from disinr_monai.data import SkipFailed, list_cases
from disinr_monai.fitting.prepare_batch import collate_cases, prepare_case, prepare_training_batch
from disinr_monai.handlers.resume import check_untrained
from disinr_monai.numerics.cache import use_cache
from disinr_monai.runtime.command_line import find_config, literal
from disinr_monai.runtime.device import as_amp, check_device
from disinr_monai.runtime.distributed import local_device, rank, shard, start_distributed, world_size
from disinr_monai.runtime.files import claim_output_dir
from disinr_monai.runtime.files import prepare_output_dir as _prepare
from disinr_monai.runtime.memory import keep_freed_memory
from disinr_monai.runtime.overrides import as_bool, check_config, check_modality, hyper_parameters, training_settings
from disinr_monai.runtime.progress import wants_bars
from disinr_monai.runtime.run import RUN
from disinr_monai.runtime.shown_errors import install_excepthook

__all__ = [
    "SkipFailed",
    "as_amp",
    "as_bool",
    "check_device",
    "check_modality",
    "check_pretrainable",
    "collate_cases",
    "hyper_parameters",
    "list_cases",
    "literal",
    "load_pair",
    "load_start",
    "local_device",
    "n_prior_passes",
    "place_moments",
    "prepare_case",
    "prepare_output_dir",
    "prepare_training_batch",
    "prepare_training_dir",
    "rank",
    "shard",
    "start",
    "subject_place",
    "training_settings",
    "use_cache",
    "wants_bars",
    "world_size",
]


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


def prepare_output_dir(output_dir: str | Path) -> Path:
    """Create the output folder, which the processes of a run share, and keep other runs out of it.

    Raises:
        InputError: it cannot be written, or another run writes there.
    """
    folder = _prepare(output_dir)
    if rank() == 0:
        claim_output_dir(folder)
    return folder


def prepare_training_dir(output_dir: str | Path, overwrite: bool, resume: bool) -> Path:
    """Create the output folder of a pre-training, which must not hold another one.

    Raises:
        InputError: as :func:`prepare_output_dir`; it holds a pre-training that is neither resumed nor to be replaced.
    """
    folder = prepare_output_dir(output_dir)
    check_untrained(folder, overwrite, resume)
    return folder
