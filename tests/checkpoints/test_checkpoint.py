import pickle

import pytest
import torch

from disinr_monai.bundle import load_pair
from disinr_monai.checkpoints.released import load_shared, release_state, save_shared
from disinr_monai.errors import InputError
from disinr_monai.networks import DisINR, HashGridEncoder
from tests.problems import small_meta, small_naive, small_network, small_strainer


@pytest.fixture
def trained():
    """Three subjects whose encoders have moved away from their start."""
    network = small_network(n_subjects=3, seed=5)
    with torch.no_grad():
        for i, subject in enumerate(network.subjects):
            for parameter in subject.parameters():
                parameter.add_(0.1 * (i + 1))
        for parameter in network.shared.parameters():
            parameter.mul_(1.5)
    return network


def test_shared_pair_comes_back(trained, tmp_path):
    save_shared(tmp_path / "model.pt", trained, "mri", {"seed": 5})
    other = small_network(seed=99)
    assert load_shared(tmp_path / "model.pt", other, "mri") == {"seed": 5}
    for name, tensor in trained.shared.state_dict().items():
        torch.testing.assert_close(other.shared.state_dict()[name], tensor, rtol=1e-3, atol=1e-7)  # tables in half


def test_no_trained_subject_is_released(trained, tmp_path):
    save_shared(tmp_path / "model.pt", trained, "mri")
    state = torch.load(tmp_path / "model.pt", weights_only=True)["model"]
    assert {k.split(".")[1] for k in state if k.startswith("subjects.")} == {"0"}
    untrained = small_network(seed=5).subjects[0].state_dict()
    for name, tensor in untrained.items():
        torch.testing.assert_close(state[f"subjects.0.{name}"].float(), tensor, rtol=1e-3, atol=1e-7)


def test_saving_twice_gives_the_same_weights(trained, tmp_path):
    for name in ("a.pt", "b.pt"):
        save_shared(tmp_path / name, trained, "mri")
    a, b = (torch.load(tmp_path / n, weights_only=True)["model"] for n in ("a.pt", "b.pt"))
    assert all(torch.equal(a[k], b[k]) for k in a)


def refused(path, network=None, modality="mri") -> str:
    with pytest.raises(InputError) as caught:
        load_shared(path, network or small_network(), modality)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_missing(tmp_path):
    assert "does not exist" in refused(tmp_path / "nothing.pt")


def test_other_modality(trained, tmp_path):
    save_shared(tmp_path / "model.pt", trained, "ct")
    assert "pre-trained on 'ct', this run is 'mri'" in refused(tmp_path / "model.pt")


def test_other_architecture_names_the_first_difference(trained, tmp_path):
    save_shared(tmp_path / "model.pt", trained, "mri")
    wide = DisINR(lambda seed: HashGridEncoder(2, out_dim=8, hidden_dim=16, n_levels=6, seed=seed), 2, hidden_dim=16)
    assert "shared.decoder.weights.0 has shape [16, 32], expected [16, 16]" in refused(tmp_path / "model.pt", wide)


def test_pickled_object_is_refused_without_running_it(tmp_path):
    torch.save({"model": small_network()}, tmp_path / "pickled.pt")
    assert "pickled objects" in refused(tmp_path / "pickled.pt")
    (tmp_path / "plain.pt").write_bytes(pickle.dumps({"a": print}))
    refused(tmp_path / "plain.pt")


