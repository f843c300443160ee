"""Each guard catches its case and is silent on the good one, from the measurement to the report."""

import math

import pytest
import torch

from disinr_monai.fitting.adaptation import AdaptationInferer
from disinr_monai.fitting.losses import MeasurementLoss
from disinr_monai.fitting.self_check import budget_spent, measure_residual, poor_fit, still_falling
from disinr_monai.methods import MLEM, SeparableSurrogates, TotalVariation
from disinr_monai.operators.count_model import EmissionCounts, TransmissionCounts
from tests.engines import evaluated
from tests.faults.record import record
from tests.problems import blob, changed, ct_case, mri_case, pet_case, small_naive, transmission_case

# --- The residual ---


def swapped_coils(case: dict) -> dict:
    operator = case["scan"].operator
    maps = torch.fft.fftshift(operator.maps, dim=(-2, -1))
    return changed(case, operator=operator.with_maps(maps.flip(0)))


def measured(case: dict, change) -> dict:
    return changed(case, measurement=change(case["scan"].measurement.clone()))


def spike(kspace: torch.Tensor) -> torch.Tensor:
    kspace[0, 5, 4] += kspace.abs().max()
    return kspace


def moved(kspace: torch.Tensor) -> torch.Tensor:
    """The patient moved by three pixels for every second line."""
    turn = torch.exp(2j * math.pi * 3 * torch.arange(24) / 24)[:, None]
    lines = torch.nonzero(kspace.abs().sum((0, 1))).flatten()[::2]
    kspace[..., lines] *= turn
    return kspace


def cut(values: torch.Tensor) -> torch.Tensor:
    values[..., 38:41] = 0
    return values


def turned_maps(case: dict) -> dict:
    operator = case["scan"].operator
    maps = torch.fft.fftshift(operator.maps, dim=(-2, -1))
    return changed(case, operator=operator.with_maps(maps.flip(-1) * torch.exp(1j * torch.linspace(0, 3, 20))))


TV = {"mri": TotalVariation(tv_weight=7e-4, n_iterations=60)}
TV["ct"] = TotalVariation(tv_weight=1.2, absolute=True, non_negative=True, n_iterations=60)
TV["pet"] = MLEM(n_iterations=20, n_subsets=4)
TV["transmission"] = SeparableSurrogates(n_iterations=60)
CASES = {"mri": mri_case, "ct": ct_case, "pet": pet_case, "transmission": transmission_case}
AIR = math.log(1.2) / 0.024
MISMATCHES = {
    "coils in another order": ("mri", swapped_coils),
    "coil maps turned": ("mri", turned_maps),
    "spike": ("mri", lambda case: measured(mri_case(acceleration=1), spike)),
    "motion": ("mri", lambda case: measured(case, moved)),
    "weak coil": ("mri", lambda case: measured(case, lambda y: y * torch.tensor([0.4, 1.0])[:, None, None])),
    "gantry the other way": ("ct", lambda case: measured(case, lambda y: y.flip(1))),
    "axis of rotation": ("ct", lambda case: measured(case, lambda y: y.roll(1, -1))),
    "too many photons in the air scan": ("ct", lambda case: measured(case, lambda y: y + AIR)),
    "too few": ("ct", lambda case: measured(case, lambda y: y - AIR)),
    "dead cells": ("ct", lambda case: measured(case, cut)),
    "a view lost": ("ct", lambda case: measured(case, lambda y: y * (torch.arange(24) != 7)[:, None])),
    "background forgotten": ("pet", lambda case: changed(case, counts=EmissionCounts(torch.zeros(())))),
    "counts scaled": ("pet", lambda case: measured(case, lambda y: 2 * y)),
    "dead bins": ("pet", lambda case: measured(case, lambda y: y * (abs(torch.arange(48) - 25) > 1))),
    "views and bins mixed up": ("pet", lambda case: measured(case, lambda y: y.transpose(-1, -2))),
    "blank scan too high": ("transmission", lambda case: blank_of(case, 1.2)),
    "blank scan too low": ("transmission", lambda case: blank_of(case, 0.8)),
}


def blank_of(case: dict, factor: float) -> dict:
    return changed(case, counts=TransmissionCounts(factor * case["scan"].counts.blank))


def fit_of(kind: str, case: dict) -> str:
    method = TV[kind]
    assert method(None, None, case=case) is not None
    return poor_fit(method.residual)


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("kind", CASES)
def test_a_good_scan_passes(kind, seed):
    assert fit_of(kind, CASES[kind](seed=seed)) == ""


@pytest.mark.parametrize("change", [{"counts": 1e4}, {"counts": 1e7}])
def test_counts_of_any_number_pass(change):
    assert fit_of("pet", pet_case(**change)) == ""


@pytest.mark.parametrize("name", MISMATCHES)
def test_a_mismatch_is_caught(name):
    kind, change = MISMATCHES[name]
    found = bool(fit_of(kind, change(CASES[kind]())))
    record("scan and forward model that do not fit", 1, int(found), "caught by the self-check")
    assert found


@pytest.mark.parametrize(
    ("kind", "change"),
    [
        ("mri", lambda case: measured(case, lambda y: y * torch.exp(1j * torch.linspace(0, 6, 24))[:, None])),
        ("pet", lambda case: measured(case, lambda y: y.flip(-1))),
    ],
    ids=["object shifted", "mirrored"],
)
def test_what_it_cannot_see(kind, change):
    """Another object would have given the same measurement: no residual tells (docs/reliability.md)."""
    assert fit_of(kind, change(CASES[kind]())) == ""


