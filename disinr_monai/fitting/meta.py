"""Learning a start: the training step of Reptile and MAML, handed to MONAI's trainer as ``iteration_update``."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import torch
from ignite.engine import Engine
from monai.engines import IterationEvents
from monai.utils import CommonKeys
from torch import Tensor, nn
from torch.optim import SGD, Optimizer

from disinr_monai.errors import InputError

Weights = dict[str, Tensor]
ALGORITHMS = ("reptile", "fomaml", "maml")


class MetaUpdate:
    r"""One step of meta-learning: fit every scan of the batch for a few steps, then move the start.

    With :math:`\theta_k` the weights after :math:`k` inner steps on the measurement loss :math:`L_i` of scan :math:`i`,
    starting from :math:`\theta`, the optimiser of the trainer is given the mean over the batch of

    * ``reptile``: :math:`\theta - \theta_k` (Nichol et al., arXiv 1803.02999),
    * ``fomaml``: :math:`\nabla L_i(\theta_k)`, the first-order MAML,
    * ``maml``: :math:`\partial L_i(\theta_k) / \partial \theta`, differentiated through the inner steps (Finn et al.,
      ICML 2017); these are then plain gradient descent.

    So ``reptile`` with plain SGD and learning rate :math:`\epsilon` is :math:`\theta \leftarrow \theta +
    \epsilon (\theta_k - \theta)`. Learned starts for implicit representations: Tancik et al., CVPR 2021.

    Args:
        algorithm: one of the three.
        n_steps: :math:`k`.
        lr: learning rate of the inner steps.
        inner: makes the optimiser of the inner steps, called as ``inner(parameters, lr=lr)``; ``maml`` does not use it.

    Raises:
        InputError: unknown algorithm, or a number that is not positive.
    """

    def __init__(
        self, algorithm: str = "reptile", n_steps: int = 5, lr: float = 1e-3, inner: Callable[..., Optimizer] = SGD
    ) -> None:
        if algorithm not in ALGORITHMS:
            raise InputError(f"algorithm: expected one of {', '.join(ALGORITHMS)}, found {algorithm!r}")
        if n_steps < 1 or n_steps != int(n_steps) or lr <= 0:
            found = f"{n_steps}, {lr}"
            raise InputError(f"n_inner, inner_lr: expected at least 1 step and a positive rate, found {found}")
        self.algorithm, self.n_steps, self.lr, self.inner = algorithm, int(n_steps), lr, inner

    def __call__(self, engine: Engine, batchdata: Any) -> dict[str, Any]:
        """The trainer's iteration: outer gradient of a batch, step, and the loss for handlers."""
        network: nn.Module = engine.network
        points, cases, *_ = engine.prepare_batch(batchdata, engine.state.device, engine.non_blocking)
        start = dict(network.named_parameters())
        losses, towards = [], []
        for i, case in enumerate(cases):

            def loss(weights: Weights, grid: Tensor = points[i : i + 1], case: dict[str, Any] = case) -> Tensor:
                return engine.loss_function(torch.func.functional_call(network, weights, (grid,)), [case])

            value, gradient = self.outer_gradient(loss, start)
            losses.append(value)
            towards.append(sum((p * g).sum() for p, g in zip(start.values(), gradient.values(), strict=True)))
        engine.state.output = {CommonKeys.LOSS: torch.stack(losses).mean()}
        engine.fire_event(IterationEvents.LOSS_COMPLETED)
        engine.optimizer.zero_grad(set_to_none=True)
        # The gradient reaches the parameters through autograd, so that hooks on it (many processes) see it.
        torch.stack(towards).mean().backward()
        engine.fire_event(IterationEvents.BACKWARD_COMPLETED)
        engine.optimizer.step()
        engine.fire_event(IterationEvents.MODEL_COMPLETED)
        return engine.state.output

    def outer_gradient(self, loss: Callable[[Weights], Tensor], start: Weights) -> tuple[Tensor, Weights]:
        """Loss of the fitted weights (``reptile``: before its last step) and the gradient for the start."""
        if self.algorithm == "maml":
            value = loss(self._descend(loss, start))
        else:
            fitted, value = self._fit(loss, start)
            if self.algorithm == "reptile":
                return value, {name: start[name].detach() - weight for name, weight in fitted.items()}
            start = {name: weight.requires_grad_(True) for name, weight in fitted.items()}
            value = loss(start)
        gradients = torch.autograd.grad(value, tuple(start.values()))
        return value.detach(), dict(zip(start, gradients, strict=True))

    def _fit(self, loss: Callable[[Weights], Tensor], start: Weights) -> tuple[Weights, Tensor]:
        """Weights after the inner steps, detached from the start, and the last loss seen."""
        weights = {name: value.detach().clone().requires_grad_(True) for name, value in start.items()}
        optimizer = self.inner(_list(weights), lr=self.lr)
        value = torch.zeros(())
        for _ in range(self.n_steps):
            optimizer.zero_grad(set_to_none=True)
            value = loss(weights)
            value.backward()
            optimizer.step()
        return {name: weight.detach() for name, weight in weights.items()}, value.detach()

    def _descend(self, loss: Callable[[Weights], Tensor], start: Weights) -> Weights:
        """Weights after the inner steps as a differentiable function of the start."""
        weights = start
        for _ in range(self.n_steps):
            gradients = torch.autograd.grad(loss(weights), _list(weights), create_graph=True)
            weights = {n: w - self.lr * g for (n, w), g in zip(weights.items(), gradients, strict=True)}
        return weights


def _list(weights: Weights) -> Iterable[Tensor]:
    return list(weights.values())
