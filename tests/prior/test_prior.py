"""The learned prior: what it sees, how it is trained, how it reconstructs and when it is not trusted."""

from __future__ import annotations

import json
import logging
import math
from functools import partial

import numpy as np
import pytest
import torch

from disinr_monai.checkpoints.released import combine, load_shared, save_shared
from disinr_monai.errors import InputError
from disinr_monai.handlers import AverageWeights
from disinr_monai.methods import TotalVariation
from disinr_monai.networks import DisINR, Refiner
from disinr_monai.operators import FanBeam, FanGeometry, Identity
from disinr_monai.prior import (
    HeldOutLoss,
    LearnedPrior,
    LearnedReconstruction,
    PickSplit,
    PriorInferer,
    Scan,
    SplitScan,
    data_consistency,
    prepare_prior_batch,
    prior_of,
)
from disinr_monai.prior.learned_prior import apply_symmetry, undo_symmetry
from disinr_monai.prior.splits import held_out, kept
from disinr_monai.scan import tempered
from tests.problems import ENCODER, blob, mri_case

SMALL = {"widths": (8, 12), "n_blocks": 1}


def ct_case(n_views: int = 24, seed: int = 0, size: int = 32) -> dict:
    operator = FanBeam(
        FanGeometry(
            image_shape=(size, size),
            pixel_spacing=2.0,
            angles=np.arange(n_views) * 2 * math.pi / n_views,
            n_detectors=80,
            detector_spacing=3.0,
            source_distance=100.0,
            detector_distance=100.0,
        )
    )
    image = blob(size, size, shift=0.1 * seed)[None]
    clean = operator(image)
    generator = torch.Generator().manual_seed(seed)
    counts = 1e3 * torch.exp(-0.024 * clean)
    weights = counts / counts.mean()
    noise = torch.randn(clean.shape, generator=generator) / counts.sqrt() / 0.024
    return {
        "name": f"disk-{seed}",
        "subject": f"disk-{seed}",
        "index": seed,
        "operator": operator,
        "measurement": clean + noise,
        "weights": weights,
        "reference": image,
    }


# So much weight on the network's image that data consistency changes nothing.
FIRM = 1e9


def make_prior(modality: str, dc_weight: float | None = None) -> LearnedPrior:
    options = {"weak_iterations": 5, **SMALL}
    if modality == "ct":
        start = TotalVariation(tv_weight=2.0, absolute=True, non_negative=True, n_iterations=30)
        return LearnedPrior(1, start, dc_weight or 100.0, turns=True, **options)
    return LearnedPrior(2, TotalVariation(tv_weight=2e-3, n_iterations=30), dc_weight or 0.3, normalise=True, **options)


def scan_of(case: dict) -> Scan:
    return Scan(case["operator"], case["measurement"], tempered(case.get("weights"), 0.5))


def make_case(modality: str, **options) -> dict:
    return ct_case(**options) if modality == "ct" else mri_case(**options)


def network_of(prior: LearnedPrior) -> torch.nn.Module:
    network = torch.nn.Module()
    network.shared = torch.nn.ModuleDict({"prior": prior})
    return network


def network_with(prior) -> DisINR:
    return DisINR(ENCODER, prior().channels, hidden_dim=16, prior=prior)


# --- The network ---


@pytest.mark.parametrize("shape", [(32, 32), (31, 29), (8, 50), (5, 7)])
def test_refiner_starts_at_zero_for_any_size(shape):
    features = torch.randn(2, 5, *shape)
    network = Refiner(5, 2, (8, 12, 16))
    correction = network(features)
    assert correction.shape == (2, 2, *shape)
    assert correction.dtype == torch.float32
    assert not correction.any()
    torch.nn.init.normal_(network.last.weight)
    assert network(features).any()


