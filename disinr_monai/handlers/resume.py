from __future__ import annotations

import json
import logging
import random
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.distributed as dist
from ignite.engine import Engine, Events
from torch import nn
from torch.optim import Optimizer

from disinr_monai.checkpoints.named_state import (
    is_own,
    load_network_state,
    load_optimizer_state,
    network_state,
    optimizer_state,
)
from disinr_monai.checkpoints.safe_load import load_plain, save_plain, tensor_damage
from disinr_monai.errors import InputError
from disinr_monai.runtime.config_files import nodes
from disinr_monai.runtime.distributed import rank, world_size

logger = logging.getLogger(__name__)

FILE_NAME = "private_resume_checkpoint.pt"


def check_untrained(folder: Path, overwrite: bool = False, resume: bool = False) -> None:
    """Keep the weights of an earlier pre-training, unless they are to be replaced or to be gone on from.

    Replaced ones leave no private checkpoint behind, from which a later ``resume`` could go on instead.

    Raises:
        InputError: the folder holds ``model.pt`` or the private checkpoint.
    """
    found = [name for name in ("model.pt", FILE_NAME) if (folder / name).is_file()]
    if not found or resume:
        return
    if not overwrite:
        raise InputError(
            f"output_dir: {folder} holds {' and '.join(found)} of an earlier pre-training; give another folder, "
            "--resume true to go on with it, or --overwrite true to replace it"
        )
    if rank() == 0:
        logger.warning("overwrite: %s of an earlier pre-training in %s is replaced", " and ".join(found), folder)
        for file in folder.glob(f"{Path(FILE_NAME).stem}*.pt"):
            file.unlink(missing_ok=True)


