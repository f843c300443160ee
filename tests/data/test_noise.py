"""Noise that goes with a case: from a noise scan that agrees with the measurement, else estimated."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from disinr_monai.data import AcquireCT, AcquireMRI
from disinr_monai.data.case import describe
from disinr_monai.data.cases import list_cases
from disinr_monai.data.noise import with_kspace_noise
from disinr_monai.data.simulate.phantoms import write_phantoms


@pytest.fixture(scope="module")
def cases(tmp_path_factory) -> dict[str, dict]:
    folder = tmp_path_factory.mktemp("phantoms")
    for task in ("mri", "ct"):
        write_phantoms(folder / task, task, 1, size=72)
    return {task: list_cases(folder / task, task)[0] for task in ("mri", "ct")}


@pytest.mark.parametrize("pattern", ["uniform", "radial"])
def test_a_noise_scan_is_believed_where_it_agrees(cases, pattern):
    acquire = AcquireMRI(image_size=72, n_coils=4, acs=12, acceleration=3, noise_std=0.05, pattern=pattern)
    case = acquire(cases["mri"])
    scan = replace(case["scan"], noise=None)
    density = getattr(scan.operator, "root_density", torch.ones(()))
    std = float((scan.noise_level() / density.square().clamp(min=1e-9)).median()) ** 0.5
    known, info = with_kspace_noise(scan, 1.1 * std)
    assert info["noise_from"] == "noise scan"
    assert info["noise_estimate"] == pytest.approx(1.1 * case["info"]["noise_estimate"], rel=0.02)
    torch.testing.assert_close(known.noise_level().expand_as(density), (1.1 * std * density).square())
    other, info = with_kspace_noise(scan, 4 * std)  # of another bandwidth
    assert info["noise_from"] == "measurement"
    torch.testing.assert_close(other.noise_level(), scan.noise_level())


def test_the_log_line_names_the_noise(cases):
    case = AcquireMRI(image_size=72, n_coils=4, acs=12, acceleration=3, noise_std=0.05)(cases["mri"])
    assert case["info"]["noise_std"] == 0.05  # what was simulated
    assert case["info"]["noise_estimate"] == pytest.approx(0.05, rel=0.1)
    assert f"noise {case['info']['noise_estimate']:.2g} of the RMS k-space (estimated)" in describe(case["info"])
    assert "(from its noise scan)" in describe(case["info"] | {"noise_from": "noise scan"})


@pytest.mark.parametrize("photons", [1e4, 1e5])
def test_photons_of_a_ray_in_air(cases, photons):
    case = AcquireCT(image_size=64, photons=photons, electronic_noise=0, n_views=90)(cases["ct"])
    assert case["info"]["photons_estimate"] == pytest.approx(photons, rel=0.2)
    assert f"noise like {case['info']['photons_estimate']:.2g} photons a ray in air" in describe(case["info"])
    assert np.isfinite(float(case["scan"].noise_level().max()))