def test_refiner_depends_on_its_seed_only():
    torch.manual_seed(1)
    one = Refiner(3, 1, seed=4).state_dict()
    torch.manual_seed(2)
    two = Refiner(3, 1, seed=4).state_dict()
    assert all(torch.equal(one[k], two[k]) for k in one)
    assert 0.5e6 < sum(v.numel() for v in one.values()) < 1e6


@pytest.mark.parametrize("k", range(8))
def test_symmetries_and_their_inverses(k):
    values = torch.randn(3, 4, 4)
    assert torch.equal(undo_symmetry(apply_symmetry(values, k), k), values)
    others = [apply_symmetry(values, other) for other in range(8) if other != k]
    assert not any(torch.equal(apply_symmetry(values, k), other) for other in others)


# --- What it sees ---


@pytest.mark.parametrize(("modality", "channels"), [("ct", 1), ("mri", 2)])
def test_inputs_hold_the_classical_image(modality, channels):
    case, prior = make_case(modality), make_prior(modality, FIRM)
    inputs = prior.inputs(case["operator"], case["measurement"], case.get("weights"))
    assert inputs.features.shape == (3 * channels + 2, *case["operator"].domain_shape[1:])
    assert inputs.features.isfinite().all()
    classical = prior.start.reconstruct(
        operator=case["operator"], measurement=case["measurement"], weights=case.get("weights")
    )
    torch.testing.assert_close(prior.start_image(inputs), classical, rtol=1e-4, atol=1e-5)
    # Untrained, the prior changes nothing, however the image is flipped.
    torch.testing.assert_close(prior.reconstruct(inputs, scan_of(case)), classical, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("modality", ["ct", "mri"])
def test_each_pass_sees_where_the_one_before_went(modality):
    case, prior = make_case(modality), make_prior(modality)
    prior.refiner.amp = False
    torch.manual_seed(0)
    torch.nn.init.normal_(prior.refiner.last.weight, std=0.1)
    scan = scan_of(case)
    inputs = prior.inputs(scan.operator, scan.measurement, case.get("weights"))
    start = prior.start_image(inputs)
    first = prior.step(inputs, scan)
    # At the start's own image a later pass is the first one.
    torch.testing.assert_close(prior.step(inputs, scan, start), first, rtol=1e-3, atol=1e-4)
    second = prior.step(inputs, scan, first, index=1)
    assert (second - first).abs().max() > 1e-3
    torch.testing.assert_close(
        inputs.frame(inputs.image(inputs.features[: prior.channels])), inputs.features[: prior.channels]
    )
    # The image comes back as it was turned and brightened.
    prior.n_passes, prior.dc_iterations = 1, 60
    whole = torch.stack([prior.step(inputs, scan, symmetries=(k,)) for k in range(prior.n_symmetries(first))]).mean(0)
    torch.testing.assert_close(prior.reconstruct(inputs, scan), whole.detach(), rtol=1e-3, atol=1e-4)


def test_complex_images_are_nearly_real_in_its_frame():
    case, prior = mri_case(), make_prior("mri")
    phase = torch.tensor(0.9)
    measurement = case["measurement"] * torch.polar(torch.ones(()), phase)
    features = prior.inputs(case["operator"], measurement).features
    assert features[1].abs().mean() < 0.25 * features[0].abs().mean()
    assert float(features[0].mean()) > 0
    plain = prior.inputs(case["operator"], case["measurement"]).features
    torch.testing.assert_close(features, plain, rtol=1e-3, atol=1e-3)


# --- Splitting ---


@pytest.mark.parametrize("modality", ["ct", "mri"])
@pytest.mark.parametrize("index", range(5))
def test_what_is_held_out_never_reaches_the_input(modality, index):
    case, prior = make_case(modality), make_prior(modality)
    operator, y, weights = case["operator"], case["measurement"], case.get("weights")
    keep = operator.partition.training_split(index, torch.Generator().manual_seed(index))
    measured = operator(torch.randn(operator.domain_shape)) != 0
    assert (keep & measured).any()
    assert (~keep & measured).any()
    part, select = operator.partition.restrict(keep)
    other, take = operator.partition.restrict(~keep)
    assert part.n_measured + other.n_measured == operator.n_measured

    changed = torch.where(keep, y, y + 3)
    inputs = [prior.inputs(part, select(v), None if weights is None else select(weights)) for v in (y, changed)]
    assert torch.equal(inputs[0].features, inputs[1].features)
    assert not torch.equal(take(y), take(changed))
    image = torch.randn(operator.domain_shape)
    torch.testing.assert_close(part(image), select(operator(image)), rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(other(image), take(operator(image)), rtol=1e-4, atol=1e-4)


def test_mri_splits_keep_the_centre():
    operator = mri_case()["operator"]
    for index in range(10):
        keep = operator.partition.training_split(index, torch.Generator().manual_seed(index))
        assert keep[:, :, 7:13].all()


def test_restriction_of_a_restriction_and_of_any_operator():
    case = ct_case()
    keep = torch.zeros(case["operator"].range_shape, dtype=torch.bool)
    keep[:, 3:15] = True
    part, select = case["operator"].partition.restrict(keep)
    inner, choose = part.partition.restrict(torch.arange(12)[None, :, None].expand(part.range_shape) % 3 == 1)
    image = torch.randn(1, 32, 32)
    torch.testing.assert_close(inner(image), choose(select(case["operator"](image))))
    masked, choose = Identity((1, 4, 4)).partition.restrict(torch.eye(4, dtype=torch.bool)[None])
    assert masked.n_measured == 4
    torch.testing.assert_close(masked(torch.ones(1, 4, 4)), torch.eye(4)[None])


def test_ordered_subsets_cover_every_view_once():
    operator = ct_case()["operator"]
    parts = operator.partition.subsets(6)
    assert [part.range_shape[1] for part, _ in parts] == [6, 6, 6, 6]
    image = torch.rand(1, 32, 32)
    total = sum(part.adjoint(select(operator(image))) for part, select in parts)
    torch.testing.assert_close(total, operator.adjoint(operator(image)), rtol=1e-4, atol=1e-2)


@pytest.mark.parametrize("modality", ["ct", "mri"])
def test_gram_is_forward_and_adjoint(modality):
    case = make_case(modality)
    image = torch.randn(case["operator"].domain_shape)
    expected = case["operator"].adjoint(case["operator"](image))
    torch.testing.assert_close(case["operator"].gram(image), expected, rtol=1e-4, atol=1e-4)


# --- The loss ---


def test_mri_energy_is_the_mean_square():
    case = mri_case()
    operator, image = case["operator"], torch.randn(2, 24, 20)
    residual = operator(image) - case["measurement"]
    expected = residual.abs().square().sum() / operator.n_measured
    torch.testing.assert_close(operator.noise.residual_energy(residual), expected)


def test_ct_energy_is_its_quadratic_form():
    operator, generator = ct_case()["operator"], torch.Generator().manual_seed(0)
    residual = torch.randn(operator.range_shape, generator=generator)
    weights = torch.rand(operator.range_shape, generator=generator) + 0.5
    kernel = operator.ramp.sharpened(torch.eye(80))
    torch.testing.assert_close(kernel, kernel.T, rtol=1e-3, atol=1e-5)
    rows = (weights.sqrt() * residual)[0]
    spacing = 3.0 / 2
    expected = (rows * (rows @ kernel)).sum() * math.pi * spacing / 24 / (32 * 32 * 4.0)
    torch.testing.assert_close(operator.noise.residual_energy(residual, weights), expected, rtol=1e-3, atol=0)
    # Noise of unit variance, in the mean over many draws.
    noise = torch.randn(2000, *operator.range_shape, generator=generator)
    mean = torch.stack([operator.noise.residual_energy(n, weights) for n in noise[:400]]).mean()
    assert operator.noise.energy(torch.ones(()), weights) == pytest.approx(float(mean), rel=0.05)


def test_ct_energy_is_about_the_error_of_the_image():
    operator = ct_case(n_views=90)["operator"]
    rows, columns = torch.meshgrid(torch.linspace(-1, 1, 32), torch.linspace(-1, 1, 32), indexing="ij")
    smooth = torch.exp(-(rows**2 + columns**2) / 0.1)[None]
    fine = smooth * torch.cos(6 * rows + 9 * columns)
    for image in (smooth, fine):
        assert float(operator.noise.residual_energy(operator(image))) == pytest.approx(
            float(image.square().mean()), rel=0.3
        )


def test_noise_is_seen_in_rays_that_miss():
    case = ct_case(n_views=48)
    variance = case["operator"].noise.variance(case["measurement"], case["weights"])
    expected = 1 / (1e3 * torch.exp(-0.024 * case["operator"](case["reference"]))) / 0.024**2
    torch.testing.assert_close(variance, expected, rtol=0.2, atol=0)


@pytest.mark.parametrize("modality", ["ct", "mri"])
def test_loss_is_one_at_the_start(modality, tmp_path, monkeypatch):
    monkeypatch.setenv("DISINR_CACHE", str(tmp_path))
    prior = make_prior(modality, FIRM)
    split = SplitScan(prior, n_splits=3)(make_case(modality))
    assert len(split["splits"]) == 3
    torch.manual_seed(0)
    batch = [PickSplit(prior)(split) for _ in range(3)]
    seen, cases = prepare_prior_batch(batch)
    loss = HeldOutLoss()(PriorInferer()(seen, network_of(prior)), cases)
    assert float(loss.detach()) == pytest.approx(1, abs=0.02)
    # From the disk: the same to the last bit.
    again = SplitScan(prior, n_splits=3)(make_case(modality))
    for one, two in zip(split["splits"], again["splits"], strict=True):
        assert torch.equal(one["inputs"].features, two["inputs"].features)
    assert len(list((tmp_path / "prior").glob("*.npz"))) == 3


def train(prior: LearnedPrior, modality: str, steps: int = 60) -> list[float]:
    torch.manual_seed(0)
    cases = [SplitScan(prior, n_splits=2)(make_case(modality, seed=i)) for i in range(2)]
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
    case = make_case(modality, seed=7)
    operator, y, weights = case["operator"], case["measurement"], case.get("weights")
    keep = operator.partition.training_split(0, torch.Generator().manual_seed(0))
    part, select = operator.partition.restrict(keep)
    inputs = prior.inputs(part, select(y), None if weights is None else select(weights))
    held = held_out(operator, y, weights, keep, 0.5)
    learned = prior.reconstruct(inputs, kept(operator, y, weights, keep, 0.5))
    before, after = (float(held.energy(image)) for image in (prior.start_image(inputs), learned))
    assert after < before


# --- Reconstruction ---


@pytest.mark.parametrize("modality", ["ct", "mri"])
def test_untrained_prior_gives_the_classical_image_at_the_data(modality):
    case = make_case(modality)
    network = network_with(partial(make_prior, modality))
    method = LearnedReconstruction()
    image = method(None, network, case=case)[0]
    assert image.shape == case["operator"].domain_shape
    assert method.history[0].keys() >= {"held_out", "held_out_classical", "fallback"}
    classical = prior_of(network).start(None, None, case=case)[0]
    fair = tempered(case.get("weights"), 0.5)
    size = [(case["operator"](x) - case["measurement"]).abs().square() for x in (image, classical)]
    residuals = [float((s if fair is None else s * fair).mean()) for s in size]
    if not method.history[0]["fallback"]:
        assert residuals[0] < residuals[1]
    network = network_with(partial(make_prior, modality, FIRM))
    firm = LearnedReconstruction(guard=False)(None, network, case=case)[0]
    torch.testing.assert_close(firm, classical, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("modality", ["ct", "mri"])
def test_two_threads_give_the_image_of_one(modality):
    case, network = make_case(modality), network_with(partial(make_prior, modality))
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
    lines = LearnedReconstruction(mixes={"samples": mix})
    lines(None, network, case=case)
    assert "classical_share" not in lines.history[0]  # a pattern of lines is judged as before

    scattered = torch.rand(case["operator"].range_shape[1:], generator=torch.Generator().manual_seed(0)) < 0.5
    scattered[8:16, 6:14] = True
    operator = case["operator"].partition.restrict(scattered.expand(case["operator"].range_shape))[0]
    full = mri_case(acceleration=1)["measurement"]
    case |= {"operator": operator, "measurement": full * operator.sampled}
    assert operator.partition.gaps == "samples"
    images = {share: LearnedReconstruction(mixes={"samples": share})(None, network, case=case) for share in (0.0, 1.0)}
    assert (images[0.0] - images[1.0]).abs().max() > 1e-3
    method = LearnedReconstruction(mixes={"samples": mix})
    mixed = method(None, network, case=case)
    torch.testing.assert_close(mixed, torch.lerp(images[0.0], images[1.0], mix), rtol=1e-4, atol=1e-5)
    assert method.history[0]["fallback"] == float(mix == 1)


def test_data_consistency_solves_its_equation():
    case = mri_case()
    operator, y = case["operator"], case["measurement"]
    centre = torch.randn(2, 24, 20)
    image = data_consistency(centre, operator, y, None, 0.3, 60)
    slope = operator.adjoint(operator(image) - y) + 0.3 * (image - centre)
    assert float(slope.abs().max()) < 1e-4


def test_gradient_of_data_consistency():
    case = ct_case(n_views=6, size=6)
    operator, y = case["operator"].double(), case["measurement"].double()
    weights = case["weights"].double()
    centre = torch.rand(1, 6, 6, dtype=torch.float64, requires_grad=True)
    dc_weight = torch.tensor(5.0, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(
        lambda x, w: data_consistency(x, operator, y, weights, w, 60), (centre, dc_weight), atol=1e-6
    )


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


@pytest.mark.parametrize(("modality", "dc_weight"), [("ct", 1e4), ("mri", 3.0)])
def test_guard_returns_the_classical_image_of_a_sabotaged_prior(modality, dc_weight, caplog):
    case = make_case(modality)
    network = network_with(partial(make_prior, modality, dc_weight))
    refiner = prior_of(network).refiner
    torch.manual_seed(0)
    torch.nn.init.normal_(refiner.last.weight, std=1.0)
    method = LearnedReconstruction(tv_shares=())
    with caplog.at_level(logging.WARNING):
        image = method(None, network, case=case)[0]
    assert method.history[0]["fallback"] == 1
    assert "the classical one is returned" in caplog.text
    torch.testing.assert_close(image, prior_of(network).start(None, None, case=case)[0], rtol=1e-4, atol=1e-5)


def test_guard_finds_a_better_weight_of_total_variation(caplog):
    case = mri_case()
    case["measurement"] = case["measurement"] + 0.1 * torch.randn(
        case["measurement"].shape, dtype=torch.complex64, generator=torch.Generator().manual_seed(5)
    ) * (case["measurement"] != 0)
    network = network_with(partial(make_prior, "mri"))
    prior = prior_of(network)
    prior.start.tv_weight = prior.weak.tv_weight = 1e-5
    torch.nn.init.normal_(prior.refiner.last.weight, std=1.0)
    method = LearnedReconstruction(tv_shares=(1e3, 3e3))
    image = method(None, network, case=case)[0]
    assert method.history[0]["fallback"] == 1
    images = image, prior.start(None, None, case=case)[0]
    errors = [float((x.norm(dim=0) - case["reference"][0]).square().mean()) for x in images]
    assert errors[0] < 0.7 * errors[1]


def test_network_without_prior_is_refused():
    case = mri_case()
    method = LearnedReconstruction()
    assert method(None, DisINR(ENCODER, 2, hidden_dim=16), case=case) is None
    assert "no learned prior" in case["error"]


# --- Checkpoints ---


@pytest.fixture
def networks():
    def make(seed: int, with_prior: bool) -> DisINR:
        prior = partial(make_prior, "mri") if with_prior else None
        network = DisINR(ENCODER, 2, hidden_dim=16, seed=seed, prior=prior)
        if with_prior:
            torch.manual_seed(seed)
            torch.nn.init.normal_(network.shared["prior"].refiner.last.weight)
        return network

    return make


def test_prior_travels_with_the_pair(networks, tmp_path):
    one, two = networks(1, True), networks(2, True)
    save_shared(tmp_path / "model.pt", one, "mri")
    load_shared(tmp_path / "model.pt", two, "mri")
    for (name, a), (_, b) in zip(one.shared.state_dict().items(), two.shared.state_dict().items(), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-3, atol=1e-6, msg=name)


def test_parts_are_loaded_only_when_asked_for(networks, tmp_path):
    save_shared(tmp_path / "pair.pt", networks(1, False), "mri")
    save_shared(tmp_path / "both.pt", networks(2, True), "mri")
    with pytest.raises(InputError, match=r"shared\.prior"):
        load_shared(tmp_path / "pair.pt", networks(3, True), "mri")
    with pytest.raises(InputError, match=r"shared\.prior"):
        load_shared(tmp_path / "both.pt", networks(3, False), "mri")
    network = networks(3, True)
    before = network.shared["prior"].refiner.last.weight.clone()
    load_shared(tmp_path / "pair.pt", network, "mri", parts=("pair",))
    assert torch.equal(network.shared["prior"].refiner.last.weight, before)
    expected = networks(1, False).shared["decoder"].state_dict()
    assert all(torch.equal(v, expected[k]) for k, v in network.shared["decoder"].state_dict().items())
    load_shared(tmp_path / "both.pt", network, "mri", parts=("prior",))
    assert not torch.equal(network.shared["prior"].refiner.last.weight, before)
    with pytest.raises(InputError, match="no learned prior"):
        load_shared(tmp_path / "pair.pt", network, "mri", parts=("prior",))


def test_combine_pair_and_prior(networks, tmp_path):
    save_shared(tmp_path / "pair.pt", networks(1, False), "mri", {"seed": 1})
    save_shared(tmp_path / "prior.pt", networks(2, True), "mri", {"seed": 2})
    combine(tmp_path / "pair.pt", tmp_path / "prior.pt", tmp_path / "model.pt")
    network = networks(3, True)
    info = load_shared(tmp_path / "model.pt", network, "mri")
    assert info["seed"] == 1
    assert info["prior"]["seed"] == 2
    expected = networks(2, True).shared["prior"].state_dict()
    assert all(torch.equal(v, expected[k]) for k, v in network.shared["prior"].state_dict().items())
    with pytest.raises(InputError, match="no learned prior"):
        combine(tmp_path / "prior.pt", tmp_path / "pair.pt", tmp_path / "other.pt")
    assert json.loads(torch.load(tmp_path / "model.pt", weights_only=True)["architecture"]) == network.architecture()


def test_running_mean_of_the_weights():
    module = torch.nn.Linear(1, 1, bias=False)
    torch.nn.init.zeros_(module.weight)
    average = AverageWeights(module, decay=0.5)
    for value in (1.0, 1.0, 1.0, 1.0):
        torch.nn.init.constant_(module.weight, value)
        average.update()
    copy = AverageWeights(module)
    copy.load_state_dict(average.state_dict())
    copy.apply()
    assert 0.9 < float(module.weight.detach()) < 1
