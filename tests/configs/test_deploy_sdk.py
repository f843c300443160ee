"""MONAI Deploy's own functions read the built bundle and load its weights (where that SDK is installed)."""

from __future__ import annotations

import pytest
import torch

from tests.bundles import script

operator = pytest.importorskip(
    "monai.deploy.operators.monai_bundle_inference_operator", reason="MONAI Deploy SDK", exc_type=ImportError
)
BUILD = script("build_bundle")


@pytest.mark.slow
@pytest.mark.parametrize("name", [name for name in BUILD.bundle_names() if BUILD.read_recipe(name)["weights"]])
def test_the_sdk_reads_configs_and_weights(name, tmp_path):
    BUILD.build(name, tmp_path)
    parser = operator.get_bundle_config(str(tmp_path / name), ["inference"])
    assert parser["_meta_"]["network_data_format"]["inputs"]["image"]
    network = operator._load_model_from_directory_bundle(tmp_path / name, torch.device("cpu"), parser)
    assert not network.training
    state = torch.load(tmp_path / name / "models" / "model.pt", weights_only=True)
    for key, value in network.state_dict().items():
        torch.testing.assert_close(value, state[key].to(value.dtype), rtol=0, atol=0)
