import numpy as np
import pytest

from disinr_monai.data.simulate.coils import _smooth, loop_field, random_array
from disinr_monai.data.simulate.mri import simulate_kspace
from disinr_monai.data.simulate.phantoms import brain_phantom


@pytest.fixture(scope="module")
def magnitude() -> np.ndarray:
    return brain_phantom(96, np.random.default_rng(0))[10:87, :]


def _circle(radius: float, x: float, n: int = 400) -> np.ndarray:
    """A loop around the x axis in the plane at ``x``."""
    turn = 2 * np.pi * np.arange(n) / n
    return np.stack([np.full(n, x), radius * np.cos(turn), radius * np.sin(turn)], -1)


def test_a_loop_has_the_field_of_the_textbook_on_its_axis():
    """2π R² / (R² + d²)^(3/2) along the axis, in units of μ0 / 4π."""
    x = np.linspace(-0.9, 0.9, 7)
    field = loop_field(_circle(0.4, -0.2), np.zeros(7), x, wire=0.0)
    np.testing.assert_allclose(field.real, 2 * np.pi * 0.16 / (0.16 + (x + 0.2) ** 2) ** 1.5, rtol=1e-4)
    np.testing.assert_allclose(field.imag, 0, atol=1e-9)


def test_a_long_rectangle_is_two_line_currents():
    """2 I / r around each infinite wire (μ0 / 4π): at (0, 0) from wires at x = 1 and y = 1, up and down."""
    corners = np.array([[1.0, 0, -500], [1.0, 0, 500], [0, 1.0, 500], [0, 1.0, -500]])
    field = loop_field(corners, np.zeros(1), np.zeros(1), wire=0.0)
    # Up at (1, 0): B along -y at the origin; down at (0, 1): along -x.
    np.testing.assert_allclose(field, [-2 + 2j], rtol=1e-3)


def test_splines_follow_the_field():
    corners = _circle(0.4, 1.0, 16)
    y, x = np.linspace(-1, 1, 160)[:, None], np.linspace(-0.8, 0.8, 130)[None]
    exact = loop_field(corners, y, x)
    assert np.abs(_smooth(corners, y, x) - exact).max() < 1e-3 * np.abs(exact).max()
    np.testing.assert_array_equal(_smooth(corners, y[:5], x[:, :4]), exact[:5, :4])


@pytest.mark.parametrize("n_coils", [1, 4, 12, 32])
def test_noise_covariance_is_positive_definite_and_modest(magnitude, n_coils):
    strongest = []
    for seed in range(5):
        psi = random_array(n_coils, np.random.default_rng(seed), magnitude).covariance
        np.testing.assert_allclose(psi, psi.conj().T, atol=1e-12)
        assert np.linalg.eigvalsh(psi).min() > 0.05
        gains = np.sqrt(np.diag(psi).real)
        assert np.mean(gains**2) == pytest.approx(1)
        correlation = np.abs(psi) / np.outer(gains, gains) - np.eye(n_coils)
        strongest.append(correlation.max())
    assert max(strongest) < 0.7
    if n_coils > 4:
        assert max(strongest) > 0.15


def test_whitening_leaves_noise_white_and_the_span_of_the_coils(magnitude):
    array = random_array(8, np.random.default_rng(0), magnitude)
    white = array.whitened()
    transform = white.mixing @ np.linalg.inv(array.mixing)
    np.testing.assert_allclose(transform @ array.covariance @ transform.conj().T, np.eye(8), atol=1e-10)
    np.testing.assert_array_equal(white.covariance, np.eye(8))


def _noise(magnitude: np.ndarray, coils: str) -> np.ndarray:
    clean, noisy = (simulate_kspace(magnitude, 6, std, seed=3, coils=coils) for std in (0.0, 0.1))
    noise = (noisy.kspace - clean.kspace).reshape(6, -1) / noisy.noise_std
    return noise @ noise.conj().T / noise.shape[1]


def test_scans_have_the_noise_that_they_say(magnitude):
    """Sampling error of a covariance of 77 · 96 samples is 1 / 86."""
    np.testing.assert_allclose(_noise(magnitude, "array"), np.eye(6), atol=0.05)
    rng = np.random.default_rng(3)
    simulate_kspace.__globals__["_random_coils"](6, rng)
    simulate_kspace.__globals__["_random_phase"](rng)
    np.testing.assert_allclose(_noise(magnitude, "raw_array"), random_array(6, rng, magnitude).covariance, atol=0.08)


def test_maps_are_irregular_smooth_and_of_unit_norm(magnitude):
    for n_coils in (4, 32):
        maps = simulate_kspace(magnitude, n_coils, coils="array", seed=2).maps
        np.testing.assert_allclose((np.abs(maps) ** 2).sum(0), 1, rtol=1e-5)
        inside = magnitude > 0.1
        step = np.linalg.norm(np.diff(maps, axis=-1), axis=0)[inside[:, 1:] & inside[:, :-1]]
        assert step.max() < 0.35
        power = (np.abs(maps[:, inside]) ** 2).mean(-1)
        assert power.max() > 1.5 * power.min()


def test_an_object_off_the_middle_has_its_coils_around_it(magnitude):
    """Every loop is strongest on the object's side of the field of view that it stands on."""
    padded = np.zeros((77, 260))
    padded[:, 150:246] = magnitude
    array = random_array(8, np.random.default_rng(0), padded)
    angles = np.arange(8) * np.pi / 4
    scale = 2 / 260
    y, x = 0.3 * np.sin(angles), (198 - 129.5) * scale + 0.3 * np.cos(angles)
    near = np.abs(np.stack([loop(y, x) for loop in array.loops]))
    far = np.abs(np.stack([loop(np.zeros(1), np.array([-0.9])) for loop in array.loops]))
    assert (near.max(1) > 3 * far[:, 0]).all()


def test_realism_is_reproducible_and_changes_nothing_by_default(magnitude):
    first, again, other = (
        simulate_kspace(magnitude, 4, seed=s, coils="array", object_phase="tissue") for s in (1, 1, 2)
    )
    np.testing.assert_array_equal(first.kspace, again.kspace)
    assert not np.allclose(first.maps, other.maps)
    plain = simulate_kspace(magnitude, 4, seed=1)
    assert not np.allclose(plain.kspace, simulate_kspace(magnitude, 4, seed=1, object_phase="tissue").kspace)
    np.testing.assert_array_equal(plain.maps, simulate_kspace(magnitude, 4, seed=1, object_phase="tissue").maps)


@pytest.mark.parametrize("arguments", [{"coils": "birdcage"}, {"object_phase": "sharp"}])
def test_unknown_settings_are_refused(magnitude, arguments):
    with pytest.raises(ValueError, match="object_phase of smooth, tissue and coils of ring, array, raw_array"):
        simulate_kspace(magnitude, **arguments)
