"""Reconstruction by the learned prior, and the guard that rejects it."""

from functools import partial

import pytest
import torch

from disinr_monai.networks import DisINR
from disinr_monai.prior import LearnedReconstruction, prior_of
from disinr_monai.prior.reconstruction import best_share, least_share
from tests.prior.helpers import FIRM, case_of, make_prior, network_with
from tests.problems import ENCODER, mri_case


@pytest.mark.parametrize("modality", ["ct", "mri"])
def test_untrained_prior_gives_the_classical_image_at_the_data(modality):
    case = case_of(modality)
    network = network_with(partial(make_prior, modality))
    method = LearnedReconstruction()
    image = method(None, network, case=case)[0]
    assert image.shape == case["scan"].operator.domain_shape
    assert method.history[0].keys() >= {"held_out", "held_out_classical", "classical_share"}
    classical = prior_of(network).initial(None, None, case=case)[0]
    weights = case["scan"].tempered(0.5).weights
    size = [case["scan"].residual(x).abs().square() for x in (image, classical)]
    residuals = [float((s if weights is None else s * weights).mean()) for s in size]
    if method.history[0]["classical_share"] < 1:
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


@pytest.mark.parametrize(("modality", "dc_weight"), [("ct", 1e4), ("mri", 3.0)])
def test_guard_returns_the_classical_image_of_a_sabotaged_prior(modality, dc_weight):
    case = case_of(modality)
    network = network_with(partial(make_prior, modality, dc_weight))
    prior = prior_of(network)
    torch.manual_seed(0)
    torch.nn.init.normal_(prior.refiner.last.weight, std=1.0)
    method = LearnedReconstruction()
    image = method(None, network, case=case)[0]
    assert method.history[0]["classical_share"] > 0.95
    assert method.history[0]["held_out"] > 2 * method.history[0]["held_out_classical"]
    classical, learned, _ = method.both(prior, case["scan"])
    assert float((image - classical).norm()) < 0.1 * float((learned - classical).norm())


def test_the_share_minimises_the_error_of_the_mixture():
    truth, generator = torch.zeros(500), torch.Generator().manual_seed(0)
    one, two = (truth + scale * torch.randn(500, generator=generator) for scale in (1.0, 2.0))

    def error(share: float) -> float:
        return float(torch.lerp(one, two, share).square().mean())

    share = best_share(error(0), error(1), error(0.5))
    assert share == pytest.approx(0.2, abs=0.05)
    assert error(share) <= min(error(share - 0.01), error(share + 0.01))
    assert best_share(1.0, 9.0, 4.5) == 0
    assert best_share(9.0, 1.0, 4.5) == 1
    assert best_share(float("nan"), 1.0, 1.0) == 1
    assert best_share(1.0, 1.0, 1.0) == 0


def test_the_residual_of_the_mixture_is_bounded():
    generator = torch.Generator().manual_seed(0)
    learned, classical = (scale * torch.randn(5000, generator=generator) for scale in (3.0, 1.0))

    def residual(share: float) -> float:
        return float(torch.lerp(learned, classical, share).square().mean())

    share = least_share(residual(0), residual(1), residual(0.5))
    assert residual(share) <= 1.2 * residual(1) < residual(share - 0.01)
    assert least_share(residual(1), residual(0), residual(0.5)) == 0  # the learned image explains the samples better
    assert least_share(float("nan"), 1.0, 1.0) == 1


def test_network_without_prior_is_refused():
    case = mri_case()
    method = LearnedReconstruction()
    assert method(None, DisINR(ENCODER, 2, hidden_dim=16), case=case) is None
    assert "no learned prior" in method.error
