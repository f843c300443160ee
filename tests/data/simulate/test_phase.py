import numpy as np
import pytest

from disinr_monai.data.simulate.phase import Echo, fat_fraction, object_mask, random_echo, tissue_factor


@pytest.fixture(scope="module")
def head() -> np.ndarray:
    """A bright rim of 5 voxels around a grey disc with a darker middle; nothing outside."""
    y, x = np.indices((120, 110))
    distance = np.hypot(y - 60, x - 55)
    return np.select([distance < 15, distance < 40, distance < 45], [0.3, 0.5, 1.0], 0.0)


def _jumps(factor: np.ndarray) -> np.ndarray:
    """Phase of fat over water across the rim's inner edge, voxels two on each side of it, on 16 rays."""
    angles = np.arange(16) * np.pi / 8
    inner, outer = (
        factor[np.rint(60 + r * np.sin(angles)).astype(int), np.rint(55 + r * np.cos(angles)).astype(int)]
        for r in (37, 43)
    )
    return np.angle(outer * inner.conj())


def test_chemical_shift_is_that_of_the_textbook():
    # 3.5 ppm of 42.577 MHz/T at 1.5 T are 224 Hz: fat and water are opposed after 2.24 ms, and lag behind.
    assert Echo(1.5, 2.237).radians(-3.5) == pytest.approx(-np.pi, rel=1e-3)
    assert Echo(3.0, 1.0).radians(-3.5) == pytest.approx(-2 * np.pi * 0.447, rel=1e-3)


@pytest.mark.parametrize(("tesla", "ms", "expected"), [(1.5, 1.2, -1.685), (3.0, 0.6, -1.685), (3.0, 2.0, 0.666)])
def test_the_phase_jumps_where_water_meets_fat(head, tesla, ms, expected):
    """2π · 42.577 B · TE · 3.5e-3, wrapped; median over rays and seeds, as air and tissue have offsets too."""
    factors = [tissue_factor(head, np.random.default_rng(seed), Echo(tesla, ms)) for seed in range(6)]
    jumps = np.concatenate([_jumps(factor) for factor in factors])
    assert np.angle(np.median(np.exp(1j * (jumps - expected)))) == pytest.approx(0, abs=0.2)


def test_spin_echoes_refocus_fat(head):
    jumps = _jumps(tissue_factor(head, np.random.default_rng(0), Echo(3.0, 0.0)))
    assert abs(np.median(jumps)) < 0.5  # the slope of a shifted echo, over six voxels


def test_opposed_fat_and_water_cancel_at_their_border(head):
    """|1 - 2 f| of a voxel with the fraction f of fat; median over seeds, as few have negative tissue."""

    def size(ms: float) -> np.ndarray:
        made = [np.abs(tissue_factor(head, np.random.default_rng(seed), Echo(1.5, ms))) for seed in range(5, 10)]
        assert np.max(made) <= 1 + 1e-9
        return np.median(made, axis=0)

    opposed, together = size(2.237), size(4.474)
    fat = fat_fraction(head, object_mask(head))
    border = np.abs(fat - 0.5) < 0.45
    assert border.sum() > 200
    np.testing.assert_allclose(opposed[border], np.abs(1 - 2 * fat[border]), atol=0.1)
    np.testing.assert_allclose(together[border], 1, atol=0.02)


def test_where_nothing_is_nothing_happens(head):
    for echo in (None, Echo(7.0, 30.0)):
        made = head * tissue_factor(head, np.random.default_rng(1), echo)
        assert np.isfinite(made).all()
        assert not made[head == 0].any()
    np.testing.assert_array_equal(tissue_factor(np.zeros((20, 30)), np.random.default_rng(0)), 1)
    assert np.isfinite(tissue_factor(np.ones((9, 8)), np.random.default_rng(0))).all()


def test_noise_has_a_random_phase_and_signal_has_not(head):
    rng = np.random.default_rng(0)
    noisy = np.abs(head + 0.02 * (rng.standard_normal(head.shape) + 1j * rng.standard_normal(head.shape)))
    factor = tissue_factor(noisy, np.random.default_rng(1), Echo(1.5, 0.0))
    inside = object_mask(noisy)
    step = np.abs(np.angle(factor[1:] * factor[:-1].conj()))
    air = ~(inside[1:] | inside[:-1])
    assert step[air].mean() == pytest.approx(np.pi / 2, rel=0.05)  # independent uniform phases
    assert np.median(step[(noisy[1:] > 0.4) & (noisy[:-1] > 0.4)]) < 0.15


def test_seeds_decide(head):
    first, again, other = (tissue_factor(head, np.random.default_rng(seed)) for seed in (1, 1, 2))
    np.testing.assert_array_equal(first, again)
    assert not np.allclose(first, other)


def test_echoes_are_of_known_scanners():
    echoes = [random_echo(np.random.default_rng(seed)) for seed in range(300)]
    assert {echo.tesla for echo in echoes} == {1.5, 3.0, 7.0}
    gradient = [echo.ms for echo in echoes if abs(echo.ms) > 0.2]
    assert 0.65 < len(gradient) / 300 < 0.85
    assert min(gradient) >= 2
    assert 25 < max(gradient) <= 30
