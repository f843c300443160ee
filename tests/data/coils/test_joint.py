import pytest
import torch

from disinr_monai.data import AcquireMRI, list_cases
from disinr_monai.data.coils.joint import joint_maps
from disinr_monai.data.simulate.phantoms import write_phantoms
from disinr_monai.errors import InputError
from disinr_monai.fitting import JointAdaptation
from disinr_monai.fitting.losses import MeasurementLoss
from disinr_monai.fitting.regularisers import TVRegulariser
from disinr_monai.output.metrics import image_metrics, to_display
from tests.problems import small_naive

N = 64


@pytest.fixture(scope="module")
def phantom(tmp_path_factory):
    folder = tmp_path_factory.mktemp("mri")
    write_phantoms(folder, "mri", n_subjects=1, size=N, seed=3)
    return list_cases(folder, "mri", 1)[0]


def _without_centre(phantom, maps, acs=4):
    """A scan with so few central lines that ESPIRiT refuses it; its reference is not used by anything."""
    settings = {"acceleration": 2, "acs": acs, "n_coils": 6, "noise_std": 0.005, "image_size": N}
    return AcquireMRI(maps=maps, **settings)(phantom)


def test_maps_agree_with_the_truth_where_there_is_signal(phantom):
    true = _without_centre(phantom, "simulated")
    operator = true["scan"].operator
    maps = joint_maps(true["scan"].measurement, operator.sampled)
    torch.testing.assert_close(torch.linalg.vector_norm(maps, dim=0), torch.ones(N, N), atol=1e-3, rtol=0)
    expected = torch.fft.fftshift(operator.maps, dim=(-2, -1))
    agreement = (maps.conj() * expected).sum(0).abs()[true["reference"][0] > 0.1]
    assert float(agreement.mean()) > 0.97


def test_a_scan_without_a_centre_points_to_the_option_and_the_option_works(phantom):
    with pytest.raises(InputError, match=r"found [1-7]; estimate the maps together with the image \(--maps joint\)"):
        _without_centre(phantom, "espirit")
    case = _without_centre(phantom, "joint")
    assert case["info"]["maps"] == "joint"
    direct = case["scan"].operator.direct_inverse(case["scan"].measurement)
    inferer = JointAdaptation(
        MeasurementLoss(regularisers=[TVRegulariser(0.03)]), n_iterations=150, lr=1e-2, amp=False, quiet=True
    )
    image = inferer(case["points"][None], small_naive(), case=case)[0]
    before, after = (
        image_metrics(to_display(x, "mri", case["image_scale"]), case["reference"]) for x in (direct, image)
    )
    assert after["psnr"] > before["psnr"] + 3


def test_what_cannot_be_estimated_is_refused():
    mask = torch.zeros(32, 32)
    mask[:, ::3] = 1
    kspace = torch.randn(2, 32, 32, dtype=torch.complex64) * mask
    with pytest.raises(InputError, match="maps: joint needs at least 2 neighbouring lines"):
        joint_maps(kspace, mask)
    assert (joint_maps(kspace[:1], torch.ones(32, 32)) == 1).all()
