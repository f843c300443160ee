from __future__ import annotations

from ignite.engine import Engine, Events
from torch.utils.data import Sampler


class SetEpoch:
    """Tell a sampler with ``set_epoch`` which epoch begins (ours, or PyTorch's ``DistributedSampler``)."""

    def __init__(self, sampler: Sampler) -> None:
        self.sampler = sampler

    def attach(self, engine: Engine) -> None:
        """Call ``set_epoch`` at the start of every epoch."""
        engine.add_event_handler(Events.EPOCH_STARTED, lambda e: self.sampler.set_epoch(e.state.epoch))
