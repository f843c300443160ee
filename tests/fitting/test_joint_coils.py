import copy

import numpy as np
import pytest
import torch

from disinr_monai.data import AcquireMRI, list_cases
from disinr_monai.data.simulate.phantoms import write_phantoms
from disinr_monai.fitting import JointAdaptation
from disinr_monai.fitting.joint_coils import PolynomialCoils
from disinr_monai.fitting.losses import MeasurementLoss
from disinr_monai.fitting.regularisers import TVRegulariser
from disinr_monai.operators import Identity
from disinr_monai.scan import Scan
from tests.engines import psnr
from tests.operators.helpers import random_like
from tests.problems import changed, mri_case, small_naive


@pytest.fixture(scope="module")
def scan(tmp_path_factory):
    """A phantom of 64 x 64 with six coils, with the true maps; acceleration 2."""
    folder = tmp_path_factory.mktemp("mri")
    write_phantoms(folder, "mri", n_subjects=1, size=64, seed=3)
    (case,) = list_cases(folder, "mri", 1)
    return AcquireMRI(acceleration=2, acs=20, n_coils=6, noise_std=0.01, image_size=64, maps="simulated")(case)


def reconstruct(case, **options):
    options = {"n_iterations": 150, "lr": 1e-2, "amp": False, "quiet": True, **options}
    inferer = JointAdaptation(MeasurementLoss(regularisers=[TVRegulariser(0.03)]), **options)
    return inferer(case["points"][None], small_naive(), case=case)


def test_maps_have_unit_size_everywhere_and_start_near_the_truth(scan):
    coils = PolynomialCoils(scan["scan"].operator, scan["scan"].measurement, degree=6)
    maps = coils.maps().detach()
    torch.testing.assert_close(torch.linalg.vector_norm(maps, dim=0), torch.ones(64, 64))
    true = torch.fft.fftshift(scan["scan"].operator.maps, dim=(-2, -1))
    # The common phase of the maps is the image's, and free.
    agreement = (maps.conj() * true).sum(0).abs()[scan["reference"][0] > 0.1]
    assert float(agreement.mean()) > 0.98


def test_adjoint(scan):
    coils = PolynomialCoils(copy.deepcopy(scan["scan"].operator), scan["scan"].measurement, degree=4).double()
    image = random_like(coils.domain_shape, False, 1)
    kspace = random_like(coils.range_shape, True, 2)
    left = (coils(image).conj() * kspace).real.sum()
    torch.testing.assert_close(left, (image * coils.adjoint(kspace)).sum())


def test_fits_image_and_maps(scan):
    zero_filled = scan["scan"].operator.direct_inverse(scan["scan"].measurement)[None]
    assert psnr(reconstruct(scan), scan) > psnr(zero_filled, scan) + 5


def test_the_coil_maps_of_the_case_are_not_used(scan):
    """With rubbish in their place the image is the same."""
    generator = np.random.default_rng(0)
    rubbish = torch.from_numpy(generator.standard_normal((6, 64, 64)) * (1 + 1j)).to(torch.complex64)
    other = changed(scan, operator=scan["scan"].operator.with_maps(rubbish))
    torch.testing.assert_close(reconstruct(other, n_iterations=3), reconstruct(scan, n_iterations=3))


def test_the_scale_of_the_measurement_is_kept(scan):
    """The image follows the k-space, whatever units it comes in."""
    louder = changed(scan, measurement=1000 * scan["scan"].measurement)
    ratio = reconstruct(louder, n_iterations=3) / reconstruct(scan, n_iterations=3)
    torch.testing.assert_close(ratio.median(), torch.tensor(1000.0), rtol=1e-3, atol=0.0)


def test_other_modalities_are_refused():
    case = {**mri_case(), "scan": Scan(Identity((2, 24, 20)), torch.zeros(2, 24, 20))}
    inferer = JointAdaptation(MeasurementLoss(), quiet=True)
    assert inferer(case["points"][None], small_naive(), case=case) is None
    assert "imjense: expected a multi-coil Cartesian MRI scan, found Identity" in inferer.error


def test_bad_settings():
    with pytest.raises(ValueError, match="degree >= 0 and coil_lr > 0"):
        JointAdaptation(MeasurementLoss(), degree=-1)
