"""Training by predicting held-out measurements."""

from dataclasses import replace

import pytest
import torch

from disinr_monai.prior import HeldOutLoss, LearnedPrior, PickSplit, PriorInferer, SplitScan, prepare_prior_batch
from tests.prior.helpers import FIRM, case_of, make_prior, network_of


@pytest.mark.parametrize("modality", ["ct", "mri"])
@pytest.mark.parametrize("index", range(5))
def test_what_is_held_out_never_reaches_the_input(modality, index):
    case, prior = case_of(modality), make_prior(modality)
    scan, operator = case["scan"], case["scan"].operator
    keep = operator.partition.training_split(index, torch.Generator().manual_seed(index))
    measured = operator(torch.randn(operator.domain_shape)) != 0
    assert (keep & measured).any()
    assert (~keep & measured).any()
    other = replace(scan, measurement=torch.where(keep, scan.measurement, scan.measurement + 3))
    (kept, held_out), (same, changed) = ([s.restrict(mask) for mask in (keep, ~keep)] for s in (scan, other))
    assert kept.operator.n_measured + held_out.operator.n_measured == operator.n_measured
    assert torch.equal(prior.inputs(kept).features, prior.inputs(same).features)
    assert not torch.equal(held_out.measurement, changed.measurement)
    image = torch.randn(operator.domain_shape)
    whole = replace(scan, measurement=operator(image))
    for mask in (keep, ~keep):
        part = whole.restrict(mask)
        torch.testing.assert_close(part.operator(image), part.measurement, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("modality", ["ct", "mri"])
def test_loss_is_one_at_the_start(modality, tmp_path, monkeypatch):
    monkeypatch.setenv("DISINR_CACHE", str(tmp_path))
    prior = make_prior(modality, FIRM)
    split = SplitScan(prior, n_splits=3)(case_of(modality))
    assert len(split["splits"]) == 3
    torch.manual_seed(0)
    batch = [PickSplit(prior)(split) for _ in range(3)]
    seen, cases = prepare_prior_batch(batch)
    loss = HeldOutLoss()(PriorInferer()(seen, network_of(prior)), cases)
    assert float(loss.detach()) == pytest.approx(1, abs=0.02)
    # From the disk: the same to the last bit.
    again = SplitScan(prior, n_splits=3)(case_of(modality))
    for one, two in zip(split["splits"], again["splits"], strict=True):
        assert torch.equal(one["inputs"].features, two["inputs"].features)
    assert len(list((tmp_path / "prior").glob("*.npz"))) == 3


def train(prior: LearnedPrior, modality: str, steps: int = 100) -> list[float]:
    torch.manual_seed(0)
    cases = [SplitScan(prior, n_splits=2)(case_of(modality, seed=i)) for i in range(2)]
    optimizer = torch.optim.AdamW(prior.parameters(), lr=3e-3)
    losses = []
    for _ in range(steps):
        seen, batch = prepare_prior_batch([PickSplit(prior)(case) for case in cases])
        loss = HeldOutLoss()(PriorInferer()(seen, network_of(prior)), batch)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(float(loss.detach()))
    return losses


@pytest.mark.parametrize("modality", ["ct", "mri"])
def test_training_predicts_what_was_held_out(modality):
    torch.set_num_threads(1)
    # 24 by 20 pixels of a smooth blob: little is left to learn once every pass is brought back to noisy data.
    prior = make_prior(modality, {"ct": 100.0, "mri": 3.0}[modality])
    prior.refiner.amp = False
    losses = train(prior, modality)
    assert sum(losses[-10:]) < 0.9 * sum(losses[:10])
    case = case_of(modality, seed=7)
    scan, tempered = case["scan"], prior.tempered(case["scan"])
    # Lines held out at random (MRI): two coils say nothing about the gaps that every second line leaves.
    keep = scan.operator.partition.training_split(0, torch.Generator().manual_seed(2))
    inputs = prior.inputs(scan.restrict(keep))
    learned = prior.reconstruct(inputs, tempered.restrict(keep))
    held_out = tempered.restrict(~keep)
    before, after = (float(held_out.residual_energy(image)) for image in (prior.initial_image(inputs), learned))
    assert after < before
