"""Each guard catches its case and is silent on the good one, from the measurement to the report."""

from __future__ import annotations

import csv
import logging
import math

import h5py
import nibabel
import numpy as np
import pytest
import torch
from monai.engines import SupervisedEvaluator
from torch.utils.data import DataLoader

from disinr_monai.data import AcquireCT, AcquireMRI, AcquirePET, AcquireVolume, list_cases
from disinr_monai.fitting.adaptation import AdaptationInferer
from disinr_monai.fitting.losses import MeasurementLoss
from disinr_monai.fitting.prepare_batch import collate_cases, prepare_case
from disinr_monai.fitting.self_check import budget_spent, measure_residual, poor_fit
from disinr_monai.handlers import SaveCases
from disinr_monai.methods import MLEM, DirectInverse, SeparableSurrogates, TotalVariation
from disinr_monai.operators import PETProjection
from disinr_monai.operators.count_model import EmissionCounts, TransmissionCounts
from disinr_monai.output.report import Report
from disinr_monai.runtime.run import RUN
from tests.data.readers.ismrmrd_files import Writer, grid, header
from tests.faults.record import record
from tests.prior.test_prior import ct_case
from tests.problems import blob, mri_case, small_naive

POINTS = np.array([[18.0, 10.0], [-12.0, 24.0]])


def run(folder, cases, inferer, modality, caplog, network=None) -> tuple[list[dict], str, list[str]]:
    """Rows of metrics.csv, the report and the warnings of a run over cases."""
    RUN.begin({})
    caplog.clear()
    report = Report(folder, "Title")
    with caplog.at_level(logging.WARNING, logger="disinr_monai"):
        SupervisedEvaluator(
            device="cpu",
            val_data_loader=DataLoader(cases, batch_size=1, collate_fn=collate_cases),
            network=network or torch.nn.Identity(),
            inferer=inferer,
            prepare_batch=prepare_case,
            val_handlers=[SaveCases(folder, inferer, modality, report=report)],
            decollate=False,
        ).run()
    with (folder / "metrics.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    return rows, (folder / "report.html").read_text(), [record.getMessage() for record in caplog.records]


# --- The residual ---


def swapped_coils(case: dict) -> dict:
    operator = case["operator"]
    maps = torch.fft.fftshift(operator.maps, dim=(-2, -1))
    return {**case, "operator": operator.with_maps(maps.flip(0))}


def measured(case: dict, change) -> dict:
    return {**case, "measurement": change(case["measurement"].clone())}


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
    operator = case["operator"]
    maps = torch.fft.fftshift(operator.maps, dim=(-2, -1))
    return {**case, "operator": operator.with_maps(maps.flip(-1) * torch.exp(1j * torch.linspace(0, 3, 20)))}


def pet_case(seed: int = 0, counts: float = 3e5) -> dict:
    """Emission counts of the blob, a third of them background."""
    operator = PETProjection(
        image_shape=(32, 32), pixel_spacing=4.0, angles=np.arange(48) * math.pi / 48, n_bins=48, bin_spacing=4.0
    )
    trues = operator(blob(32, 32)[None])
    scale = counts * 2 / 3 / float(trues.sum())
    operator = PETProjection(
        image_shape=(32, 32), pixel_spacing=4.0, angles=np.arange(48) * math.pi / 48, n_bins=48, bin_spacing=4.0,
        sensitivity=scale,
    )  # fmt: skip
    background = torch.full(operator.range_shape, counts / 3 / trues.numel())
    generator = torch.Generator().manual_seed(seed)
    return {
        "name": "pet",
        "subject": "pet",
        "info": {},
        "operator": operator,
        "measurement": torch.poisson(scale * trues + background, generator=generator),
        "count_model": EmissionCounts(background),
    }


def transmission_case(seed: int = 0, blank: float = 1e3) -> dict:
    case = pet_case()
    operator = PETProjection(
        image_shape=(32, 32), pixel_spacing=4.0, angles=np.arange(48) * math.pi / 48, n_bins=48, bin_spacing=4.0,
        sensitivity=0.0096,
    )  # fmt: skip
    model = TransmissionCounts(torch.full(operator.range_shape, blank))
    expected = model.expected(operator(blob(32, 32)[None]))
    counts = torch.poisson(expected, generator=torch.Generator().manual_seed(seed))
    return {**case, "operator": operator, "measurement": counts, "count_model": model}


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
    "background forgotten": ("pet", lambda case: {**case, "count_model": EmissionCounts(torch.zeros(()))}),
    "counts scaled": ("pet", lambda case: measured(case, lambda y: 2 * y)),
    "dead bins": ("pet", lambda case: measured(case, lambda y: y * (abs(torch.arange(48) - 25) > 1))),
    "views and bins mixed up": ("pet", lambda case: measured(case, lambda y: y.transpose(-1, -2))),
    "blank scan too high": ("transmission", lambda case: blank_of(case, 1.2)),
    "blank scan too low": ("transmission", lambda case: blank_of(case, 0.8)),
}


