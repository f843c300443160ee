from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from disinr_monai.errors import InputError
from disinr_monai.fitting.case_inferer import CaseInferer
from disinr_monai.fitting.losses import MeasurementLoss
from disinr_monai.fitting.rollback import Rollback
from disinr_monai.fitting.self_check import budget_spent
from disinr_monai.networks.field import one_field_a_set
from disinr_monai.networks.hash_grid import compact_grids, expand_grids
from disinr_monai.runtime.progress import Steps
from disinr_monai.scan import Scan


class AdaptationInferer(CaseInferer):
    r"""Test-time adaptation: fit part of a network to one scan, the rest frozen.

    .. math:: \hat\theta = \arg\min_{\theta} L(A\, x_{\theta}, y)

    For :class:`~disinr_monai.networks.DisINR` :math:`\theta` is a fresh subject encoder beside the frozen pair, for
    :class:`~disinr_monai.networks.NaiveINR` the whole network from scratch; see ``fitted_at_test`` of each. A copy is
    fitted: the network given stays as it is, so every scan starts from the same weights. What is frozen and the same
    for all iterations (``prepare``) is computed once. A scan that can be measured in parts
    (:meth:`~disinr_monai.scan.Scan.draw`) is fitted to a random one in each iteration. A loss that is
    not finite or explodes is noticed at the next look and undone
    (:class:`~disinr_monai.fitting.rollback.Rollback`). After a call, ``fitted`` holds the copy: that scan's image.

    Args:
        loss: the measurement loss.
        n_iterations: iterations at most.
        lr: Adam's learning rate, halved every ``lr_halve_every`` iterations.
        lr_halve_every: see ``lr``.
        amp: hidden layers in bfloat16; None: where the device is faster with it.
        frozen: False fits everything, also what the network keeps frozen (an ablation).
        early_stop: withhold a share of the measured samples and stop when they are no longer predicted better; the
            weights that predicted them best are kept. No ground truth is used.
        holdout: that share.
        check_every: iterations between two looks at the withheld samples (and between two entries of ``history``).
        patience: looks without an improvement before stopping.
        seed: seed of the withheld samples.
        quiet: no progress bar, no progress lines.
    """

    takes_counts = True

    def __init__(
        self,
        loss: MeasurementLoss,
        n_iterations: int = 500,
        lr: float = 1e-3,
        lr_halve_every: int = 1000,
        amp: bool | None = None,
        frozen: bool = True,
        early_stop: bool = False,
        holdout: float = 0.05,
        check_every: int = 25,
        patience: int = 4,
        seed: int = 0,
        quiet: bool = False,
    ) -> None:
        super().__init__()
        if n_iterations < 1 or n_iterations != int(n_iterations) or lr <= 0 or not 0 < holdout < 1:
            raise ValueError(
                "AdaptationInferer: n_iterations must be at least 1, whole, lr positive and holdout between 0 and 1, "
                f"found {n_iterations}, {lr} and {holdout}"
            )
        self.loss, self.n_iterations, self.lr, self.lr_halve_every = loss, int(n_iterations), lr, lr_halve_every
        self.amp, self.frozen = amp, frozen
        self.early_stop, self.holdout, self.check_every, self.patience = early_stop, holdout, check_every, patience
        self.seed, self.quiet = seed, quiet
        self.fitted: nn.Module | None = None

    @torch.enable_grad()
    def reconstruct(self, points: Tensor, network: nn.Module, case: Mapping[str, Any]) -> Tensor:
        """Fit a copy of the network to the scan; its image ``(C, *S)`` on ``points`` ``(1, D, *S)``."""
        network.set_amp(self.amp)
        grid = torch.as_tensor(points[0]).as_subclass(Tensor)
        generator = torch.Generator().manual_seed(self.seed)
        whole = case["scan"].draw(generator) is None
        flat = grid.flatten(1).t().contiguous() if whole else None
        network = one_field_a_set(network, case["scan"].operator.domain_shape[0])
        shape = (network.out_channels, *grid.shape[1:])
        field = copy.deepcopy(network).requires_grad_(not self.frozen)
        for parameter in field.fitted_at_test():
            parameter.requires_grad_(True)
        if whole:
            compact_grids(field, flat)
        groups = [{"params": [parameter for parameter in field.parameters() if parameter.requires_grad]}]
        scan, more = self.start_scan(case["scan"])
        groups += more
        parameters = [parameter for group in groups for parameter in group["params"]]
        self.fitted = field
        prepared = field.prepare(flat) if whole else None
        if prepared is not None and prepared.requires_grad:
            prepared = None  # it is fitted, so it is computed anew in every iteration

        optimizer = torch.optim.Adam(groups, lr=self.lr, fused=True)
        scheduler = torch.optim.lr_scheduler.StepLR(optimizer, self.lr_halve_every, gamma=0.5)
        rollback = Rollback(parameters, optimizer)
        held_out = self._hold_out(scan)
        among = None if held_out is None else ~held_out
        keep = None if among is None else among.to(scan.measurement.real.dtype)
        held_out_part = None if held_out is None else scan.draw(generator, held_out)
        best, best_error, misses = None, float("inf"), 0

        with Steps(self.n_iterations, f"adapting {self.case_name}".strip(), self.quiet, leave=False) as steps:
            for iteration in range(1, self.n_iterations + 1):
                optimizer.zero_grad(set_to_none=True)
                if whole:
                    image = field.render(flat, prepared).t().reshape(shape)
                    loss = self.loss.one(image, scan, keep)
                else:
                    part_of, part = scan.draw(generator, among)
                    loss = self.loss.one(_values(field, part_of(grid)), part)
                loss.backward()
                shown = None
                looks = iteration % self.check_every == 0 or iteration == self.n_iterations
                if (looks or iteration == 1) and (text := rollback.look(float(loss.detach()), iteration)):
                    self.warn(text)
                    continue
                if looks:
                    entry = {"iteration": iteration, "loss": float(loss.detach())}
                    shown = entry["loss"]
                    self.history.append(entry)
                    if held_out is not None:  # before the step: the image belongs to the weights as they are now
                        if whole:
                            errors = self.loss.prediction_error(image.detach(), scan)[held_out]
                        else:
                            errors = self._part_errors(field, *held_out_part, grid)
                        entry["held_out"] = float(errors.mean())
                        misses += 1
                        if entry["held_out"] < best_error:
                            best, best_error, misses = [p.detach().clone() for p in parameters], entry["held_out"], 0
                optimizer.step()
                scheduler.step()
                steps.update(shown)
                self.iterations_run = iteration
                if misses >= self.patience:
                    break
            else:
                if held_out is not None:
                    self._check_budget()
        with torch.no_grad():
            if best is not None:
                for parameter, value in zip(parameters, best, strict=True):
                    parameter.copy_(value)
            return field.render(flat, prepared).t().reshape(shape) if whole else field.image(grid)

    def at(self, points: Tensor, image: Tensor) -> Tensor:
        """Evaluate the fitted field at other points; ``image``, its values on the grid, is not used."""
        expand_grids(self.fitted)
        return self.fitted.image(points)

    def start_scan(self, scan: Scan) -> tuple[Scan, list[dict[str, Any]]]:
        """Scan of the fit, and Adam's parameter groups of an operator that is fitted too (none here)."""
        return scan, []

    def _check_budget(self) -> None:
        text = budget_spent([entry["held_out"] for entry in self.history], self.patience, self.n_iterations)
        if text:
            self.warn(text)

    def _hold_out(self, scan: Scan) -> Tensor | None:
        if not self.early_stop:
            return None
        generator = torch.Generator().manual_seed(self.seed)
        held_out = scan.operator.partition.held_out_samples(self.holdout, generator).to(scan.measurement.device)
        if not bool(held_out.any()):
            raise InputError(
                "early_stop: expected samples that can be withheld, found too few measured ones; turn it off"
            )
        return held_out

    @staticmethod
    @torch.no_grad()
    def _part_errors(field: nn.Module, part_of: Callable[[Tensor], Tensor], part: Scan, grid: Tensor) -> Tensor:
        return part.residual(_values(field, part_of(grid))).abs().square()


def _values(field: nn.Module, points: Tensor) -> Tensor:
    """Image values ``(C, n)`` at points ``(D, n)``."""
    return field.render(points.t().contiguous()).t()
