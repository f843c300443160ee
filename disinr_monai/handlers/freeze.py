from __future__ import annotations

import torch
from ignite.engine import Engine, Events
from torch import Tensor, nn


class FreezeShared:
    """Freeze the shared pair during a run and prove afterwards that not one bit of it changed.

    Args:
        network: network with a ``shared`` part.
        n_expected: number of tensors that must be frozen; None takes any number above 0. Give 0 for a network that
            shares nothing.

    Raises:
        RuntimeError: another number of tensors is found at the start, or a tensor has changed at the end.
    """

    def __init__(self, network: nn.Module, n_expected: int | None = None) -> None:
        self.network, self.n_expected = network, n_expected
        self._before: dict[str, Tensor] = {}

    def attach(self, engine: Engine) -> None:
        """Freeze when the engine starts, compare when it completes."""
        engine.add_event_handler(Events.STARTED, self.freeze)
        engine.add_event_handler(Events.COMPLETED, self.verify)

    def freeze(self, engine: Engine | None = None) -> int:
        """Freeze and remember the shared tensors; returns their number."""
        state = self.network.shared.state_dict()
        wrong = len(state) != self.n_expected if self.n_expected is not None else not state
        if wrong:
            expected = "at least 1" if self.n_expected is None else self.n_expected
            raise RuntimeError(f"FreezeShared: expected {expected} shared tensors, found {len(state)}")
        self.network.shared.requires_grad_(False)
        self._before = {name: tensor.clone() for name, tensor in state.items()}
        return len(state)

    def verify(self, engine: Engine | None = None) -> None:
        """Compare the shared tensors bit for bit with what they were."""
        now = self.network.shared.state_dict()
        changed = [name for name, tensor in self._before.items() if not torch.equal(tensor, now[name])]
        if changed:
            raise RuntimeError(f"FreezeShared: the frozen pair changed during the run: {', '.join(changed)}")
