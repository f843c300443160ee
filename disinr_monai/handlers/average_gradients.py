from __future__ import annotations

import torch
import torch.distributed as dist
from ignite.engine import Engine, Events
from torch import Tensor, nn


class AverageSharedGradients:
    """Average the shared pair's gradients over all processes; subject encoders stay local.

    PyTorch's ``DistributedDataParallel`` would average every subject encoder with the zeros of the processes that do
    not have that subject. Here each shared parameter is reduced as soon as its gradient is complete, and nothing
    else is sent. Needs an initialised process group in which every process makes the same number of steps.

    Args:
        network: network with a ``shared`` part.
    """

    def __init__(self, network: nn.Module) -> None:
        self.network = network
        self._hooks: list[torch.utils.hooks.RemovableHandle] = []

    def attach(self, engine: Engine) -> None:
        """Reduce while the engine runs."""
        engine.add_event_handler(Events.STARTED, self._start)
        engine.add_event_handler(Events.COMPLETED, self._stop)

    def _start(self, engine: Engine) -> None:
        for parameter in self.network.shared.parameters():
            dist.broadcast(parameter.data, src=0)
            self._hooks.append(parameter.register_post_accumulate_grad_hook(self._average))

    def _stop(self, engine: Engine) -> None:
        for hook in self._hooks:
            hook.remove()
        self._hooks = []

    @staticmethod
    def _average(parameter: Tensor) -> None:
        parameter.grad.div_(dist.get_world_size())
        dist.all_reduce(parameter.grad)
