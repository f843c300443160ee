from __future__ import annotations

import json
import logging
import random
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.distributed as dist
from ignite.engine import Engine, Events
from torch import nn
from torch.optim import Optimizer

from disinr_monai.distributed import rank
from disinr_monai.errors import InputError
from disinr_monai.files import atomic_path

logger = logging.getLogger(__name__)

FILE_NAME = "private_resume_checkpoint.pt"


class ResumeCheckpoint:
    """Save the complete state of pre-training from time to time, and go on from it.

    The file holds network (all subject encoders: it is as private as the scans, and is named so), optimiser, schedule,
    trainer position and random states. It is replaced atomically, so a kill at any moment leaves the last good one.

    Args:
        output_dir: folder of the file.
        network: what is trained.
        optimizer: its optimiser.
        lr_scheduler: its schedule.
        settings: JSON-ready facts that must be the same when resuming (subjects, seed, modality, ...).
        interval_seconds: save after the first epoch that ends at least so long after the last save; 0 saves each epoch.
        extra: further parts by name, with ``state_dict`` and ``load_state_dict``.
        resume: go on from the file; without a file training starts at the beginning, with a note in the log.

    Raises:
        InputError: the file does not belong to these settings, or is damaged.
    """

    def __init__(
        self,
        output_dir: str,
        network: nn.Module,
        optimizer: Optimizer,
        lr_scheduler: Any,
        settings: dict[str, Any],
        interval_seconds: float = 60.0,
        resume: bool = False,
        extra: dict[str, Any] | None = None,
    ) -> None:
        # Every process has its own subjects, hence its own file.
        self.path = Path(output_dir) / (f"rank{rank()}_{FILE_NAME}" if rank() else FILE_NAME)
        self.parts = {"network": network, "optimizer": optimizer, "lr_scheduler": lr_scheduler, **(extra or {})}
        self.settings = json.loads(json.dumps(settings))
        self.interval_seconds, self.resume = interval_seconds, resume
        self._last = 0.0
        self._complete: dict[str, Any] | None = None

    def attach(self, engine: Engine) -> None:
        """Load before the run, save during and at the end of it."""
        if self.resume:
            self.load(engine)
        engine.add_event_handler(Events.STARTED, self._start)
        engine.add_event_handler(Events.EPOCH_COMPLETED, self._after_epoch)

    def _start(self, engine: Engine) -> None:
        self._last = time.monotonic()
        if self._complete:
            # Ignite starts a run anew whose state is complete; with its position back nothing is trained twice, and
            # what comes after the last epoch is still done.
            for name in ("iteration", "epoch_length"):
                setattr(engine.state, name, self._complete[name])
            engine.state.epoch = self._complete["iteration"] // self._complete["epoch_length"]
        for leftover in self.path.parent.glob(f".{self.path.stem}-*{self.path.suffix}"):  # of a kill while saving
            leftover.unlink(missing_ok=True)

    def _after_epoch(self, engine: Engine) -> None:
        due = time.monotonic() - self._last >= self.interval_seconds
        if _first_rank_says(due) or engine.state.epoch == engine.state.max_epochs:
            try:
                self.save(engine)
            except InputError as error:  # a full disk must not cost the training: the last good file stays
                logger.warning("no checkpoint after epoch %d: %s", engine.state.epoch, error)
            self._last = time.monotonic()

    def save(self, engine: Engine) -> None:
        """Write everything that the next iteration depends on."""
        state = {name: part.state_dict() for name, part in self.parts.items()}
        state["trainer"] = dict(engine.state_dict())
        state["random"] = _random_state()
        state["settings"] = json.dumps(self.settings)
        with atomic_path(self.path) as temporary:
            torch.save(state, temporary)

    def load(self, engine: Engine) -> None:
        """Restore everything that :meth:`save` wrote."""
        if not self.path.is_file():
            logger.warning("resume: no %s yet, training starts at the beginning", self.path)
            return
        state = self._read()
        found = json.loads(state["settings"])
        for key in sorted(self.settings.keys() | found.keys()):
            if self.settings.get(key) != found.get(key):
                raise InputError(
                    f"resume: {self.path} was written with {key} = {_short(found.get(key))}, this run has "
                    f"{_short(self.settings.get(key))}; use the same settings or another output_dir"
                )
        max_epochs = engine.state.max_epochs
        self._fill(state, self.parts)
        trainer = state["trainer"]
        if max_epochs is not None:
            if trainer["iteration"] > max_epochs * trainer["epoch_length"]:
                done = trainer["iteration"] // trainer["epoch_length"]
                raise InputError(f"max_epochs: {self.path} has {done} epochs behind it, found max_epochs {max_epochs}")
            trainer["max_epochs"] = max_epochs
        if trainer["iteration"] == trainer["max_epochs"] * trainer["epoch_length"]:
            self._complete = trainer
        engine.load_state_dict(trainer)
        _set_random_state(state["random"])
        logger.info("resumed after epoch %d", engine.state.epoch)

    def load_weights(self) -> None:
        """Take network, optimiser and extra parts back to the file; schedule and position stay where they are."""
        self._fill(self._read(), [name for name in self.parts if name != "lr_scheduler"])

    def _read(self) -> dict[str, Any]:
        try:
            # The file is ours, and numpy's and Python's random states are stored as plain tensors and text.
            state = torch.load(self.path, map_location="cpu", weights_only=True, mmap=True)
            json.loads(state["settings"])
        except Exception as error:
            raise InputError(f"resume: {self.path} cannot be read ({type(error).__name__}); start anew") from None
        return state

    def _fill(self, state: dict[str, Any], names: Iterable[str]) -> None:
        for name in names:
            try:
                self.parts[name].load_state_dict(state[name])
            except (KeyError, RuntimeError, ValueError) as error:
                reason = str(error).splitlines()[-1].strip()
                raise InputError(f"resume: {self.path} does not fit this network ({reason}); start anew") from None


def _first_rank_says(due: bool) -> bool:
    """One clock decides for all processes, or they would resume from different epochs."""
    if not dist.is_available() or not dist.is_initialized():
        return due
    decision = [due]
    dist.broadcast_object_list(decision, src=0)
    return decision[0]


def _short(value: Any) -> str:
    text = json.dumps(value)
    return text if len(text) <= 60 else text[:57] + "..."


def _random_state() -> dict[str, Any]:
    name, keys, position, has_gauss, cached = np.random.get_state()  # noqa: NPY002 (MONAI draws from the global state)
    version, internal, gauss = random.getstate()
    state: dict[str, Any] = {
        "torch": torch.get_rng_state(),
        "numpy": torch.from_numpy(keys.astype(np.int64)),
        "python": torch.tensor(internal, dtype=torch.int64),
        "rest": json.dumps([name, position, has_gauss, cached, version, gauss]),
    }
    if torch.cuda.is_available():
        state["cuda"] = torch.cuda.get_rng_state_all()
    return state


def _set_random_state(state: dict[str, Any]) -> None:
    name, position, has_gauss, cached, version, gauss = json.loads(state["rest"])
    torch.set_rng_state(state["torch"])
    keys = state["numpy"].numpy().astype(np.uint32)
    np.random.set_state((name, keys, position, has_gauss, cached))  # noqa: NPY002
    random.setstate((version, tuple(state["python"].tolist()), gauss))
    if "cuda" in state and torch.cuda.is_available():
        torch.cuda.set_rng_state_all(state["cuda"])
