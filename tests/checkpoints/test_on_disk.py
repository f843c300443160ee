"""Subject encoders and their moments on disk train and resume as those in memory."""

import pytest
import torch

from disinr_monai.checkpoints.on_disk import DiskTensors, place_moments
from disinr_monai.errors import InputError
from disinr_monai.fitting.losses import MeasurementLoss
from disinr_monai.networks import DisINR
from tests.problems import ENCODER, mri_case, small_strainer


def _trained(folder, visits=(0, 1, 0, 2), state=None):
    disk = None if folder is None else DiskTensors(folder)
    network = DisINR(ENCODER, 2, hidden_dim=16, n_subjects=4, place=None if disk is None else disk.move)
    optimizer = torch.optim.Adam(network.parameters(), lr=1e-2, fused=True)
    if disk is not None:
        disk.move_adam(optimizer, network.subjects.parameters())
    if state is not None:
        network.load_state_dict(state[0])
        optimizer.load_state_dict(state[1])
    case = mri_case()
    for subject in visits:
        optimizer.zero_grad(set_to_none=True)
        MeasurementLoss()(network(case["points"][None], subject), [case]).backward()
        optimizer.step()
    return network, optimizer


def _equal(network, other):
    for name, value in other.state_dict().items():
        assert torch.equal(network.state_dict()[name], value), name


def test_the_same_training(tmp_path):
    _equal(_trained(tmp_path)[0], _trained(None)[0])
    assert list(tmp_path.iterdir()) == []  # no name by which anybody could open a subject


def test_the_memory_is_the_files(tmp_path):
    """A second mapping of the parameter's file, taken while it has a name, sees what training writes."""
    seen = {}

    class Watched(DiskTensors):
        def empty_like(self, tensor):
            made = super().empty_like(tensor)
            seen[made.data_ptr()] = made
            return made

    disk = Watched(tmp_path)
    network = DisINR(ENCODER, 2, hidden_dim=16, n_subjects=2, place=disk.move)
    optimizer = torch.optim.Adam(network.parameters(), lr=1e-2, fused=True)
    disk.move_adam(optimizer, network.subjects.parameters())
    case = mri_case()
    for _ in range(2):
        MeasurementLoss()(network(case["points"][None], 0), [case]).backward()
        optimizer.step()
    for parameter in network.subjects.parameters():
        assert parameter.data_ptr() in seen
        assert all(optimizer.state[parameter][name].data_ptr() in seen for name in ("exp_avg", "exp_avg_sq"))
    assert not any(parameter.data_ptr() in seen for parameter in network.shared.parameters())


def test_resuming_brings_everything_back_to_disk(tmp_path):
    half, optimizer = _trained(tmp_path, (0, 1))
    file = tmp_path / "private.pt"
    torch.save((half.state_dict(), optimizer.state_dict()), file)
    resumed, second = _trained(tmp_path, (0, 2), torch.load(file, weights_only=True))
    _equal(resumed, _trained(None)[0])
    # A checkpoint of the one goes on as the other.
    _equal(_trained(None, (0, 2), torch.load(file, weights_only=True))[0], resumed)
    places = {p: second.state[p]["exp_avg"].data_ptr() for p in resumed.subjects.parameters()}
    second.load_state_dict(second.state_dict())
    assert all(second.state[p]["exp_avg"].data_ptr() == place for p, place in places.items())


def test_other_networks_are_refused(tmp_path):
    network = small_strainer(n_subjects=2)
    with pytest.raises(InputError, match="subjects_on_disk: expected DisINR on the CPU, found Strainer on cpu"):
        place_moments(True, str(tmp_path), network, torch.optim.Adam(network.parameters()))
    place_moments(False, str(tmp_path), network, torch.optim.Adam(network.parameters()))


def test_a_folder_that_cannot_be_written_is_named(tmp_path):
    blocked = tmp_path / "file"
    blocked.write_text("")
    with pytest.raises(InputError, match="subjects_on_disk"):
        DiskTensors(blocked / "below").empty_like(torch.ones(2))
