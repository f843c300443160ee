"""Sites share the pair: what leaves one, what comes in, what the server makes of it, and the simulation as a whole."""

import io
import json
import pickle
import subprocess
import sys

import federated
import pytest
import torch
from monai.fl.utils.constants import FlStatistics, WeightType
from monai.fl.utils.exchange_object import ExchangeObject

from disinr_monai.checkpoints.released import load_shared
from disinr_monai.data import deal_subjects, list_cases
from disinr_monai.data.simulate.phantoms import write_phantoms
from disinr_monai.errors import InputError
from disinr_monai.runtime.federated import KeepShared, average
from tests.conftest import ROOT

OPTIONS = {"image_size": 32, "n_views": 12, "n_detectors": 64, "detector_spacing": 12.0, "pixel_spacing": 8.0}
OPTIONS |= {"photons": 0, "amp": False, "encoder#n_levels": 4, "encoder#log2_hashmap_size": 10, "encoder#out_dim": 16}
OPTIONS |= {"encoder#hidden_dim": 16}


def message(values: dict[str, float], steps: int = 1, kind: WeightType = WeightType.WEIGHT_DIFF) -> ExchangeObject:
    weights = {name: torch.full((2,), value) for name, value in values.items()}
    return ExchangeObject(
        weights=weights, weight_type=kind, statistics={FlStatistics.NUM_EXECUTED_ITERATIONS: steps, "rank": 0}
    )


def test_subject_encoders_and_everything_else_stay():
    mixed = message({"shared.decoder": 1.0, "subjects.0.grid": 2.0, "optimizer": 3.0}, steps=7)
    mixed.metrics, mixed.optim = {"case": "Smith^John"}, {"state": torch.ones(1)}
    out = KeepShared()(mixed)
    assert list(out.weights) == ["shared.decoder"]
    assert out.statistics == {FlStatistics.NUM_EXECUTED_ITERATIONS: 7}
    assert out.metrics is None
    assert out.optim is None
    assert dict(out) == {}


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_values_that_are_not_finite_do_not_leave(bad):
    with pytest.raises(InputError, match="not finite"):
        KeepShared()(message({"shared.decoder": bad}))


def test_nothing_shared_is_an_error():
    with pytest.raises(InputError, match=r"tensors named shared\.\*, found none"):
        KeepShared()(message({"subjects.0.grid": 1.0}))


def test_the_norm_of_a_change_is_limited_but_not_of_the_pair():
    limited = KeepShared(max_norm=1.0)
    out = limited(message({"shared.a": 3.0, "shared.b": 4.0}))
    assert sum(float(v.square().sum()) for v in out.weights.values()) == pytest.approx(1.0)
    assert float(out.weights["shared.b"][0] / out.weights["shared.a"][0]) == pytest.approx(4 / 3)
    whole = limited(message({"shared.a": 3.0}, kind=WeightType.WEIGHTS))
    assert float(whole.weights["shared.a"][0]) == 3.0


def test_the_average_is_weighted_by_steps():
    pair = {"shared.a": torch.tensor([1.0, 1.0])}
    result = average(pair, [message({"shared.a": 1.0}, steps=1), message({"shared.a": -1.0}, steps=3)])
    torch.testing.assert_close(result["shared.a"], torch.tensor([0.5, 0.5]))
    assert pair["shared.a"].tolist() == [1.0, 1.0]


@pytest.mark.parametrize(
    ("wrong", "text"),
    [
        (message({"shared.a": 1.0, "subjects.0.a": 1.0}), r"message 1: subjects\.0\.a has shape \(2,\), expected None"),
        (message({"shared.a": float("nan")}), "message 1: its change has norm nan"),
        (message({"shared.a": 9.0}), r"message 1: its change has norm 12\.7, expected at most 10"),
        (message({"shared.a": 1.0}, kind=WeightType.WEIGHTS), "message 1: expected weight differences"),
        (message({"shared.a": 1.0}, steps=0), "message 1: expected the number of its steps, found 0"),
    ],
)
def test_the_server_checks_each_message(wrong, text):
    with pytest.raises(InputError, match=text):
        average({"shared.a": torch.zeros(2)}, [message({"shared.a": 1.0}), wrong], max_norm=10.0)