class ResumeCheckpoint:
    """Save the complete state of pre-training at intervals, and resume from it.

    The file holds network (all subject encoders, hence it is as private as the scans), optimiser, schedule, trainer
    position and random states. It is replaced atomically, so a kill at any moment leaves the last good one.

    With many processes each writes the subject encoders of its own cases to a part,
    ``private_resume_checkpoint_EPOCH_RANKofN.pt``; when all parts are there, the first process writes the rest to
    ``private_resume_checkpoint.pt`` with the names of the parts, and removes older parts. Any number of processes can
    go on from them. ``output_dir`` must be one folder that all machines see.

    Args:
        output_dir: folder of the files.
        network: what is trained.
        optimizer: its optimiser.
        lr_scheduler: its schedule.
        settings: JSON-ready facts that must be the same when resuming (subjects, seed, modality, ...).
        interval_seconds: save after the first epoch that ends at least so long after the last save; 0 saves each epoch.
        extra: further parts by name, with ``state_dict`` and ``load_state_dict``, the same in all processes.
        resume: resume from the file; without a file training starts at the beginning, with a warning.

    Raises:
        InputError: the file does not belong to these settings, or is damaged, or a part is missing.
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
        self.path = Path(output_dir) / FILE_NAME
        self.network, self.optimizer = network, optimizer
        self.others = {"lr_scheduler": lr_scheduler, **(extra or {})}
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
            # Ignite restarts a run whose state is complete; with its position restored nothing is trained twice, and
            # what follows the last epoch is still done.
            engine.state.iteration = self._complete["iteration"]
            engine.state.epoch_length = self._complete["epoch_length"]
            engine.state.epoch = self._complete["max_epochs"]
        if rank() == 0:
            for stem in (self.path.stem, "model"):  # of a kill while one of them was saved
                for leftover in self.path.parent.glob(f".{stem}*-*.pt"):
                    leftover.unlink(missing_ok=True)

    def _after_epoch(self, engine: Engine) -> None:
        due = time.monotonic() - self._last >= self.interval_seconds
        if _first_rank_says(due) or engine.state.epoch == engine.state.max_epochs:
            try:
                self.save(engine)
            except InputError as error:  # a full disk must not cost the training: the last good file stays
                if world_size() > 1:  # the others wait for this part
                    raise
                logger.warning("no checkpoint after epoch %d: %s", engine.state.epoch, error)
            self._last = time.monotonic()

    def save(self, engine: Engine) -> None:
        """Write the complete state of the training."""
        own = {
            "network": network_state(self.network, self.optimizer),
            "optimizer": optimizer_state(self.network, self.optimizer),
            "random": _random_state(),
        }
        state = {name: part.state_dict() for name, part in self.others.items()}
        state["trainer"] = dict(engine.state_dict())
        state["settings"] = json.dumps(self.settings)
        n_parts = world_size()
        state["parts"] = parts = []
        if n_parts > 1:
            parts += [f"{self.path.stem}_{engine.state.epoch}_{i}of{n_parts}{self.path.suffix}" for i in range(n_parts)]
            save_plain(self.path.parent / parts[rank()], _select(own, is_own))
            dist.barrier()  # the file that names the parts comes after all of them
            own = _select(own, lambda name: not is_own(name))
        if rank() == 0:
            save_plain(self.path, {**state, **own})
            for old in self.path.parent.glob(f"{self.path.stem}_*{self.path.suffix}"):
                if old.name not in parts:
                    old.unlink(missing_ok=True)

    def load(self, engine: Engine) -> None:
        """Restore the state written by :meth:`save`."""
        if not self.path.is_file():
            logger.warning("resume: no %s yet, training starts at the beginning", self.path)
            return
        try:
            self._restore(engine, _read(self.path))
        except InputError:
            raise
        except (KeyError, TypeError, ValueError, AttributeError, IndexError, RuntimeError, ArithmeticError) as error:
            reason = " ".join(str(error).split())[:200]
            raise InputError(
                f"resume: {self.path} is damaged or was written by another version ({type(error).__name__}: {reason}); "
                "start anew"
            ) from None
        logger.info("resumed after epoch %d", engine.state.epoch)

    def _restore(self, engine: Engine, state: dict[str, Any]) -> None:
        found = json.loads(state["settings"])
        changed = _changed(found, self.settings)
        if changed:
            raise InputError(f"resume: {self.path} was {changed}; use the same settings or another output_dir")
        names = list(state["parts"])
        if any(not isinstance(name, str) or Path(name).name != name for name in names):  # never out of the folder
            raise ValueError("names of parts with a folder")
        parts = [_read(self.path.parent / name) for name in names]
        trainer, max_epochs = state["trainer"], engine.state.max_epochs
        done, trainer["max_epochs"] = trainer["iteration"] / trainer["epoch_length"], max_epochs
        if done > max_epochs:
            raise InputError(f"max_epochs: {self.path} has {done:.0f} epochs behind it, found max_epochs {max_epochs}")
        if done == max_epochs:
            self._complete = trainer
        for part in parts:
            state["network"] |= part["network"]
            state["optimizer"]["state"] |= part["optimizer"]["state"]
        self._fill(state, self.others)
        engine.load_state_dict(trainer)
        if max(len(parts), 1) == world_size():  # other processes draw other numbers anyway
            _set_random_state((parts[rank()] if parts else state)["random"])

    def load_weights(self) -> None:
        """Restore network, optimiser and extra parts; schedule and position stay. For a single process only."""
        self._fill(_read(self.path), [name for name in self.others if name != "lr_scheduler"])

    def _fill(self, state: dict[str, Any], others: Iterable[str]) -> None:
        try:
            load_network_state(self.network, self.optimizer, state["network"])
            load_optimizer_state(self.network, self.optimizer, state["optimizer"])
            for name in others:
                self.others[name].load_state_dict(state[name])
        except (KeyError, RuntimeError, ValueError) as error:
            reason = str(error).splitlines()[-1].strip()
            raise InputError(f"resume: {self.path} does not fit this network ({reason}); start anew") from None


def _select(own: dict[str, Any], wanted: Callable[[str], bool]) -> dict[str, Any]:
    """The part of a state whose tensors have wanted names."""
    states = {name: value for name, value in own["optimizer"]["state"].items() if wanted(name)}
    return {
        "network": {name: value for name, value in own["network"].items() if wanted(name)},
        "optimizer": {**own["optimizer"], "state": states},
        "random": own["random"],
    }


def _read(path: Path) -> dict[str, Any]:
    state = load_plain(path, "resume", "start anew", mmap=True)
    if not isinstance(state, dict) or not {"network", "optimizer", "random"} <= state.keys():
        raise InputError(f"resume: {path} was written by another version; start anew")
    damage = tensor_damage(state["network"])
    if damage:
        raise InputError(f"resume: {path} cannot be used: {damage}; start anew")
    return state


def _first_rank_says(due: bool) -> bool:
    """The first process decides for all, or they would resume from different epochs."""
    decision = [due]
    if world_size() > 1:
        dist.broadcast_object_list(decision, src=0)
    return decision[0]


_ABSENT = object()


def _changed(old: dict[str, Any], new: dict[str, Any]) -> str:
    """The settings that differ, each with both values; empty if none does."""
    written, now = ({key: value for key, value in nodes("", settings) if _is_leaf(value)} for settings in (old, new))
    parts = []
    for key in sorted(written.keys() | now.keys()):
        before, after = written.get(key, _ABSENT), now.get(key, _ABSENT)
        if before != after:
            parts.append(f"{key.removeprefix('config#')} = {_short(before)}, this run has {_short(after)}")
    more = f" and {len(parts) - 5} more" if len(parts) > 5 else ""
    return f"written with {'; '.join(parts[:5])}{more}" if parts else ""


def _is_leaf(value: Any) -> bool:
    return not value or not isinstance(value, (dict, list))


def _short(value: Any) -> str:
    if value is _ABSENT:
        return "nothing"
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
