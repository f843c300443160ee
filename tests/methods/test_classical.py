from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from monai.inferers import Inferer

from disinr_monai.data.simulate.patterns import radial_trajectory
from disinr_monai.errors import InputError
from disinr_monai.methods.classical import SIRT, ConjugateGradient, DirectInverse
from disinr_monai.methods.l1_wavelet import L1Wavelet
from disinr_monai.methods.total_variation import TotalVariation
from disinr_monai.methods.tv_prox import TotalVariationProx, add_gradient_adjoint, gradient, total_variation
from disinr_monai.operators import FanBeam, FanGeometry, Identity, MultiCoilFourier, NonCartesianFourier
from disinr_monai.operators.calibration import density_compensation


@pytest.fixture(autouse=True)
def _own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("DISINR_CACHE", str(tmp_path))


def blocks(height: int = 40, width: int = 48) -> torch.Tensor:
    image = torch.zeros(height, width)
    image[6:30, 8:40] = 0.6
    image[12:22, 14:26] = 1.0
    image[24:28, 30:38] = 0.2
    return image


def mri_case(acceleration: int = 2, noise: float = 0.02, seed: int = 0):
    """Three coils with smooth maps that sum to one in squares, a complex image, missing lines."""
    generator = torch.Generator().manual_seed(seed)
    image = blocks()
    height, width = image.shape
    rows, columns = torch.meshgrid(torch.linspace(-1, 1, height), torch.linspace(-1, 1, width), indexing="ij")
    image = torch.stack((image * torch.cos(rows), image * torch.sin(rows)))
    centres = ((-1.0, 0.0), (0.7, -0.8), (0.7, 0.8))
    maps = torch.stack([torch.exp(-((rows - a) ** 2 + (columns - b) ** 2) / 2 + 1j * a * columns) for a, b in centres])
    maps = maps / maps.abs().square().sum(0).sqrt()
    mask = torch.zeros(1, width)
    mask[:, ::acceleration] = 1
    mask[:, width // 2 - 5 : width // 2 + 5] = 1
    operator = MultiCoilFourier(maps, mask)
    kspace = operator(image)
    kspace = kspace + noise * torch.randn(kspace.shape, generator=generator, dtype=kspace.dtype) * operator_mask(
        operator
    )
    return operator, kspace, image


def operator_mask(operator: MultiCoilFourier) -> torch.Tensor:
    return torch.fft.fftshift(operator.mask, dim=(-2, -1))


def ct_case(n_views: int = 24, noise: float = 0.3):
    image = blocks()[None]
    operator = FanBeam(
        FanGeometry(
            image_shape=image.shape[1:],
            pixel_spacing=2.0,
            angles=np.arange(n_views) * 2 * math.pi / n_views,
            n_detectors=120,
            detector_spacing=3.0,
            source_distance=120.0,
            detector_distance=120.0,
        )
    )
    sinogram = operator(image)
    generator = torch.Generator().manual_seed(0)
    return operator, sinogram + noise * torch.randn(sinogram.shape, generator=generator), image


def error(image: torch.Tensor, reference: torch.Tensor) -> float:
    return float(torch.linalg.vector_norm(image - reference) / torch.linalg.vector_norm(reference))


def primal_dual(operator, measurement, tv_weight, weights=None, non_negative=False, n_iterations=2500) -> torch.Tensor:
    """A long Chambolle-Pock run in double precision: an independent solver of TotalVariation's problem."""
    norm = operator.norm_squared()
    operator = operator.double()
    measurement = measurement.to(torch.complex128 if measurement.is_complex() else torch.float64)
    weights = torch.ones(()) if weights is None else weights.double()
    scale = weights / norm
    # K = (A / sqrt(norm), gradient), so that both parts have a norm of order 1.
    root = norm**0.5
    step = 1 / math.sqrt(1 + 8) * 0.99
    image = operator.adjoint(measurement) * 0
    extrapolated = image.clone()
    data_dual, field = torch.zeros_like(measurement), gradient(image)
    for _ in range(n_iterations):
        strength = scale * norm
        data_dual = data_dual + step * (operator(extrapolated) - measurement) / root
        data_dual = data_dual * strength / (strength + step)
        field = field + step * gradient(extrapolated)
        size = torch.linalg.vector_norm(field, dim=(0, 1)) / tv_weight
        field = field / size.clamp(min=1)
        slope = add_gradient_adjoint(operator.adjoint(data_dual) / root, field)
        following = image - step * slope
        if non_negative:
            following = following.clamp(min=0)
        extrapolated, image = 2 * following - image, following
    return image


def objective(operator, measurement, image, tv_weight, norm, weights=None) -> float:
    residual = operator(image.to(torch.float64)) - measurement
    weights = 1 if weights is None else weights
    return float((weights * residual.abs() ** 2).sum()) / (2 * norm) + tv_weight * total_variation(image.double())


# --- The proximal step ---


@pytest.mark.parametrize("shape", [(1, 5, 7), (2, 6, 5), (1, 4, 5, 6)])
def test_gradient_and_its_adjoint(shape):
    image = torch.randn(shape, dtype=torch.float64)
    field = gradient(torch.randn(shape, dtype=torch.float64))
    right = (image * add_gradient_adjoint(torch.zeros_like(image), field)).sum()
    torch.testing.assert_close((gradient(image) * field).sum(), right)
    assert total_variation(torch.ones(shape)) == 0


def test_total_variation_of_a_step():
    image = torch.zeros(1, 6, 9)
    image[0, :, 4:] = 0.5
    assert total_variation(image) == pytest.approx(0.5 * 6)
    assert total_variation(torch.cat((3 * image, 4 * image))) == pytest.approx(5 * 0.5 * 6)


def test_denoising_agrees_with_scikit_image():
    restoration = pytest.importorskip("skimage.restoration")
    noisy = blocks().numpy() + 0.1 * np.random.default_rng(0).normal(size=(40, 48))
    expected = restoration.denoise_tv_chambolle(noisy, weight=0.1, eps=1e-9, max_num_iter=20000)
    measurement = torch.tensor(noisy, dtype=torch.float32)[None]
    image = TotalVariation(tv_weight=0.1).reconstruct(operator=Identity((1, 40, 48)), measurement=measurement)
    assert float((image[0] - torch.tensor(expected)).abs().max()) < 2e-3


def test_denoising_of_one_step_is_known():
    """A step of height 1 between n columns a side shrinks by weight / n on each side."""
    image = torch.zeros(1, 8, 20)
    image[..., 10:] = 1
    result = TotalVariationProx((1, 8, 20), image)(image, 0.5, 2000)
    torch.testing.assert_close(result[..., :10], torch.full((1, 8, 10), 0.05), atol=1e-4, rtol=0)
    torch.testing.assert_close(result[..., 10:], torch.full((1, 8, 10), 0.95), atol=1e-4, rtol=0)


@pytest.mark.parametrize("non_negative", [False, True])
@pytest.mark.parametrize("with_metric", [False, True])
@pytest.mark.parametrize("channels", [1, 2])
def test_compiled_steps_are_those_of_tensor_operations(channels, with_metric, non_negative):
    generator = torch.Generator().manual_seed(0)
    image = torch.randn(channels, 11, 7, generator=generator, dtype=torch.float64)
    metric = 0.5 + torch.rand(1, 11, 7, generator=generator, dtype=torch.float64) if with_metric else None
    plain = TotalVariationProx((channels, 11, 7), image, non_negative, metric)
    plain._compiled = False
    plain._next, plain._slope = torch.zeros_like(plain._dual), torch.zeros_like(plain._dual)
    plain._norm = image.new_zeros(11, 7)
    compiled = TotalVariationProx((channels, 11, 7), image, non_negative, metric)
    assert compiled._compiled
    for weight in (0.3, 0.3, 0.1):  # the dual variable stays from call to call
        given = image.clone()
        torch.testing.assert_close(compiled(given, weight, 4), plain(image, weight, 4), rtol=1e-10, atol=1e-12)
        assert torch.equal(given, image)


def test_warm_start_goes_on():
    noisy = blocks()[None] + 0.1 * torch.randn(1, 40, 48, generator=torch.Generator().manual_seed(0))
    prox = TotalVariationProx((1, 40, 48), noisy)
    long = TotalVariationProx((1, 40, 48), noisy)(noisy, 0.2, 1000)
    first = error(prox(noisy, 0.2, 5), long)
    for _ in range(30):
        last = error(prox(noisy, 0.2, 5), long)
    assert last < 0.15 * first


# --- Total variation with an operator ---


def test_mri_total_variation_is_converged():
    operator, kspace, _ = mri_case()
    method = TotalVariation(tv_weight=0.01)
    image = method.reconstruct(operator=operator, measurement=kspace)
    exact = primal_dual(operator, kspace, 0.01)
    assert error(image, exact) < 2e-3


@pytest.mark.parametrize("weighted", [False, True])
def test_ct_total_variation_is_converged(weighted):
    operator, sinogram, _ = ct_case()
    norm = operator.norm_squared()
    weights = torch.exp(-sinogram / 40) if weighted else None
    weights = weights / weights.mean() if weighted else None
    method = TotalVariation(tv_weight=1e-3, non_negative=True, weight_power=1.0)
    image = method.reconstruct(operator=operator, measurement=sinogram, weights=weights)
    exact = primal_dual(operator, sinogram, 1e-3, weights, non_negative=True)
    values = [objective(operator, sinogram, x, 1e-3, norm, weights) for x in (image, exact)]
    assert values[0] <= values[1] * 1.002
    assert error(image, exact) < 0.01
    assert float(image.min()) >= 0


def test_weight_power_zero_ignores_weights():
    operator, sinogram, _ = ct_case(n_views=6)
    weights = torch.rand(sinogram.shape)
    method = TotalVariation(weight_power=0.0, n_iterations=3)
    plain = method.reconstruct(operator=operator, measurement=sinogram)
    torch.testing.assert_close(method.reconstruct(operator=operator, measurement=sinogram, weights=weights), plain)
    used = TotalVariation(n_iterations=3).reconstruct(operator=operator, measurement=sinogram, weights=weights)
    assert error(used, plain) > 1e-4


# --- The others ---


def test_cg_solves_the_normal_equations():
    operator, kspace, _ = mri_case()
    norm = operator.norm_squared()
    image = ConjugateGradient(n_iterations=100, l2_weight=0.05).reconstruct(operator=operator, measurement=kspace)
    left = operator.adjoint(operator(image)) / norm + 0.05 * image
    assert error(left, operator.adjoint(kspace) / norm) < 1e-4


def test_cg_uses_weights():
    operator = Identity((1, 2, 2))
    measurement, weights = torch.tensor([[[1.0, 2.0], [3.0, 4.0]]]), torch.tensor([[[1.0, 2.0], [0.5, 0.5]]])
    image = ConjugateGradient(l2_weight=0.5).reconstruct(operator=operator, measurement=measurement, weights=weights)
    torch.testing.assert_close(image, weights * measurement / (weights + 0.5), atol=1e-5, rtol=0)
    image = ConjugateGradient(l2_weight=0.5, use_weights=False).reconstruct(
        operator=operator, measurement=measurement, weights=weights
    )
    torch.testing.assert_close(image, measurement / 1.5, atol=1e-5, rtol=0)


def test_sirt_fits_and_stays_positive():
    operator, sinogram, image = ct_case(noise=0.0)
    result = SIRT(n_iterations=300).reconstruct(operator=operator, measurement=sinogram)
    assert error(operator(result), sinogram) < 0.01
    assert error(result, image) < 0.15
    assert float(result.min()) >= 0
    assert float(SIRT(non_negative=False).reconstruct(operator=operator, measurement=sinogram).min()) < 0


def test_sirt_refuses_complex_measurements():
    operator, kspace, _ = mri_case()
    with pytest.raises(InputError, match="SIRT: expected a real measurement"):
        SIRT().reconstruct(operator=operator, measurement=kspace)


def test_l1_wavelet_agrees_in_scale_and_beats_zero_filling():
    pytest.importorskip("sigpy")
    operator, kspace, image = mri_case(acceleration=4)
    result = L1Wavelet(l1_weight=5e-3, n_iterations=60).reconstruct(operator=operator, measurement=kspace)
    assert result.shape == image.shape
    assert error(result, image) < 0.75 * error(operator.direct_inverse(kspace), image)


def test_l1_wavelet_is_what_sigpys_application_gives():
    application = pytest.importorskip("sigpy.mri.app").L1WaveletRecon
    operator, kspace, _ = mri_case(acceleration=4)
    maps = torch.fft.fftshift(operator.maps, dim=(-2, -1)).numpy()
    step = 0.95 / operator.norm_squared()
    expected = application(
        kspace.numpy(), maps, 5e-3, operator_mask(operator).numpy(), alpha=step, max_iter=30, show_pbar=False
    ).run()
    result = L1Wavelet(l1_weight=5e-3, n_iterations=30).reconstruct(operator=operator, measurement=kspace)
    np.testing.assert_allclose(torch.complex(*result).numpy(), expected, atol=1e-4)


def radial_case(n_spokes: int = 14, noise: float = 0.02):
    """The object of `mri_case`, half as many spokes as would fill k-space, density-compensated."""
    cartesian, _, image = mri_case()
    shape = image.shape[1:]
    trajectory = radial_trajectory(tuple(shape), n_spokes)
    maps = torch.fft.fftshift(cartesian.maps, dim=(-2, -1))
    operator = NonCartesianFourier(maps, trajectory, density_compensation(trajectory))
    samples = torch.randn(operator.range_shape, generator=torch.Generator().manual_seed(0), dtype=torch.complex64)
    return operator, operator(image) + operator.precondition(noise * samples), image


def test_every_mri_method_runs_along_a_radial_trajectory():
    operator, measurement, image = radial_case()
    results = {
        name: error(method.reconstruct(operator=operator, measurement=measurement), image)
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
        L1Wavelet().reconstruct(operator=Identity((1, 4, 4)), measurement=torch.zeros(1, 4, 4))


def test_order_of_methods_in_mri():
    operator, kspace, image = mri_case(acceleration=4)
    errors = [
        error(method.reconstruct(operator=operator, measurement=kspace), image)
        for method in (TotalVariation(tv_weight=5e-3), ConjugateGradient(n_iterations=5), DirectInverse())
    ]
    assert errors == sorted(errors)
    assert errors[0] < 0.6 * errors[1]


def test_order_of_methods_in_ct():
    operator, sinogram, image = ct_case(n_views=16)
    errors = [
        error(method.reconstruct(operator=operator, measurement=sinogram), image)
        for method in (TotalVariation(tv_weight=1e-3, non_negative=True), SIRT(n_iterations=100), DirectInverse())
    ]
    assert errors == sorted(errors)
    assert errors[0] < 0.6 * errors[1]


@pytest.mark.parametrize("kind", [DirectInverse, ConjugateGradient, TotalVariation])
def test_called_like_an_inferer(kind):
    method = kind()
    assert isinstance(method, Inferer)
    operator = Identity((2, 5, 7))
    measurement = torch.randn(2, 5, 7, requires_grad=True)
    image = method.reconstruct(torch.zeros(2, 5, 7), None, operator=operator, measurement=measurement, weights=None)
    assert image.shape == (2, 5, 7)
    assert not image.requires_grad
    with pytest.raises(ValueError, match=rf"{kind.__name__}: measurement must have the operator's shape \(2, 5, 7\)"):
        method.reconstruct(operator=operator, measurement=torch.zeros(2, 5, 6))
    with pytest.raises(ValueError, match=rf"{kind.__name__}: weights must have the operator's shape"):
        method.reconstruct(operator=operator, measurement=measurement, weights=torch.ones(3))


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