def test_what_really_leaves_a_site(tmp_path):
    """MonaiAlgo with our configs: two rounds at two sites; nothing but the pair in the bytes of a message."""
    data = tmp_path / "data"
    write_phantoms(data, "ct", n_subjects=3, size=32, seed=3)
    parts = deal_subjects(data, "ct", tmp_path / "sites", 2)
    network = federated.new_network("ct", OPTIONS)
    sites = []
    for name in parts:
        folders = {"dataset_dir": str(tmp_path / "sites" / name), "output_dir": str(tmp_path / "out")}
        sites.append(federated.new_site(name, "ct", 1, {**OPTIONS, **folders, "quiet": True, "max_epochs": 2}))
    start = federated.pair_of(network)
    pair, messages = federated.federate(sites, start, 2, quiet=True)

    assert [m.statistics[FlStatistics.NUM_EXECUTED_ITERATIONS] for m in messages] == [2, 1]  # cases of each site
    names = {case["name"] for case in list_cases(data, "ct")} | {case["subject"] for case in list_cases(data, "ct")}
    for sent, site in zip(messages, sites, strict=True):
        assert set(sent.weights) == {f"shared.{name}" for name in network.shared.state_dict()}
        stream = io.BytesIO()
        pickle.dump([vars(sent), dict(sent)], stream)
        content = stream.getvalue()
        assert not any(text.encode() in content for text in (*names, *parts, "subjects.", str(tmp_path)))
        own = [value for value in site.trainer.network.subjects.parameters()]
        assert not any(value.detach().numpy().tobytes() in content for value in own)
        assert site.trainer.state.epoch == 2
    assert not any(torch.equal(pair[name], start[name]) for name in pair)

    # Subject encoders were trained, differ, and outlive a round.
    own = sites[0].trainer.network.subjects
    assert len(own) == 2
    assert not torch.equal(own[0].grid.table, own[1].grid.table)
    before = own[0].grid.table.detach().clone()
    hostile = ExchangeObject(
        {**pair, "subjects.0.grid.table": torch.zeros_like(before)}, weight_type=WeightType.WEIGHTS
    )
    sites[0].trainer.optimizer.param_groups[0]["lr"] = 0.0
    sites[0].train(hostile)
    torch.testing.assert_close(own[0].grid.table, before, rtol=0, atol=0)
    assert not (tmp_path / "out" / "model.pt").exists()
    assert not list((tmp_path / "out").glob("private_*"))


def test_subjects_are_dealt_out_once(tmp_path):
    write_phantoms(tmp_path / "data", "ct", n_subjects=5, size=16, seed=0)
    parts = deal_subjects(tmp_path / "data", "ct", tmp_path / "sites", 3)
    assert sorted(map(len, parts.values())) == [1, 2, 2]
    everyone = [subject for part in parts.values() for subject in part]
    assert sorted(everyone) == sorted({case["subject"] for case in list_cases(tmp_path / "data", "ct")})
    for name, subjects in parts.items():
        assert {case["subject"] for case in list_cases(tmp_path / "sites" / name, "ct")} == set(subjects)
    with pytest.raises(InputError, match="sites: expected 1 to 5, one subject each at least, found 6"):
        deal_subjects(tmp_path / "data", "ct", tmp_path / "six", 6)


@pytest.mark.slow
def test_the_simulation_in_one_command(tmp_path):
    write_phantoms(tmp_path / "data", "ct", n_subjects=8, size=32, seed=3)
    command = [sys.executable, "scripts/federated.py", "--task", "ct", "--dataset_dir", str(tmp_path / "data")]
    command += ["--sites", "3", "--rounds", "2", "--output", str(tmp_path / "federated.json"), "--quiet"]
    command += ["--output_dir", str(tmp_path / "out"), "--n_iterations", "10"]
    command += [part for key, value in OPTIONS.items() for part in (f"--{key}", str(value))]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=900)
    assert done.returncode == 0, done.stderr[-3000:]
    assert "a site sends 7 tensors a round" in done.stdout
    found = json.loads((tmp_path / "federated.json").read_text())
    labels = ["not trained", "federated", "pooled", "site1 alone", "site2 alone", "site3 alone"]
    assert list(found["runs"]) == labels
    assert all(label in done.stdout for label in labels)
    assert found["runs"]["federated"]["n_steps"] == found["runs"]["pooled"]["n_steps"] == 12
    assert all(run["n_subjects"] == 2 for run in found["runs"].values())  # the test subjects
    network = federated.new_network("ct", OPTIONS)
    info = load_shared(tmp_path / "out" / "federated" / "model.pt", network, "ct")
    assert info["n_sites"] == 3