def blank_of(case: dict, factor: float) -> dict:
    return {**case, "count_model": TransmissionCounts(factor * case["count_model"].blank)}


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
    assert measure_residual(case, blob(32, 32)[None]).over_noise == pytest.approx(1, abs=0.05)
    case = mri_case()
    image = torch.stack((case["reference"][0], torch.zeros(24, 20)))
    found = measure_residual(case, image)
    assert found.kind == "k-space"
    assert found.unexplained < 0.005
    case = ct_case()
    found = measure_residual(case, case["reference"])
    assert found.structured < 0.1
    assert measure_residual(case, 1.1 * case["reference"]).unexplained == pytest.approx(0.1, rel=0.1)


def test_a_misfit_marks_log_table_and_report(tmp_path, caplog):
    good, bad = mri_case(), swapped_coils(mri_case(index=1))
    rows, page, said = run(tmp_path, [good, bad], TV["mri"], "mri", caplog)
    assert rows[0]["marks"] == ""
    assert float(rows[0]["residual"]) < 0.02
    assert float(rows[1]["residual"]) > 0.1
    (line,) = said
    assert line.startswith("blob-1: ")
    assert rows[1]["marks"] in line
    for text in ("not explained by noise", "% of the measurement", "times"):
        assert text in line
    assert page.count('<ul class="marks"') == 1
    assert page.index("<strong>Warnings") < page.index('<ul class="marks"')


# --- Orientation and scale ---


def fastmri(path, **more):
    with h5py.File(path, "w") as file:
        file["kspace"] = np.stack([grid(24, 20, POINTS, 1)[:1]] * 2).astype(np.complex64)
        for key, value in more.items():
            file[key] = value
    return path


def ismrmrd(path, directions):
    with Writer(path, header(24, 20, oversampling=1), directions, np.zeros(3)) as writer:
        for line in range(20):
            writer.line(grid(24, 20, POINTS, 1)[..., line], kspace_encode_step_1=line)
    return path


def sinogram(path, **more):
    with h5py.File(path, "w") as file:
        file["sinogram"] = np.random.default_rng(0).poisson(9, (6, 20)).astype(np.float32)
        file["angles"] = np.arange(6) * np.pi / 6
        lengths = {"detector_spacing": 2.0, "bin_spacing": 2.0, "fwhm": 0.0}
        file.attrs.update({**lengths, "source_distance": 300.0, "detector_distance": 300.0, **more})
    return path


def nifti(path, code):
    image = nibabel.Nifti1Image(np.random.default_rng(0).random((12, 12, 3)).astype(np.float32), np.eye(4))
    image.set_sform(np.eye(4), code)
    image.set_qform(np.eye(4), code)
    nibabel.save(image, path)
    return path


