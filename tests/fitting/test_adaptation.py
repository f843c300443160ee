import copy

import pytest
import torch

from disinr_monai.fitting.adaptation import AdaptationInferer
from disinr_monai.fitting.losses import MeasurementLoss
from tests.engines import adapt, psnr
from tests.faults.record import record
from tests.problems import changed, mri_case, small_naive, small_network


@pytest.mark.parametrize("make", [small_network, small_naive])
def test_fits_the_scan(make):
    case = mri_case()
    _, image = adapt(make(), case)
    zero_filled = case["scan"].operator.direct_inverse(case["scan"].measurement)[None]
    assert image.shape == (1, 2, 24, 20)
    assert psnr(image, case) > psnr(zero_filled, case) + 5


def test_nothing_of_the_network_changes():
    network = small_network()
    before = copy.deepcopy(network.state_dict())
    for frozen in (True, False):
        adapt(network, n_iterations=5, frozen=frozen)
        assert all(torch.equal(before[k], v) for k, v in network.state_dict().items())


def test_unfrozen_fits_more_than_frozen():
    # At a small rate: at a large one the loss jumps about, and which of the two is lower at the end is chance.
    losses = [adapt(small_network(), frozen=f, lr=1e-3)[0].history[-1]["loss"] for f in (True, False)]
    assert losses[1] < losses[0]


def test_same_seed_same_image():
    images = [adapt(small_network(), n_iterations=10)[1] for _ in range(2)]
    assert torch.equal(*images)


def test_history_and_iterations():
    inferer, _ = adapt(small_network(), n_iterations=55, check_every=25)
    assert [entry["iteration"] for entry in inferer.history] == [25, 50, 55]
    assert inferer.iterations_run == 55


def test_early_stopping_uses_withheld_samples_only():
    """With strong noise the fit to the withheld samples gets worse in the end: it must stop before the limit."""
    case = mri_case(acceleration=1)
    noise = torch.randn(*case["scan"].measurement.shape, 2, generator=torch.Generator().manual_seed(1))
    case = changed(case, measurement=case["scan"].measurement + 0.3 * torch.view_as_complex(noise))
    options = {"n_iterations": 600, "check_every": 10, "patience": 3}
    stopped, image = adapt(small_naive(), case, early_stop=True, holdout=0.2, **options)
    assert stopped.iterations_run < 600
    assert all("held_out" in entry for entry in stopped.history)
    _, full = adapt(small_naive(), case, **options)
    assert psnr(image, case) > psnr(full, case)


def test_an_unreadable_case_gives_none():
    inferer = AdaptationInferer(MeasurementLoss(), quiet=True)
    assert inferer(None, small_network(), case={"name": "bad", "error": "bad.h5: broken"}) is None
    assert inferer.error == "bad.h5: broken"


@pytest.mark.parametrize("where", [slice(None), (0, 0, 0)])
def test_a_measurement_that_is_not_finite_ends_the_fit_at_once(where):
    case = mri_case()
    case["scan"].measurement[where] = complex("nan")
    inferer, image = adapt(small_network(), case, n_iterations=10_000)
    assert image is None
    assert "iteration 1, expected a finite number" in inferer.error


def test_bad_settings():
    with pytest.raises(ValueError, match="n_iterations must be at least 1"):
        AdaptationInferer(MeasurementLoss(), n_iterations=0)


@pytest.mark.parametrize("damage", [float("nan"), 1e6])
def test_a_fit_that_diverges_goes_back_and_says_so(monkeypatch, damage):
    case, steps, step = mri_case(), [], torch.optim.Adam.step

    def damaged_once(self, *arguments):
        result = step(self, *arguments)
        steps.append(1)
        if len(steps) == 30:
            with torch.no_grad():
                self.param_groups[0]["params"][-1].fill_(damage)
        return result

    monkeypatch.setattr(torch.optim.Adam, "step", damaged_once)
    options = {"n_iterations": 400, "lr": 5e-3, "check_every": 10}
    inferer, image = adapt(small_network(), case, **options)
    assert not inferer.error
    assert any("went back to iteration 30 with half the learning rate" in text for text in inferer.warnings)
    monkeypatch.setattr(torch.optim.Adam, "step", step)
    inferer, sound = adapt(small_network(), case, **options)
    assert not inferer.warnings
    assert psnr(image, case) > psnr(sound, case) - 1.5
    record("divergence in adaptation (NaN, exploding loss)", 1, 1, "iterations since the last look")


def test_a_scan_of_nothing_is_no_divergence():
    case = mri_case()
    case = changed(case, measurement=torch.zeros_like(case["scan"].measurement))
    inferer, image = adapt(small_network(), case, n_iterations=60, check_every=5)
    assert not inferer.error
    assert not any("diverged" in text for text in inferer.warnings)
    assert float(image.abs().max()) < 1
