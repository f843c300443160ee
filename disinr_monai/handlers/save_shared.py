from __future__ import annotations

from pathlib import Path
from typing import Any

from ignite.engine import Engine, Events

from disinr_monai.checkpoint import save_shared
from disinr_monai.networks import Field
from disinr_monai.versions import versions


class SaveShared:
    """Write the released checkpoint ``model.pt`` when pre-training has completed.

    Args:
        output_dir: folder of ``model.pt``.
        network: the pre-trained network.
        modality: recorded in the file.
        info: JSON-ready facts to record; nothing personal.
        start: what a new subject encoder starts from, see :func:`disinr_monai.checkpoint.release_state`.
        n_persons: how many persons the training scans show, those of other processes included.
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