MRI, CT, PET = AcquireMRI(acceleration=1, acs=8, image_size=12, n_coils=2), AcquireCT(image_size=16), AcquirePET()
HEADER = {"ismrmrd_header": header(24, 20, oversampling=1).encode()}
LACKING = {
    "fastMRI": (lambda f: fastmri(f / "a.h5"), "mri", MRI, ["orientation", "voxel size"]),
    "fastMRI with a header": (lambda f: fastmri(f / "a.h5", **HEADER), "mri", MRI, ["orientation"]),
    "ISMRMRD": (lambda f: ismrmrd(f / "a.h5", np.zeros((3, 3))), "mri", MRI, ["orientation"]),
    "ISMRMRD with positions": (lambda f: ismrmrd(f / "a.h5", np.eye(3)), "mri", MRI, []),
    "sinogram": (lambda f: sinogram(f / "a.h5"), "ct", CT, ["orientation", "scale in HU"]),
    "sinogram with both": (
        lambda f: sinogram(f / "a.h5", affine=np.eye(4), water_attenuation=0.02), "ct", CT, [],
    ),
    "PET sinogram": (lambda f: sinogram(f / "a.h5"), "pet", PET, ["orientation", "scale"]),
    "PET sinogram with both": (
        lambda f: sinogram(f / "a.h5", affine=np.eye(4), calibration=2.0), "pet", PET, [],
    ),
    "NIfTI without a frame": (lambda f: nifti(f / "a.nii", 0), "mri", MRI, ["orientation"]),
    "NIfTI": (lambda f: nifti(f / "a.nii", 1), "mri", MRI, []),
    "volume without a frame": (lambda f: nifti(f / "a.nii", 0), "volume", AcquireVolume(), ["orientation"]),
    "volume": (lambda f: nifti(f / "a.nii", 1), "volume", AcquireVolume(), []),
}  # fmt: skip


@pytest.mark.parametrize("name", LACKING)
def test_what_a_file_does_not_hold_is_in_its_information(tmp_path, name):
    write, modality, acquire, lacking = LACKING[name]
    case = acquire(list_cases(write(tmp_path), modality)[0])
    assert [text.split(" (")[0] for text in case["info"].get("unverified", [])] == lacking


def test_it_is_said_once_and_marked_on_every_case(tmp_path, caplog):
    cases = [MRI(listed) for listed in list_cases(fastmri(tmp_path / "a.h5", mask=np.ones(20), **HEADER), "mri")]
    rows, page, said = run(tmp_path / "out", cases, DirectInverse(), "mri", caplog)
    assert len(rows) == 2
    assert all(row["marks"] == "not verified: orientation (fastMRI files hold none)" for row in rows)
    (line,) = said
    assert line.startswith("a_s000: not verified: orientation")
    assert page.count('<ul class="marks"') == 2
    (case,) = [MRI(listed) for listed in list_cases(ismrmrd(tmp_path / "b.h5", np.eye(3)), "mri")]
    rows, page, said = run(tmp_path / "good", [case], DirectInverse(), "mri", caplog)
    assert rows[0]["marks"] == ""
    assert said == []
    assert 'ul class="marks"' not in page


# --- Early stopping ---


def adapt(folder, caplog, **options):
    """The withheld error is lowest after 30 iterations; early stopping ends the fit after 60."""
    case = mri_case(acceleration=1)
    noise = torch.randn(*case["measurement"].shape, 2, generator=torch.Generator().manual_seed(1))
    case["measurement"] = case["measurement"] + 0.02 * torch.view_as_complex(noise)
    options = {"lr": 1e-2, "amp": False, "quiet": True, "check_every": 10, "patience": 3, "holdout": 0.2, **options}
    inferer = AdaptationInferer(MeasurementLoss(), **options)
    rows, page, said = run(folder, [case], inferer, "mri", caplog, small_naive())
    return inferer, rows[0]["marks"], page, [line for line in said if "early stopping" in line]


def test_a_fit_whose_iterations_ran_out_is_marked(tmp_path, caplog):
    inferer, marks, page, said = adapt(tmp_path, caplog, early_stop=True, n_iterations=30)
    assert inferer.iterations_run == 30
    (line,) = said
    assert line.startswith("blob-0: early stopping never set in")
    assert "raise --n_iterations" in line
    assert "still falling" in marks
    assert "still falling" in page


@pytest.mark.parametrize("options", [{"early_stop": True, "n_iterations": 600}, {"early_stop": False}])
def test_a_fit_that_stopped_or_was_not_to_stop_is_not(tmp_path, caplog, options):
    inferer, marks, _, said = adapt(tmp_path, caplog, **{"n_iterations": 30, **options})
    assert inferer.iterations_run == (60 if options["early_stop"] else 30)
    assert said == []
    assert "early" not in marks


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
