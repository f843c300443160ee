"""Networks run in bfloat16 where that is faster, unless a setting decides."""

import pytest
import torch

from disinr_monai.errors import InputError
from disinr_monai.fitting.adaptation import AdaptationInferer
from disinr_monai.fitting.losses import MeasurementLoss
from disinr_monai.networks.mlp import MLP
from disinr_monai.runtime.device import as_amp, bfloat16_pays
from tests.problems import mri_case, small_network


def precisions(network) -> set[bool]:
    return {module.amp for module in network.modules() if isinstance(module, MLP)}


@pytest.mark.parametrize("has_tiles", [True, False])
def test_processors_need_tile_units(monkeypatch, caplog, has_tiles):
    monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda: has_tiles)
    network, case = small_network(), mri_case()
    network.set_amp(None)
    assert precisions(network) == {has_tiles}
    inferer = AdaptationInferer(MeasurementLoss(), n_iterations=1, quiet=True)
    inferer(case["points"][None], network, case=case)
    assert precisions(inferer.fitted) == {has_tiles}
    with caplog.at_level("INFO", logger="disinr_monai"):
        assert as_amp(None, "cpu") is has_tiles
    assert ("bfloat16" if has_tiles else "float32") in caplog.text
    assert as_amp("false", "cpu") is False
    assert as_amp(True, "cpu") is True


def test_a_pytorch_that_cannot_tell_and_other_devices_mean_float32(monkeypatch):
    monkeypatch.delattr(torch.cpu, "_is_amx_tile_supported")
    assert not bfloat16_pays("cpu")
    assert not bfloat16_pays("meta")


@pytest.mark.parametrize(("capability", "pays"), [((7, 5), False), ((8, 0), True), ((9, 0), True)])
def test_gpus_need_capability_8(monkeypatch, capability, pays):
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: capability)
    assert bfloat16_pays("cuda:0") is pays


def test_something_else_is_refused():
    with pytest.raises(InputError, match="expected true or false, found 'maybe'"):
        as_amp("maybe", "cpu")
