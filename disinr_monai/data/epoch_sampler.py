from __future__ import annotations

from collections.abc import Iterator, Sized

import torch
from torch.utils.data import Sampler


class EpochSampler(Sampler[int]):
    """A random order of all cases that depends on seed and epoch only, so that a resumed run sees the same one.

    Args:
        dataset: anything with a length.
        seed: seed of the order.
    """

    def __init__(self, dataset: Sized, seed: int = 0) -> None:
        self.dataset, self.seed, self.epoch = dataset, int(seed), 1

    def set_epoch(self, epoch: int) -> None:
        """Choose the epoch whose order is given next."""
        self.epoch = epoch

    def __len__(self) -> int:
        return len(self.dataset)

    def __iter__(self) -> Iterator[int]:
        generator = torch.Generator().manual_seed(self.seed * 1_000_003 + self.epoch)
        return iter(torch.randperm(len(self.dataset), generator=generator).tolist())