def test_the_true_image_leaves_noise():
    case = pet_case()
    assert measure_residual(case["scan"], blob(32, 32)[None]).over_noise == pytest.approx(1, abs=0.05)
    case = mri_case()
    image = torch.stack((case["reference"][0], torch.zeros(24, 20)))
    found = measure_residual(case["scan"], image)
    assert found.kind == "k-space"
    assert found.unexplained < 0.005
    case = ct_case()
    found = measure_residual(case["scan"], case["reference"])
    assert found.structured < 0.1
    assert measure_residual(case["scan"], 1.1 * case["reference"]).unexplained == pytest.approx(0.1, rel=0.1)


def test_a_misfit_is_in_log_table_and_report(tmp_path, caplog):
    good, bad = mri_case(), swapped_coils(mri_case(index=1))
    rows, page, said = evaluated(tmp_path, [good, bad], TV["mri"], "mri", caplog)
    assert rows[0]["warnings"] == ""
    assert float(rows[0]["residual"]) < 0.02
    assert float(rows[1]["residual"]) > 0.1
    (line,) = said
    assert line.startswith("blob-1: ")
    assert rows[1]["warnings"] in line
    for text in ("not explained by noise", "% of the measurement", "times"):
        assert text in line
    assert page.count("<strong>Self-check") == 1
    assert page.index("<strong>Warnings") < page.index("<strong>Self-check")


# --- Early stopping ---


def adapt(folder, caplog, **options):
    """The withheld error is lowest after 30 iterations; early stopping ends the fit after 60."""
    case = mri_case(acceleration=1)
    noise = torch.randn(*case["scan"].measurement.shape, 2, generator=torch.Generator().manual_seed(1))
    case = changed(case, measurement=case["scan"].measurement + 0.02 * torch.view_as_complex(noise))
    options = {"lr": 1e-2, "amp": False, "quiet": True, "check_every": 10, "patience": 3, "holdout": 0.2, **options}
    inferer = AdaptationInferer(MeasurementLoss(), **options)
    rows, page, said = evaluated(folder, [case], inferer, "mri", caplog, small_naive())
    return inferer, rows[0]["warnings"], page, [line for line in said if "early stopping" in line]


def test_a_fit_whose_iterations_ran_out_has_a_warning(tmp_path, caplog):
    inferer, warnings, page, said = adapt(tmp_path, caplog, early_stop=True, n_iterations=30)
    assert inferer.iterations_run == 30
    (line,) = said
    assert line.startswith("blob-0: early stopping never set in")
    assert "raise --n_iterations" in line
    assert "still falling" in warnings
    assert "still falling" in page


@pytest.mark.parametrize("options", [{"early_stop": True, "n_iterations": 600}, {"early_stop": False}])
def test_a_fit_that_stopped_or_was_not_to_stop_is_not(tmp_path, caplog, options):
    inferer, warnings, _, said = adapt(tmp_path, caplog, **{"n_iterations": 30, **options})
    assert inferer.iterations_run == (60 if options["early_stop"] else 30)
    assert said == []
    assert "early" not in warnings


@pytest.mark.parametrize(("lr", "n_iterations", "is_named"), [(1e-3, 20, True), (1e-2, 400, False)])
def test_an_unfinished_fit_is_not_blamed_on_coil_maps_and_motion(tmp_path, caplog, lr, n_iterations, is_named):
    """A network from scratch: after 20 iterations the loss still falls; after 400 wrong maps are what is left."""
    case = mri_case() if is_named else swapped_coils(mri_case())
    options = {"n_iterations": n_iterations, "lr": lr, "amp": False, "quiet": True, "check_every": 10}
    inferer = AdaptationInferer(MeasurementLoss(), **options)
    rows, _, said = evaluated(tmp_path, [case], inferer, "mri", caplog, small_naive())
    (line,) = [line for line in said if "residual" in line]
    assert line.partition("it may be ")[2].startswith("too few iterations" if is_named else "coil maps")
    assert ("too little pre-training (the loss still fell by" in rows[0]["warnings"]) == is_named


@pytest.mark.parametrize(
    ("losses", "expected"),
    [
        ([1.0, 0.5], "fell by 50 % in the last 10 of 20 iterations"),
        ([1.0, 0.99], ""),
        ([1.0, 1.1], ""),
        ([0.0, 0.0], ""),
        ([1.0, math.nan], ""),
        ([1.0], "10 iterations, after which nobody can tell"),
        ([], ""),
    ],
)
def test_whether_a_loss_still_falls(losses, expected):
    text = still_falling([{"iteration": 10 * (i + 1), "loss": loss} for i, loss in enumerate(losses)])
    assert expected in text
    assert bool(text) == bool(expected)


@pytest.mark.parametrize(
    ("errors", "expected"),
    [
        ([1.0, 0.5, 0.25, 0.12], "76 % in the last 2 of 4 looks"),
        ([1.0, 0.5], "50 % in the last 1 of 2 looks"),
        ([1.0], "40 iterations gave one look"),
        ([1.0, 0.5, 0.5, 0.495], ""),
        ([1.0, 0.5, 0.6, 0.7], ""),
        ([1.0, math.nan, math.nan], ""),
        ([0.0, 0.0, 0.0], ""),
    ],
)
def test_what_counts_as_falling(errors, expected):
    text = budget_spent(errors, patience=2, n_iterations=40)
    assert expected in text
    assert bool(text) == bool(expected)