def test_damaged(trained, tmp_path):
    save_shared(tmp_path / "model.pt", trained, "mri")
    content = (tmp_path / "model.pt").read_bytes()
    (tmp_path / "half.pt").write_bytes(content[: len(content) // 2])
    assert "cannot be read" in refused(tmp_path / "half.pt") or "pickled" in refused(tmp_path / "half.pt")


def test_without_checkpoint(tmp_path):
    with pytest.raises(InputError, match="none given and none is shipped for DisINR on 'mri'"):
        load_pair(None, small_network(), "mri", str(tmp_path))
    assert load_pair(None, small_naive(), "mri", str(tmp_path)) == {}


def test_no_head_of_a_subject_is_released(tmp_path):
    network = small_strainer(n_subjects=3, seed=5)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.add_(0.3)
    save_shared(tmp_path / "model.pt", network, "mri")
    state = torch.load(tmp_path / "model.pt", weights_only=True)["model"]
    untrained = small_strainer(seed=5).subjects[0].state_dict()
    heads = {k: v for k, v in state.items() if k.startswith("subjects.")}
    assert heads.keys() == {f"subjects.0.{name}" for name in untrained}
    assert all(torch.equal(heads[f"subjects.0.{name}"], tensor) for name, tensor in untrained.items())
    other = small_strainer(seed=1)
    load_shared(tmp_path / "model.pt", other, "mri")
    assert torch.equal(other.shared["encoder"].mlp.weights[0], network.shared["encoder"].mlp.weights[0])


def test_a_learned_start_comes_back_and_warns_of_few_persons(tmp_path, caplog):
    network, other = small_meta(seed=5), small_meta(seed=1)
    save_shared(tmp_path / "model.pt", network, "mri", n_persons=8)
    assert not caplog.records
    save_shared(tmp_path / "model.pt", network, "mri", n_persons=7)
    assert "learned from 7 persons (fewer than 8) still resembles them" in caplog.text
    load_shared(tmp_path / "model.pt", other, "mri")
    for mine, its in zip(other.parameters(), network.parameters(), strict=True):
        torch.testing.assert_close(mine, its, rtol=1e-3, atol=1e-7)


METHODS = {"DisINR": small_network, "Strainer": small_strainer, "MetaINR": small_meta}


@pytest.mark.parametrize("loaded", METHODS)
@pytest.mark.parametrize("saved", METHODS)
def test_a_checkpoint_of_another_method_is_refused(saved, loaded, tmp_path):
    save_shared(tmp_path / "model.pt", METHODS[saved](), "mri", n_persons=8)
    if saved == loaded:
        load_pair(str(tmp_path / "model.pt"), METHODS[loaded](), "mri")
        return
    with pytest.raises(InputError, match=f"network is {saved}, expected {loaded}; use the overlays of its training"):
        load_pair(str(tmp_path / "model.pt"), METHODS[loaded](), "mri")


def test_a_method_from_scratch_takes_no_checkpoint(trained, tmp_path):
    save_shared(tmp_path / "model.pt", trained, "mri")
    with pytest.raises(InputError, match=r"expected none, NaiveINR is fitted from scratch, found .*model\.pt"):
        load_pair(str(tmp_path / "model.pt"), small_naive(), "mri")


def test_the_pair_shipped_for_another_method_is_not_taken(trained, tmp_path):
    (tmp_path / "models").mkdir()
    save_shared(tmp_path / "models" / "mri.pt", trained, "mri")
    with pytest.raises(InputError, match="none given and none is shipped for Strainer on 'mri'"):
        load_pair(None, small_strainer(), "mri", str(tmp_path))


def test_a_failed_save_leaves_the_old_file(trained, tmp_path, monkeypatch):
    save_shared(tmp_path / "model.pt", trained, "mri")
    before = (tmp_path / "model.pt").read_bytes()

    def fail(*_, **__):
        raise OSError("disk full")

    monkeypatch.setattr(torch, "save", fail)
    with pytest.raises(InputError, match=r"model\.pt: cannot be written \(disk full\)"):
        save_shared(tmp_path / "model.pt", trained, "mri")
    assert (tmp_path / "model.pt").read_bytes() == before
    assert [p.name for p in tmp_path.iterdir()] == ["model.pt"]


def test_mean_start_is_the_mean_of_many():
    network = small_network(n_subjects=8, seed=5)
    with torch.no_grad():
        for i, subject in enumerate(network.subjects):
            subject.mlp.weights[0].fill_(float(i))
    state = release_state(network, start="mean", n_persons=8)
    torch.testing.assert_close(state["subjects.0.mlp.weights.0"], torch.full((16, 48), 3.5))
    torch.testing.assert_close(network.subjects[7].mlp.weights[0].detach(), torch.full((16, 48), 7.0))


def test_mean_of_few_is_not_released(trained):
    untrained = trained.fresh_subject()
    untrained.reset(trained.seed + 1)
    state = release_state(trained, start="mean", n_persons=7)
    torch.testing.assert_close(state["subjects.0.mlp.weights.0"], untrained.mlp.weights[0].detach())


def test_unknown_start(trained):
    with pytest.raises(ValueError, match="start must be 'untrained' or 'mean', found 'best'"):
        release_state(trained, start="best")
