from __future__ import annotations

import torch
import torch.distributed as dist
from ignite.engine import Engine, Events
from monai.engines import IterationEvents
from monai.utils import CommonKeys
from torch import nn

from disinr_monai.data.epoch_sampler import EpochSampler
from disinr_monai.runtime.distributed import sum_over_processes, world_size


class AverageSharedGradients:
    r"""Average the shared pair's gradients over all processes; subject encoders stay local.

    PyTorch's ``DistributedDataParallel`` would average every subject encoder with the zeros of the processes that do
    not have that subject. Here only the gradients of the shared part travel, weighted by the cases of each process:

    .. math:: g = \sum_r \frac{m_r}{M} g_r

    with :math:`g_r` the gradient of the mean loss over the :math:`m_r` cases of process :math:`r` and
    :math:`M = \sum_r m_r`, the batch. So the step is the one that a single process would make with the whole batch. A
    tensor for which no process has a gradient gets none; a process that has no case in a batch gives nothing and moves
    no subject encoder. The loss that other handlers see is that of the whole batch. Does nothing in a single process.

    It stands first in the list of handlers: what limits or follows gradients must see the average.

    Args:
        network: network with a ``shared`` part and ``subjects``.
        sampler: knows how many cases of a batch belong to this process.
    """

    def __init__(self, network: nn.Module, sampler: EpochSampler) -> None:
        self.network, self.sampler = network, sampler
        self._shared: list[nn.Parameter] = []

    def attach(self, engine: Engine) -> None:
        """Average after every backward pass."""
        if world_size() > 1:
            engine.add_event_handler(Events.STARTED, self._start)
            engine.add_event_handler(IterationEvents.BACKWARD_COMPLETED, self._average)

    def _start(self, engine: Engine) -> None:
        trained = {id(p) for group in engine.optimizer.param_groups for p in group["params"]}
        self._shared = [p for p in self.network.shared.parameters() if id(p) in trained]
        for tensor in (*self.network.shared.parameters(), *self.network.shared.buffers()):
            dist.broadcast(tensor.detach(), src=0)

    @torch.no_grad()
    def _average(self, engine: Engine) -> None:
        share = self.sampler.share((engine.state.iteration - 1) % engine.state.epoch_length)
        for parameter in self.network.subjects.parameters():
            if parameter.grad is not None:
                parameter.grad = parameter.grad.mul_(share) if share > 0 else None
        loss = torch.as_tensor(engine.state.output[CommonKeys.LOSS]).detach()
        has = [share > 0 and p.grad is not None for p in self._shared]
        grads = [p.grad * share if h else torch.zeros_like(p) for p, h in zip(self._shared, has, strict=True)]
        notes = torch.tensor([float(h) for h in has] + [0.0], device=loss.device)
        if share > 0:  # what a process computes that has no case may be anything
            notes[-1] = loss * share
        notes, *grads = sum_over_processes([notes, *grads])
        *counts, mean_loss = notes.tolist()
        for parameter, grad, count in zip(self._shared, grads, counts, strict=True):
            parameter.grad = grad if count else None
        engine.state.output[CommonKeys.LOSS] = torch.tensor(mean_loss)
