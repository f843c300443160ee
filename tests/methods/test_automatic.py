"""Weights that the classical methods choose from the scan, against the best weight that the truth tells."""

import logging
from dataclasses import replace

import nibabel as nib
import numpy as np
import pytest
import torch
from scipy.ndimage import gaussian_filter

from disinr_monai.data import AcquireCT, AcquireMRI
from disinr_monai.data.cases import list_cases
from disinr_monai.data.simulate.phantoms import brain_phantom, write_phantoms
from disinr_monai.errors import InputError
from disinr_monai.methods import SIRT, ConjugateGradient, L1Wavelet, TotalVariation
from disinr_monai.methods.automatic import RULES, automatic, features
from disinr_monai.operators import Identity
from disinr_monai.output.metrics import image_metrics, to_display
from disinr_monai.scan import Scan

FIXED = {
    "tv": lambda weight: TotalVariation(tv_weight=weight, n_iterations=60),
    "l1_wavelet": lambda weight: L1Wavelet(l1_weight=weight, n_iterations=50),
    "sense": lambda weight: ConjugateGradient(l2_weight=weight),
}


@pytest.fixture(scope="module")
def listed(tmp_path_factory) -> dict[str, dict]:
    """Phantoms; the head has texture, as tissue has: constant pieces would bear twice the weight."""
    folder = tmp_path_factory.mktemp("phantoms")
    write_phantoms(folder / "ct", "ct", 1, size=96)
    (folder / "mri").mkdir()
    rng = np.random.default_rng(0)
    head, texture = brain_phantom(96, rng), gaussian_filter(rng.standard_normal((96, 96)), 1.0)
    head = np.maximum(head * (1 + 0.2 * texture / texture.std()), 0)
    nib.save(nib.Nifti1Image(head[..., None].astype(np.float32), np.eye(4)), folder / "mri" / "head.nii.gz")
    return {task: list_cases(folder / task, task)[0] for task in ("mri", "ct")}


def psnr(case: dict, task: str, method) -> float:
    image = method(None, None, case=case)[0]
    reference = to_display(case["reference"], task)
    return image_metrics(to_display(image, task, case["image_scale"]), reference)["psnr"]


def mri(listed: dict, noise: float, **settings) -> dict:
    size = {"image_size": 96, "n_coils": 4, "acs": 16, "acceleration": 4, "maps": "simulated"}
    return AcquireMRI(noise_std=noise, **size | settings)(listed["mri"])


@pytest.mark.parametrize(("method", "noise"), [("tv", 0.02), ("tv", 0.1), ("tv", 0.2), ("sense", 0.1)])
def test_the_choice_is_near_the_best_constant_weight(listed, method, noise):
    case = mri(listed, noise)
    chosen = automatic(method, case["scan"])
    best = max(psnr(case, "mri", FIXED[method](chosen * 2.0**k)) for k in range(-2, 3))
    assert psnr(case, "mri", FIXED[method](None)) > best - 0.3


def test_weights_grow_with_the_noise_and_iterations_fall(listed):
    cases = [mri(listed, noise) for noise in (0.01, 0.03, 0.1, 0.3)]
    for method in ("tv", "l1_wavelet", "sense"):
        weights = [automatic(method, case["scan"]) for case in cases]
        assert (np.diff(weights) > 0).all()
    scans = [AcquireCT(image_size=48, photons=photons)(listed["ct"])["scan"] for photons in (1e6, 1e5, 1e4)]
    assert (np.diff([automatic("tv", scan.tempered(0.5)) for scan in scans]) > 0).all()
    assert (np.diff([automatic("sirt", scan) for scan in scans]) < 0).all()


@pytest.mark.parametrize("pattern", ["uniform", "poisson", "radial"])
def test_units_of_the_measurement_do_not_matter(listed, pattern):
    scan = mri(listed, 0.05, pattern=pattern)["scan"]
    louder = replace(scan, measurement=50 * scan.measurement, noise=None)
    scan = replace(scan, noise=None)
    for method in ("tv", "sense"):
        image, other = (FIXED[method](None).solve(s) for s in (scan, louder))
        torch.testing.assert_close(other / 50, image, rtol=2e-3, atol=2e-3)


def test_the_choice_is_logged_and_kept(listed, caplog):
    case, method = mri(listed, 0.05), TotalVariation(tv_weight="auto", n_iterations=2)
    with caplog.at_level(logging.INFO):
        method(None, None, case=case)
    (entry,) = method.history
    assert entry["weight"] == automatic("tv", case["scan"])
    assert entry["noise"] == pytest.approx(case["info"]["noise_estimate"]) == pytest.approx(0.05, rel=0.1)
    assert f"tv {entry['weight']:.3g} chosen from the scan (noise {entry['noise']:.2g})" in caplog.text
    fixed = TotalVariation(tv_weight=0.0007, n_iterations=2)
    fixed(None, None, case=case)
    assert fixed.history == []
    sirt = SIRT(n_iterations=None)
    case = AcquireCT(image_size=48, photons=1e4)(listed["ct"])
    sirt(None, None, case=case)
    assert sirt.iterations_run == round(sirt.history[0]["weight"])


def test_features_are_noise_and_gaps(listed):
    case = mri(listed, 0.1)
    noise, gap, size = features(case["scan"])
    assert gap == pytest.approx(1 / case["info"]["sampled_fraction"])
    assert size == pytest.approx(1, rel=1e-3)
    assert noise == pytest.approx(float(case["scan"].noise_level()) ** 0.5, rel=1e-3)
    radial = mri(listed, 0.1, pattern="radial")["scan"]
    density = radial.operator.root_density.square()
    assert features(radial)[0] == pytest.approx(
        float((radial.noise_level() / density)[density > 0].mean()) ** 0.5, rel=0.2
    )
    assert set(RULES) == {"tv", "l1_wavelet", "sense", "sirt"}


def test_no_rule_is_one_clear_line():
    scan = Scan(Identity((1, 8, 8)), torch.rand(1, 8, 8))
    with pytest.raises(InputError, match="tv: no weight is known for a measurement of Identity; give a number"):
        TotalVariation(tv_weight=None).solve(scan)
