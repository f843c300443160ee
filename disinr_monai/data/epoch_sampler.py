from __future__ import annotations

from collections.abc import Iterator, Sized

import torch
from ignite.engine import Engine, Events
from torch.utils.data import Sampler

from disinr_monai.errors import InputError
from disinr_monai.runtime import distributed


class EpochSampler(Sampler[int]):
    """A random order of all cases that depends on seed and epoch only, so that a resumed run sees the same one.

    Many processes see the same batches as one: place ``s`` of a batch is taken by the cases ``s``, ``s + batch_size``,
    … in random order. So a process that has every second case, say, finds equally many of its own in each batch. Only
    the last batch of an epoch may be smaller and shared unevenly; a process without a case in it repeats one of its
    own, which then counts nothing (:meth:`share`).

    Args:
        dataset: all cases, those of other processes included; anything with a length.
        seed: seed of the order.
        batch_size: cases of a step, over all processes.

    Attributes:
        own_batch_size: cases of a step in this process.

    Raises:
        InputError: ``batch_size`` is no multiple of the number of processes.
    """

    def __init__(self, dataset: Sized, seed: int = 0, batch_size: int = 1) -> None:
        rank, world_size = distributed.rank(), distributed.world_size()
        if batch_size < 1 or batch_size % world_size:
            raise InputError(
                f"batch_size: expected a multiple of the number of processes ({world_size}), found {batch_size}; it "
                "counts the cases of a step over all processes"
            )
        self.dataset, self.seed, self.epoch = dataset, int(seed), 1
        self.batch_size, self.rank, self.world_size = batch_size, rank, world_size
        self.own_batch_size = batch_size // world_size

    def attach(self, engine: Engine) -> None:
        """Follow the engine's epochs."""
        engine.add_event_handler(Events.EPOCH_STARTED, lambda e: self.set_epoch(e.state.epoch))

    def set_epoch(self, epoch: int) -> None:
        """Set the epoch that determines the next order."""
        self.epoch = epoch

    def share(self, step: int) -> float:
        """The part of the epoch's batch ``step`` (from 0) that belongs to this process, by number of cases."""
        n_cases = min(self.batch_size, len(self.dataset) - step * self.batch_size)
        return len(self._places(n_cases)) / n_cases

    def _places(self, n_cases: int) -> range:
        return range(self.rank, n_cases, self.world_size)

    def _n_batches(self) -> int:
        return -(-len(self.dataset) // self.batch_size)

    def __len__(self) -> int:
        full, rest = divmod(len(self.dataset), self.batch_size)
        return full * len(self._places(self.batch_size)) + (max(len(self._places(rest)), 1) if rest else 0)

    def __iter__(self) -> Iterator[int]:
        generator = torch.Generator().manual_seed(self.seed * 1_000_003 + self.epoch)
        n, b = len(self.dataset), self.batch_size
        orders = [(torch.randperm(-(-(n - s) // b), generator=generator) * b + s).tolist() for s in range(min(b, n))]
        for step in range(self._n_batches()):
            places = self._places(min(b, n - step * b))
            yield from [orders[place][step] // self.world_size for place in places] or [0]
