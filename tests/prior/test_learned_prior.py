"""Features of a scan, symmetries and passes of the learned prior."""

from dataclasses import replace

import pytest
import torch

from disinr_monai.methods import TotalVariation
from disinr_monai.methods.automatic import RULES, Rule
from disinr_monai.prior.learned_prior import LearnedPrior, apply_symmetry, undo_symmetry
from tests.prior.helpers import FIRM, case_of, make_prior
from tests.problems import changed, mri_case


@pytest.mark.parametrize("k", range(8))
def test_symmetries_and_their_inverses(k):
    values = torch.randn(3, 4, 4)
    assert torch.equal(undo_symmetry(apply_symmetry(values, k), k), values)
    others = [apply_symmetry(values, other) for other in range(8) if other != k]
    assert not any(torch.equal(apply_symmetry(values, k), other) for other in others)


@pytest.mark.parametrize(("modality", "channels"), [("ct", 1), ("mri", 2)])
def test_inputs_hold_the_classical_image(modality, channels):
    case, prior = case_of(modality), make_prior(modality, FIRM)
    inputs = prior.inputs(case["scan"])
    assert inputs.features.shape == (1, 3 * channels + 2, *case["scan"].operator.domain_shape[1:])
    assert inputs.features.isfinite().all()
    classical = prior.initial.solve(case["scan"])
    torch.testing.assert_close(prior.initial_image(inputs), classical, rtol=1e-4, atol=1e-5)
    # Untrained, the prior changes nothing, however the image is flipped.
    torch.testing.assert_close(prior.reconstruct(inputs, prior.tempered(case["scan"])), classical, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("modality", ["ct", "mri"])
def test_each_pass_sees_where_the_one_before_went(modality):
    case, prior = case_of(modality), make_prior(modality)
    prior.refiner.amp = False
    torch.manual_seed(0)
    torch.nn.init.normal_(prior.refiner.last.weight, std=0.1)
    scan = prior.tempered(case["scan"])
    inputs = prior.inputs(case["scan"])
    start = prior.initial_image(inputs)
    first = prior.step(inputs, scan)
    # At the start's own image a later pass is the first one.
    torch.testing.assert_close(prior.step(inputs, scan, start), first, rtol=1e-3, atol=1e-4)
    second = prior.step(inputs, scan, first, index=1)
    assert (second - first).abs().max() > 1e-3
    torch.testing.assert_close(
        inputs.frame(inputs.image(inputs.features[:, : prior.channels])), inputs.features[:, : prior.channels]
    )
    # The image comes back as it was turned and brightened.
    prior.n_passes, prior.dc_iterations = 1, 60
    whole = torch.stack([prior.step(inputs, scan, symmetries=(k,)) for k in range(prior.n_symmetries(first))]).mean(0)
    torch.testing.assert_close(prior.reconstruct(inputs, scan), whole.detach(), rtol=1e-3, atol=1e-4)


def test_complex_images_are_nearly_real_in_its_frame():
    case, prior = mri_case(), make_prior("mri")
    phase = torch.tensor(0.9)
    measurement = case["scan"].measurement * torch.polar(torch.ones(()), phase)
    features = prior.inputs(changed(case, measurement=measurement)["scan"]).features[0]
    assert features[1].abs().mean() < 0.25 * features[0].abs().mean()
    assert float(features[0].mean()) > 0
    plain = prior.inputs(case["scan"]).features[0]
    torch.testing.assert_close(features, plain, rtol=1e-3, atol=1e-3)


def test_what_the_start_depends_on_is_recorded(monkeypatch):
    """Else stored inputs, and weights trained from another start, would be used without a word."""
    prior = LearnedPrior(1, TotalVariation(tv_weight=None), 1.0)
    before = prior.settings()
    assert before["weak.factor"] == 0.2
    assert LearnedPrior(1, TotalVariation(tv_weight=None), 1.0, weaker_fraction=0.5).settings() != before
    monkeypatch.setitem(RULES["tv"], "views", Rule(1.0, 1.0, 0.1, 0.0))
    assert prior.settings() != before


def test_corrections_leave_low_frequencies_alone():
    torch.manual_seed(0)
    prior = LearnedPrior(1, TotalVariation(tv_weight=1.0), 1.0, high_pass=10.0)
    torch.nn.init.normal_(prior.refiner.last.weight)
    features = torch.randn(1, 6, 64, 64)
    with torch.no_grad():
        change = torch.fft.fft2(prior(features)[0, 0] - features[0, 0]).abs()
    assert change[:3, :3].mean() < 0.1 * change[16:32, 16:32].mean()


@pytest.mark.parametrize("size", [32, 31])
def test_prior_leaves_the_mean_to_the_data(size):
    prior = make_prior("ct")
    torch.manual_seed(0)
    torch.nn.init.constant_(prior.refiner.last.bias, 1.0)
    features = torch.rand(1, 6, size, size)
    constant = prior(features) - features[:, :1]
    assert constant.abs().max() < 1e-4
    torch.nn.init.normal_(prior.refiner.last.weight)
    change = (prior(features) - features[:, :1])[0, 0]
    assert change.abs().mean() > 0.01
    assert abs(float(change.mean())) < 1e-4


def test_noisier_scans_are_brought_less_to_their_data():
    prior = LearnedPrior(2, TotalVariation(tv_weight=1e-3, n_iterations=5), 0.3, dc_noise=0.02, normalise=True)
    case = mri_case()
    prior.dc_noise_power.data.fill_(1.5)
    weights = []
    for std in (0.01, 0.04):
        scan = replace(case["scan"], noise=torch.tensor(std**2))
        inputs = prior.inputs(scan)
        weights.append(float(prior._dc_weight(inputs, 0)))
        assert weights[-1] == pytest.approx(0.3 * (std / inputs.gain / 0.02) ** 1.5, rel=1e-3)
    assert weights[1] == pytest.approx(8 * weights[0], rel=0.05)
    assert LearnedPrior(1, TotalVariation(), 300.0).passes()["dc_noise"] is None
