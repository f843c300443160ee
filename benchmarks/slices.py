"""Several slices fitted in one sparse product: the columns of all tables side by side."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch

from benchmarks.steps import Step


def together(steps: Sequence[Step]) -> dict[str, Callable[[], object]]:
    """One iteration of every slice: one by one, and with one product for the encodings of all.

    Only the encoding shares anything between slices (the matrix): perceptrons, operators and optimisers have as much
    to compute for each slice as before.
    """
    first = steps[0].grid
    _, matrix = first._compact
    n, width = len(steps[0].flat), steps[0].features.shape[1] // first.n_levels

    def joint() -> None:
        tables = torch.cat([step.grid.table.detach() for step in steps], dim=1).requires_grad_()
        features = matrix(tables).view(n, first.n_levels, len(steps), width)
        gradient = torch.empty_like(features)
        for i, step in enumerate(steps):
            own = features[:, :, i].detach().reshape(n, -1).requires_grad_()
            step.optimizer.zero_grad(set_to_none=True)
            step.loss_of(step.tail(own).t().reshape(step.shape)).backward()
            gradient[:, :, i] = own.grad.view(n, -1, width)
        features.backward(gradient)
        for step, grad in zip(steps, tables.grad.split(width, dim=1), strict=True):
            step.grid.table.grad = grad.contiguous()
            step.optimizer.step()

    return {"one by one": lambda: [step() for step in steps], "together": joint}
