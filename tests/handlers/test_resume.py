import random

import numpy as np
import pytest
import torch
from ignite.engine import Events

from disinr_monai.errors import InputError
from disinr_monai.handlers.resume import FILE_NAME, check_untrained
from tests.engines import resumable


def test_resumed_run_equals_an_uninterrupted_one(tmp_path):
    whole, expected, optimizer = resumable(tmp_path, max_epochs=5)
    whole.run()
    (tmp_path / FILE_NAME).unlink()
    resumable(tmp_path, max_epochs=2)[0].run()
    resumed, network, other = resumable(tmp_path, max_epochs=5, resume=True)
    resumed.run()
    assert resumed.state.iteration == whole.state.iteration == 15
    for name, tensor in expected.state_dict().items():
        torch.testing.assert_close(network.state_dict()[name], tensor, rtol=0, atol=1e-6)
    assert other.param_groups[0]["lr"] == optimizer.param_groups[0]["lr"] < 1e-2


def test_every_step_moves_the_shared_pair_and_one_subject(tmp_path):
    trainer, network, _ = resumable(tmp_path, max_epochs=1)
    seen = []

    class Watch:
        def attach(self, engine):
            engine.add_event_handler(Events.ITERATION_STARTED, self.before)
            engine.add_event_handler(Events.ITERATION_COMPLETED, self.after)

        def before(self, engine):
            self.state = {k: v.clone() for k, v in network.state_dict().items()}

        def after(self, engine):
            changed = {k.split(".")[1] for k, v in network.state_dict().items() if not torch.equal(v, self.state[k])}
            seen.append(changed)

    Watch().attach(trainer)
    trainer.run()
    assert [len(changed & {"0", "1", "2"}) for changed in seen] == [1, 1, 1]
    assert all({"encoder", "decoder"} <= changed for changed in seen)
    assert set().union(*seen) >= {"0", "1", "2"}


def test_random_states_are_restored(tmp_path):
    trainer, *_ = resumable(tmp_path, max_epochs=1)
    trainer.run()
    expected = (torch.rand(3), np.random.rand(3), random.random())  # noqa: NPY002
    resumable(tmp_path, max_epochs=2, resume=True)
    # the state was saved before `expected` was drawn
    found = (torch.rand(3), np.random.rand(3), random.random())  # noqa: NPY002
    assert torch.equal(found[0], expected[0])
    assert (found[1] == expected[1]).all()
    assert found[2] == expected[2]


def test_nothing_to_resume_starts_at_the_beginning(tmp_path):
    trainer, *_ = resumable(tmp_path, max_epochs=1, resume=True)
    trainer.run()
    assert trainer.state.iteration == 3


def test_other_settings_are_named(tmp_path):
    resumable(tmp_path, max_epochs=1)[0].run()
    with pytest.raises(InputError, match="was written with seed = 3, this run has 4"):
        resumable(tmp_path, max_epochs=2, resume=True, settings={"seed": 4})


def test_every_changed_setting_is_named_with_both_values(tmp_path):
    """Also deep in the config, where the whole config was quoted before."""
    old = {"subjects": ["a", "b"], "config": {"lr": 0.001, "encoder#n_levels": 8, "same": list(range(50))}}
    new = {"subjects": ["a", "b", "c"], "config": {"lr": 0.002, "amp": True, "same": list(range(50))}}
    resumable(tmp_path, max_epochs=1, settings=old)[0].run()
    with pytest.raises(InputError) as caught:
        resumable(tmp_path, max_epochs=2, resume=True, settings=new)
    message = str(caught.value)
    assert "amp = nothing, this run has true; encoder#n_levels = 8, this run has nothing; " in message
    assert "lr = 0.001, this run has 0.002; " in message
    assert 'subjects#2 = nothing, this run has "c"; use the same settings' in message


def test_an_earlier_pre_training_is_not_overwritten_without_a_word(tmp_path):
    check_untrained(tmp_path)
    for name in ("model.pt", FILE_NAME):
        (tmp_path / name).write_bytes(b"weights")
        with pytest.raises(InputError, match=r"output_dir: .* holds model.pt.* --resume true .* --overwrite true"):
            check_untrained(tmp_path)
    check_untrained(tmp_path, resume=True)
    assert (tmp_path / FILE_NAME).is_file()
    check_untrained(tmp_path, overwrite=True)  # and a later resume cannot go on from the replaced one
    assert [path.name for path in tmp_path.iterdir()] == ["model.pt"]
    (tmp_path / "model.pt").rename(tmp_path / FILE_NAME)
    with pytest.raises(InputError, match=f"holds {FILE_NAME} of an earlier"):
        check_untrained(tmp_path)


def test_fewer_epochs_than_done_are_named(tmp_path):
    resumable(tmp_path, max_epochs=3)[0].run()
    with pytest.raises(InputError, match=r"max_epochs: .* has 3 epochs behind it, found max_epochs 2"):
        resumable(tmp_path, max_epochs=2, resume=True)


def test_damaged_file(tmp_path):
    (tmp_path / FILE_NAME).write_bytes(b"not a checkpoint")
    with pytest.raises(InputError, match="cannot be read"):
        resumable(tmp_path, max_epochs=2, resume=True)


def test_leftovers_of_a_kill_while_saving_are_removed(tmp_path):
    leftover = tmp_path / f".{FILE_NAME.removesuffix('.pt')}-abc123.pt"
    leftover.write_bytes(b"half a checkpoint")
    resumable(tmp_path, max_epochs=1)[0].run()
    assert not leftover.exists()
    assert (tmp_path / FILE_NAME).is_file()


def test_resuming_a_complete_run_trains_nothing_twice(tmp_path):
    engine, network, _ = resumable(tmp_path, max_epochs=3)
    engine.run()
    expected = {name: value.clone() for name, value in network.state_dict().items()}
    again, network, _ = resumable(tmp_path, max_epochs=3, resume=True)
    done = []
    again.add_event_handler(Events.ITERATION_COMPLETED, lambda _: done.append("iteration"))
    again.add_event_handler(Events.COMPLETED, lambda _: done.append("completed"))
    again.run()
    assert done == ["completed"]
    assert (again.state.epoch, again.state.iteration) == (3, 9)
    for name, value in expected.items():
        assert torch.equal(network.state_dict()[name], value)
