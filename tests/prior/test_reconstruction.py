"""Reconstruction by the learned prior, and the guard that rejects it."""

import logging
from functools import partial

import pytest
import torch

from disinr_monai.networks import DisINR
from disinr_monai.prior import LearnedReconstruction, prior_of
from tests.prior.helpers import FIRM, case_of, make_prior, network_with
from tests.problems import ENCODER, changed, mri_case


@pytest.mark.parametrize("modality", ["ct", "mri"])
def test_untrained_prior_gives_the_classical_image_at_the_data(modality):
    case = case_of(modality)
    network = network_with(partial(make_prior, modality))
    method = LearnedReconstruction()
    image = method(None, network, case=case)[0]
    assert image.shape == case["scan"].operator.domain_shape
    assert method.history[0].keys() >= {"held_out", "held_out_classical", "fallback"}
    classical = prior_of(network).initial(None, None, case=case)[0]
    weights = case["scan"].tempered(0.5).weights
    size = [case["scan"].residual(x).abs().square() for x in (image, classical)]
    residuals = [float((s if weights is None else s * weights).mean()) for s in size]
    if not method.history[0]["fallback"]:
        assert residuals[0] < residuals[1]
    network = network_with(partial(make_prior, modality, FIRM))
    firm = LearnedReconstruction(guard=False)(None, network, case=case)[0]
    torch.testing.assert_close(firm, classical, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("modality", ["ct", "mri"])
def test_two_threads_give_the_image_of_one(modality):
    case, network = case_of(modality), network_with(partial(make_prior, modality))
    images, history = [], []
    before = torch.get_num_threads()
    try:
        for n_threads in (1, 2):
            torch.set_num_threads(n_threads)
            method = LearnedReconstruction()
            images.append(method(None, network, case=case))
            history.append(method.history)
            assert torch.get_num_threads() == n_threads
    finally:
        torch.set_num_threads(before)
    torch.testing.assert_close(*images, rtol=1e-4, atol=1e-5)
    assert history[0][0] == pytest.approx(history[1][0], rel=1e-4)
    assert not images[1].requires_grad


@pytest.mark.parametrize("mix", [0.0, 0.5, 1.0])
def test_gaps_of_two_dimensions_mix_learned_and_classical(mix):
    case, network = mri_case(), network_with(partial(make_prior, "mri"))
    torch.nn.init.normal_(network.shared["prior"].refiner.last.weight, std=0.1)
    lines = LearnedReconstruction(tv_fraction_by_gap={"samples": mix})
    lines(None, network, case=case)
    assert "classical_share" not in lines.history[0]  # a pattern of lines is judged as before

    scattered = torch.rand(case["scan"].operator.range_shape[1:], generator=torch.Generator().manual_seed(0)) < 0.5
    scattered[8:16, 6:14] = True
    operator = case["scan"].operator.partition.restrict(scattered.expand(case["scan"].operator.range_shape))[0]
    full = mri_case(acceleration=1)["scan"].measurement
    case = changed(case, operator=operator, measurement=full * operator.sampled)
    assert operator.partition.gaps == "samples"
    images = {
        share: LearnedReconstruction(tv_fraction_by_gap={"samples": share})(None, network, case=case)
        for share in (0.0, 1.0)
    }
    assert (images[0.0] - images[1.0]).abs().max() > 1e-3
    method = LearnedReconstruction(tv_fraction_by_gap={"samples": mix})
    mixed = method(None, network, case=case)
    torch.testing.assert_close(mixed, torch.lerp(images[0.0], images[1.0], mix), rtol=1e-4, atol=1e-5)
    assert method.history[0]["fallback"] == float(mix == 1)


@pytest.mark.parametrize(("modality", "dc_weight"), [("ct", 1e4), ("mri", 3.0)])
def test_guard_returns_the_classical_image_of_a_sabotaged_prior(modality, dc_weight, caplog):
    case = case_of(modality)
    network = network_with(partial(make_prior, modality, dc_weight))
    refiner = prior_of(network).refiner
    torch.manual_seed(0)
    torch.nn.init.normal_(refiner.last.weight, std=1.0)
    method = LearnedReconstruction(tv_candidates=())
    with caplog.at_level(logging.WARNING):
        image = method(None, network, case=case)[0]
    assert method.history[0]["fallback"] == 1
    assert "the classical one is returned" in caplog.text
    torch.testing.assert_close(image, prior_of(network).initial(None, None, case=case)[0], rtol=1e-4, atol=1e-5)


def test_guard_finds_a_better_weight_of_total_variation(caplog):
    case = mri_case()
    y = case["scan"].measurement
    noise = torch.randn(y.shape, dtype=torch.complex64, generator=torch.Generator().manual_seed(5))
    case = changed(case, measurement=y + 0.1 * noise * (y != 0))
    network = network_with(partial(make_prior, "mri"))
    prior = prior_of(network)
    prior.initial.tv_weight = prior.weaker.tv_weight = 1e-5
    torch.nn.init.normal_(prior.refiner.last.weight, std=1.0)
    method = LearnedReconstruction(tv_candidates=(1e3, 3e3))
    image = method(None, network, case=case)[0]
    assert method.history[0]["fallback"] == 1
    images = image, prior.initial(None, None, case=case)[0]
    errors = [float((x.norm(dim=0) - case["reference"][0]).square().mean()) for x in images]
    assert errors[0] < 0.7 * errors[1]


def test_network_without_prior_is_refused():
    case = mri_case()
    method = LearnedReconstruction()
    assert method(None, DisINR(ENCODER, 2, hidden_dim=16), case=case) is None
    assert "no learned prior" in method.error
