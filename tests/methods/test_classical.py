from dataclasses import replace

import numpy as np
import pytest
import torch
from monai.inferers import Inferer

from disinr_monai.errors import InputError
from disinr_monai.methods.classical import SIRT, ConjugateGradient, DirectInverse
from disinr_monai.methods.l1_wavelet import L1Wavelet
from disinr_monai.methods.total_variation import TotalVariation
from disinr_monai.operators import Identity
from disinr_monai.scan import Scan
from tests.methods.scans import ct_blocks, error, mri_blocks, objective, primal_dual, radial_blocks

# --- Total variation with an operator ---


def test_mri_total_variation_is_converged():
    scan, _ = mri_blocks()
    image = TotalVariation(tv_weight=0.01).solve(scan)
    assert error(image, primal_dual(scan, 0.01, n_iterations=600)) < 2e-3


@pytest.mark.parametrize("weighted", [False, True])
def test_ct_total_variation_is_converged(weighted):
    scan, _ = ct_blocks()
    norm = scan.operator.norm_squared()
    scan = replace(scan, weights=torch.exp(-scan.measurement / 40) if weighted else None).tempered(1)
    image = TotalVariation(tv_weight=1e-3, non_negative=True, weight_power=1.0).solve(scan)
    exact = primal_dual(scan, 1e-3, non_negative=True)
    values = [objective(scan, x, 1e-3, norm) for x in (image, exact)]
    assert values[0] <= values[1] * 1.002
    assert error(image, exact) < 0.01
    assert float(image.min()) >= 0


def test_weight_power_zero_ignores_weights():
    scan, _ = ct_blocks(n_views=6)
    weighted = replace(scan, weights=torch.rand(scan.measurement.shape))
    method = TotalVariation(weight_power=0.0, n_iterations=3)
    plain = method.solve(scan)
    torch.testing.assert_close(method.solve(weighted), plain)
    used = TotalVariation(n_iterations=3).solve(weighted)
    assert error(used, plain) > 1e-4


# --- The others ---


def test_cg_solves_the_normal_equations():
    scan, _ = mri_blocks()
    operator, norm = scan.operator, scan.operator.norm_squared()
    image = ConjugateGradient(n_iterations=100, l2_weight=0.05).solve(scan)
    left = operator.adjoint(operator(image)) / norm + 0.05 * image
    assert error(left, scan.adjoint() / norm) < 1e-4


def test_cg_uses_weights():
    measurement, weights = torch.tensor([[[1.0, 2.0], [3.0, 4.0]]]), torch.tensor([[[1.0, 2.0], [0.5, 0.5]]])
    scan = Scan(Identity((1, 2, 2)), measurement, weights)
    image = ConjugateGradient(l2_weight=0.5).solve(scan)
    torch.testing.assert_close(image, weights * measurement / (weights + 0.5), atol=1e-5, rtol=0)
    image = ConjugateGradient(l2_weight=0.5, use_weights=False).solve(scan)
    torch.testing.assert_close(image, measurement / 1.5, atol=1e-5, rtol=0)


def test_sirt_fits_and_stays_positive():
    scan, image = ct_blocks(noise=0.0)
    result = SIRT(n_iterations=300).solve(scan)
    assert error(scan.operator(result), scan.measurement) < 0.01
    assert error(result, image) < 0.15
    assert float(result.min()) >= 0
    assert float(SIRT(non_negative=False).solve(scan).min()) < 0


def test_sirt_refuses_complex_measurements():
    scan, _ = mri_blocks()
    with pytest.raises(InputError, match="SIRT: expected a real measurement"):
        SIRT().solve(scan)


def test_l1_wavelet_agrees_in_scale_and_beats_zero_filling():
    pytest.importorskip("sigpy")
    scan, image = mri_blocks(acceleration=4)
    result = L1Wavelet(l1_weight=5e-3, n_iterations=60).solve(scan)
    assert result.shape == image.shape
    assert error(result, image) < 0.75 * error(DirectInverse().solve(scan), image)


def test_l1_wavelet_is_what_sigpys_application_gives():
    application = pytest.importorskip("sigpy.mri.app").L1WaveletRecon
    scan, _ = mri_blocks(acceleration=4)
    operator = scan.operator
    maps = torch.fft.fftshift(operator.maps, dim=(-2, -1)).numpy()
    step = 0.95 / operator.norm_squared()
    expected = application(
        scan.measurement.numpy(), maps, 5e-3, operator.sampled.numpy(), alpha=step, max_iter=30, show_pbar=False
    ).run()
    result = L1Wavelet(l1_weight=5e-3, n_iterations=30).solve(scan)
    np.testing.assert_allclose(torch.complex(*result).numpy(), expected, atol=1e-4)


def test_every_mri_method_runs_along_a_radial_trajectory():
    scan, image = radial_blocks()
    results = {
        name: error(method.solve(scan), image)
        for name, method in {
            "tv": TotalVariation(tv_weight=3e-3),
            "l1": L1Wavelet(l1_weight=1e-2),
            "sense": ConjugateGradient(n_iterations=10),
            "zero_filled": DirectInverse(),
        }.items()
    }
    assert results["tv"] < results["l1"] < results["zero_filled"]
    assert results["tv"] < results["sense"] < results["zero_filled"]
    assert results["tv"] < 0.15


def test_l1_wavelet_refuses_other_operators():
    with pytest.raises(InputError, match=r"L1Wavelet: expected complex k-space .*found a real measurement of Identity"):
        L1Wavelet().solve(Scan(Identity((1, 4, 4)), torch.zeros(1, 4, 4)))


def test_order_of_methods_in_mri():
    scan, image = mri_blocks(acceleration=4)
    errors = [
        error(method.solve(scan), image)
        for method in (TotalVariation(tv_weight=5e-3), ConjugateGradient(n_iterations=5), DirectInverse())
    ]
    assert errors == sorted(errors)
    assert errors[0] < 0.6 * errors[1]


def test_order_of_methods_in_ct():
    scan, image = ct_blocks(n_views=16)
    errors = [
        error(method.solve(scan), image)
        for method in (TotalVariation(tv_weight=1e-3, non_negative=True), SIRT(n_iterations=100), DirectInverse())
    ]
    assert errors == sorted(errors)
    assert errors[0] < 0.6 * errors[1]


@pytest.mark.parametrize("kind", [DirectInverse, ConjugateGradient, TotalVariation])
def test_called_like_an_inferer(kind):
    method = kind()
    assert isinstance(method, Inferer)
    case = {"name": "one", "scan": Scan(Identity((2, 5, 7)), torch.randn(2, 5, 7, requires_grad=True))}
    image = method(torch.zeros(2, 5, 7), None, case=case)
    assert image.shape == (1, 2, 5, 7)
    assert not image.requires_grad


@pytest.mark.parametrize(
    ("kind", "arguments"),
    [
        (TotalVariation, {"tv_weight": -1.0}),
        (TotalVariation, {"n_iterations": 0}),
        (TotalVariation, {"n_prox_iterations": 0}),
        (ConjugateGradient, {"n_iterations": 0}),
        (ConjugateGradient, {"l2_weight": -1.0}),
        (SIRT, {"relaxation": 2.0}),
        (SIRT, {"n_iterations": 0}),
        (L1Wavelet, {"l1_weight": -1.0}),
    ],
)
def test_wrong_arguments(kind, arguments):
    with pytest.raises(ValueError, match=f"{kind.__name__}: expected"):
        kind(**arguments)
