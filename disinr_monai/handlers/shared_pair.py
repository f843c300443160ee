from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from ignite.engine import Engine, Events
from torch import Tensor, nn

from disinr_monai.checkpoints.released import save_shared
from disinr_monai.networks import Field
from disinr_monai.runtime.versions import versions


class FreezeShared:
    """Freeze the shared pair during a run and verify afterwards that no bit of it changed.

    Args:
        network: network with a ``shared`` part, which is empty for a network that shares nothing.

    Raises:
        RuntimeError: a tensor has changed at the end.
    """

    def __init__(self, network: nn.Module) -> None:
        self.network = network
        self._before: dict[str, Tensor] = {}

    def attach(self, engine: Engine) -> None:
        """Freeze when the engine starts, compare when it completes."""
        engine.add_event_handler(Events.STARTED, self.freeze)
        engine.add_event_handler(Events.COMPLETED, self.verify)

    def freeze(self, engine: Engine) -> None:
        """Freeze the shared tensors, and keep a copy."""
        self.network.shared.requires_grad_(False)
        self._before = {name: tensor.clone() for name, tensor in self.network.shared.state_dict().items()}

    def verify(self, engine: Engine) -> None:
        """Compare the shared tensors bit for bit with the copy."""
        now = self.network.shared.state_dict()
        changed = [name for name, tensor in self._before.items() if not torch.equal(tensor, now[name])]
        if changed:
            raise RuntimeError(f"FreezeShared: the frozen pair changed during the run: {', '.join(changed)}")


class SaveShared:
    """Write the released checkpoint ``model.pt`` when pre-training has completed.

    Args:
        output_dir: folder of ``model.pt``.
        network: the pre-trained network.
        modality: recorded in the file.
        info: JSON-ready facts to record; nothing personal.
        start: weights of a new subject encoder, see :func:`disinr_monai.checkpoints.released.release_state`.
        n_persons: number of persons in the training scans of all processes.
    """

    def __init__(
        self,
        output_dir: str,
        network: Field,
        modality: str,
        info: dict[str, Any] | None = None,
        start: str = "untrained",
        n_persons: int = 0,
    ) -> None:
        self.path, self.network, self.modality = Path(output_dir) / "model.pt", network, modality
        self.info, self.start, self.n_persons = info or {}, start, n_persons

    def attach(self, engine: Engine) -> None:
        """Save at the end of the run (all processes take part, the first one writes)."""
        engine.add_event_handler(Events.COMPLETED, self.save)

    def save(self, engine: Engine) -> None:
        """Write the file."""
        info = {**self.info, "epochs": engine.state.epoch, "iterations": engine.state.iteration, "versions": versions()}
        save_shared(self.path, self.network, self.modality, info, self.start, self.n_persons)
