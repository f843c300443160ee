"""A scan unlike the training scans is named as such; one like them passes in silence."""

import logging

import pytest
import torch

from disinr_monai.networks import DisINR
from disinr_monai.prior import LearnedReconstruction, SplitScan, include, outside
from tests.prior.helpers import make_prior
from tests.problems import ENCODER, changed, ct_case


@pytest.fixture(scope="module")
def network() -> DisINR:
    prior = make_prior("ct")
    for seed in range(3):
        SplitScan(prior, n_splits=4)(ct_case(n_views=48, seed=seed))
    return DisINR(ENCODER, 1, hidden_dim=16, prior=lambda: prior)


def warnings_of(network, case, caplog) -> str:
    caplog.clear()
    with caplog.at_level(logging.WARNING, logger="disinr_monai"):
        LearnedReconstruction(guard=False)(None, network, case=case)
    return " ".join(record.message for record in caplog.records)


def test_a_scan_like_those_of_the_training_passes(network, caplog):
    assert "unlike" not in warnings_of(network, ct_case(n_views=24, seed=4), caplog)


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"measurement": lambda case: case["scan"].measurement.flip(1)}, "misfit"),  # the gantry turned the other way
        ({"measurement": lambda case: 20 * torch.rand_like(case["scan"].measurement)}, "roughness"),
        ({}, "undersampling"),  # 6 views
    ],
)
def test_what_is_unlike_them_is_named(network, caplog, change, named):
    case = ct_case(n_views=6 if named == "undersampling" else 24, seed=4)
    case = changed(case, **{key: make(case) for key, make in change.items()})
    said = warnings_of(network, case, caplog)
    assert "unlike those that the prior was trained on" in said
    assert f"{named} " in said


def test_range_with_its_margin():
    domain = {}
    for value in (1.0, 2.0):
        include(domain, {"noise": value})
    assert domain == {"noise": [1.0, 2.0]}
    assert outside(domain, {"noise": 2.4, "unknown": 7.0}) == []
    assert outside(domain, {"noise": 2.6}) == ["noise 2.6 (trained on 1 to 2)"]
    assert outside(domain, {"noise": 0.7}) == ["noise 0.7 (trained on 1 to 2)"]
    assert outside({}, {"noise": 0.7}) == []
