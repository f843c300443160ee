"""What can be wrong between a scan and its forward model: each takes a case and gives one that does not fit any more.

Used by `scripts/self_check.py`. Sizes are those of docs/decisions/0014-the-self-check.md.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from disinr_monai.modality import CT_ATTENUATION
from disinr_monai.operators import MultiCoilFourier, NonCartesianFourier
from disinr_monai.operators.count_model import EmissionCounts, TransmissionCounts

Case = dict[str, Any]
Mismatch = Callable[[Case], Case]


def changed(case: Case, **parts: Any) -> Case:
    """The case with other parts of its scan."""
    return {**case, "scan": replace(case["scan"], **parts)}


def of_values(change: Callable[[Tensor], Tensor]) -> Mismatch:
    """The measurement changed, the model as it was."""
    return lambda case: changed(case, measurement=change(case["scan"].measurement.clone()))


def of_maps(change: Callable[[Tensor], Tensor]) -> Mismatch:
    """The coil maps ``(n_coils, H, W)`` changed, the measurement as it was."""

    def mismatch(case: Case) -> Case:
        operator = case["scan"].operator
        if isinstance(operator, NonCartesianFourier):
            maps = change(operator.maps)
            return changed(
                case, operator=NonCartesianFourier(maps, operator.trajectory, operator.root_density.square())
            )
        return changed(case, operator=operator.with_maps(change(torch.fft.fftshift(operator.maps, dim=(-2, -1)))))

    return mismatch


def of_counts(**change: float) -> Mismatch:
    """The count model with other blank scan or background, by factors."""

    def mismatch(case: Case) -> Case:
        model = case["scan"].counts
        background = change.get("background", 1) * model.background
        if isinstance(model, TransmissionCounts):
            return changed(case, counts=TransmissionCounts(change.get("blank", 1) * model.blank, background))
        return changed(case, counts=EmissionCounts(background))

    return mismatch


def moved(pixels: float, lines: slice) -> Callable[[Tensor], Tensor]:
    """The patient moved along rows for some of the lines that were measured (the last axis of k-space)."""

    def change(kspace: Tensor) -> Tensor:
        height = kspace.shape[-2]
        turn = torch.exp(2j * math.pi * pixels * (torch.arange(height) - height // 2) / height)[:, None]
        kspace[..., measured_lines(kspace)[lines]] *= turn
        return kspace

    return change


def measured_lines(kspace: Tensor) -> Tensor:
    return torch.nonzero(kspace.abs().sum((0, 1))).flatten()


def lines_times(factor: Callable[[int], Tensor]) -> Callable[[Tensor], Tensor]:
    """Every measured line times its own factor; ``factor(n)`` gives all of them."""

    def change(kspace: Tensor) -> Tensor:
        lines = measured_lines(kspace)
        kspace[..., lines] *= factor(len(lines))
        return kspace

    return change


def random_phase(n: int) -> Tensor:
    return torch.exp(2j * math.pi * torch.rand(n, generator=torch.Generator().manual_seed(0)))


def line_too_strong(n: int) -> Tensor:
    """Three times, the line a tenth of all away from the centre."""
    return 1 + 2.0 * (torch.arange(n) == n // 2 + max(n // 10, 1))


def outer_lines_exchanged(kspace: Tensor) -> Tensor:
    lines = measured_lines(kspace)
    kspace[..., lines[:2]] = kspace[..., lines[:2].flip(0)]
    return kspace


def spike(coils: slice) -> Callable[[Tensor], Tensor]:
    """As strong as the strongest sample, a quarter of the way through the samples that were measured."""

    def change(kspace: Tensor) -> Tensor:
        strength = kspace.abs().max()
        row, column = [int(i) for i in torch.nonzero(kspace.abs().sum(0))[kspace[0].count_nonzero() // 4]]
        kspace[coils, row, column] += strength
        return kspace

    return change


def coil_of_noise(kspace: Tensor) -> Tensor:
    noise = torch.randn(*kspace.shape[1:], 2, generator=torch.Generator().manual_seed(0))
    where = kspace[0] != 0
    kspace[0] = torch.view_as_complex(noise) * where * kspace[0][where].abs().square().mean().sqrt() / math.sqrt(2)
    return kspace


def times(factor: float, axis: int, where: slice) -> Callable[[Tensor], Tensor]:
    """A part of the measurement along one axis times ``factor``."""

    def change(values: Tensor) -> Tensor:
        index = [slice(None)] * values.ndim
        index[axis] = where
        values[tuple(index)] *= factor
        return values

    return change


def dead(values: Tensor) -> Tensor:
    """Three cells in a row, a tenth of the detector away from its middle."""
    first = values.shape[-1] // 2 + values.shape[-1] // 10
    values[..., first : first + 3] = 0
    return values


def shifted_views(cells: int, share: float) -> Callable[[Tensor], Tensor]:
    """The last ``share`` of the views along the detector."""

    def change(values: Tensor) -> Tensor:
        first = round((1 - share) * values.shape[1])
        values[:, first:] = values[:, first:].roll(cells, -1)
        return values

    return change


MAPS = {
    "maps mirrored, left-right": of_maps(lambda maps: maps.flip(-1)),
    "maps mirrored, up-down": of_maps(lambda maps: maps.flip(-2)),
    "maps conjugate": of_maps(torch.conj_physical),
    "coils in another order": of_maps(lambda maps: maps.roll(1, 0)),
}
CARTESIAN = {
    **MAPS,
    "maps shifted by 8 pixels": of_maps(lambda maps: maps.roll(8, -1)),
    "lines of alternating sign": of_values(lines_times(lambda n: 1 - 2.0 * (torch.arange(n) % 2))),
    "lines of random phase": of_values(lines_times(random_phase)),
    "a line three times too strong": of_values(lines_times(line_too_strong)),
    "two outer lines exchanged": of_values(outer_lines_exchanged),
    "spike in one coil": of_values(spike(slice(0, 1))),
    "spike in all coils": of_values(spike(slice(None))),
    "a coil of noise": of_values(coil_of_noise),
    "a coil at 30 %": of_values(times(0.3, 0, slice(0, 1))),
    "every second line moved by 4 pixels": of_values(moved(4, slice(None, None, 2))),
    "first half of the lines moved by 4 pixels": of_values(
        lambda y: moved(4, slice(0, len(measured_lines(y)) // 2))(y)
    ),
}
NON_CARTESIAN = {
    **MAPS,
    "readouts reversed": of_values(lambda y: y.flip(-1)),
    "readouts shifted by 2 samples": of_values(lambda y: y.roll(2, -1)),
    "readouts of alternating sign": of_values(lambda y: y * (1 - 2.0 * (torch.arange(y.shape[1]) % 2))[:, None]),
    "spike in one coil": of_values(spike(slice(0, 1))),
}
AIR = math.log(1.2) / CT_ATTENUATION
INTEGRALS = {
    "angles reversed": of_values(lambda y: y.flip(1)),
    "detector reversed": of_values(lambda y: y.flip(-1)),
    **{f"axis off by {n} cells": of_values(shifted_views(n, 1)) for n in (1, 2, 5)},
    "air calibration 20 % too high": of_values(lambda y: y + AIR),
    "air calibration 20 % too low": of_values(lambda y: y - AIR),
    "4 cells of motion, a third of the views": of_values(shifted_views(4, 1 / 3)),
    "4 cells of motion, half of the views": of_values(shifted_views(4, 1 / 2)),
    "3 dead cells": of_values(dead),
    "a view lost": of_values(lambda y: times(0, 1, slice(y.shape[1] // 3, y.shape[1] // 3 + 1))(y)),
    "saturation at half of the range": of_values(lambda y: y.clamp(max=float(y.max()) / 2)),
    "one cell 5 % too strong": of_values(lambda y: times(1.05, -1, slice(y.shape[-1] // 2, y.shape[-1] // 2 + 1))(y)),
    "all views moved on by one": of_values(lambda y: y.roll(1, 1)),
}
COUNTS = {
    "angles reversed": of_values(lambda y: y.flip(1)),
    "bins reversed": of_values(lambda y: y.flip(-1)),
    "bins moved by 1": of_values(shifted_views(1, 1)),
    "bins moved by 3": of_values(shifted_views(3, 1)),
    "bins moved by 3, half of the views": of_values(shifted_views(3, 1 / 2)),
    "counts doubled": of_values(lambda y: 2 * y),
    "3 dead bins": of_values(dead),
}
EMISSION = {**COUNTS, "background left out": of_counts(background=0)}
TRANSMISSION = {
    **COUNTS,
    "blank scan 20 % too low": of_counts(blank=0.8),
    "blank scan 20 % too high": of_counts(blank=1.2),
}


def mismatches_of(case: Case) -> dict[str, Mismatch]:
    """Those that can be made of a case; none for what the self-check never marks."""
    if isinstance(case["scan"].counts, TransmissionCounts):
        return TRANSMISSION
    if isinstance(case["scan"].counts, EmissionCounts):
        return EMISSION
    if isinstance(case["scan"].operator, MultiCoilFourier):
        return CARTESIAN
    if isinstance(case["scan"].operator, NonCartesianFourier):
        return NON_CARTESIAN
    return INTEGRALS if case["scan"].measurement.ndim == 3 else {}
