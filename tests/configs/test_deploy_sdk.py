"""MONAI Deploy's own functions read the built bundle and load its weights (where that SDK is installed)."""

import build_bundle
import pytest
import torch

operator = pytest.importorskip(
    "monai.deploy.operators.monai_bundle_inference_operator", reason="MONAI Deploy SDK", exc_type=ImportError
)


@pytest.mark.slow
@pytest.mark.parametrize(
    "name", [name for name in build_bundle.bundle_names() if build_bundle.read_recipe(name)["weights"]]
)
def test_the_sdk_reads_configs_and_weights(name, tmp_path):
    build_bundle.build(name, tmp_path)
    parser = operator.get_bundle_config(str(tmp_path / name), ["inference"])
    assert parser["_meta_"]["network_data_format"]["inputs"]["image"]
    network = operator._load_model_from_directory_bundle(tmp_path / name, torch.device("cpu"), parser)
    assert not network.training
    state = torch.load(tmp_path / name / "models" / "model.pt", weights_only=True)
    for key, value in network.state_dict().items():
        torch.testing.assert_close(value, state[key].to(value.dtype), rtol=0, atol=0)
