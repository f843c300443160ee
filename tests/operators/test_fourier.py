import numpy as np
import pytest
import torch

from disinr_monai.operators import MultiCoilFourier, fft2c, ifft2c


def one_coil(height: int, width: int) -> MultiCoilFourier:
    return MultiCoilFourier(torch.ones((1, height, width), dtype=torch.complex64), torch.ones(1, width))


@pytest.mark.parametrize(("height", "width"), [(5, 7), (6, 4), (5, 4)])
@pytest.mark.parametrize(("channel", "factor"), [(0, 1), (1, 1j)])
@pytest.mark.parametrize(("down", "right"), [(1, -2), (0, 0)])
def test_a_point_is_a_phase_ramp(height, width, channel, factor, down, right):
    image = torch.zeros(2, height, width)
    image[channel, height // 2 + down, width // 2 + right] = 1
    k1 = np.arange(height)[:, None] - height // 2
    k0 = np.arange(width)[None] - width // 2
    expected = factor * np.exp(-2j * np.pi * (k1 * down / height + k0 * right / width)) / np.sqrt(height * width)
    found = one_coil(height, width)(image)
    np.testing.assert_allclose(found[0].numpy(), expected, atol=1e-6)
    torch.testing.assert_close(ifft2c(found[0]), torch.complex(*image))


def test_agrees_with_fastmri():
    fastmri = pytest.importorskip("fastmri")
    image = torch.randn(5, 7, dtype=torch.complex64)
    torch.testing.assert_close(fft2c(image), torch.view_as_complex(fastmri.fft2c(torch.view_as_real(image))))
    torch.testing.assert_close(ifft2c(image), torch.view_as_complex(fastmri.ifft2c(torch.view_as_real(image))))


def test_coils_and_mask_by_hand():
    maps = torch.randn(3, 5, 7, dtype=torch.complex64)
    mask = torch.tensor([1, 0, 0, 1, 1, 1, 0])[None]
    image = torch.randn(2, 5, 7)
    measured = MultiCoilFourier(maps, mask)(image)
    torch.testing.assert_close(measured, fft2c(maps * torch.complex(image[0], image[1])) * mask)
    assert (measured[..., mask[0] == 0] == 0).all()


@pytest.mark.parametrize(
    ("maps", "mask", "message"),
    [
        (torch.ones(5, 7, dtype=torch.complex64), torch.ones(5, 7), "n_coils, H, W"),
        (torch.ones(2, 5, 7), torch.ones(5, 7), "must be complex"),
        (torch.ones(2, 5, 7, dtype=torch.complex64), torch.ones(5, 6), "mask must broadcast"),
    ],
)
def test_wrong_arguments(maps, mask, message):
    with pytest.raises(ValueError, match=message):
        MultiCoilFourier(maps, mask)


def test_two_sets_of_maps_are_two_images_that_add():
    maps = torch.randn(2, 3, 6, 8, dtype=torch.complex64, generator=torch.Generator().manual_seed(0))
    maps[1, :, :, :5] = 0
    mask, image = torch.ones(1, 8), torch.randn(4, 6, 8, generator=torch.Generator().manual_seed(1))
    both = MultiCoilFourier(maps, mask)
    one, two = (MultiCoilFourier(part, mask) for part in maps)
    torch.testing.assert_close(both(image), one(image[:2]) + two(image[2:]))
    seen = both.visible(image)
    assert torch.equal(seen[:2], image[:2])
    assert torch.equal(seen[2:, :, 5:], image[2:, :, 5:])
    assert not seen[2:, :, :5].any()
    torch.testing.assert_close(both(seen), both(image))
    assert both.phase_reference(both(image)).shape == (2, 6, 8)
    assert both.with_maps(maps[0]).domain_shape == (2, 6, 8)


def test_withheld_samples_are_lines_or_scattered_as_the_pattern_is():
    maps = torch.ones(2, 12, 40, dtype=torch.complex64)
    lines = torch.zeros(1, 40)
    lines[:, ::4] = 1
    lines[:, 16:24] = 1
    scattered = (torch.rand(12, 40, generator=torch.Generator().manual_seed(1)) < 0.4).float()
    scattered[4:8, 16:24] = 1
    for mask in (lines, scattered):
        operator = MultiCoilFourier(maps, mask)
        held = operator.partition.held_out_blocks(0.2, torch.Generator().manual_seed(0))
        full = mask.expand(12, 40).bool()
        assert 0 < int(held[0].sum()) < int(full.sum())
        assert not (held[0] & ~full).any(), "only what was measured can be withheld"
        assert torch.equal(held[0], held[1])
    held = MultiCoilFourier(maps, lines).partition.held_out_blocks(0.2, torch.Generator().manual_seed(0))
    assert set(held[0].float().mean(0).tolist()) == {0.0, 1.0}


def poisson_like(height: int = 40, width: int = 48, centre: int = 14) -> torch.Tensor:
    mask = (torch.rand(height, width, generator=torch.Generator().manual_seed(1)) < 0.3).float()
    mask[height // 2 - centre // 2 : height // 2 + centre // 2, width // 2 - centre // 2 : width // 2 + centre // 2] = 1
    return mask


def test_two_dimensional_patterns_keep_their_calibration_block():
    mask = poisson_like()
    operator = MultiCoilFourier(torch.ones(2, *mask.shape, dtype=torch.complex64), mask)
    for seed in range(5):
        held = operator.partition.held_out_blocks(0.2, torch.Generator().manual_seed(10 + seed))
        keep = operator.partition.training_split(seed, torch.Generator().manual_seed(10 + seed))
        lost = (mask > 0) & ~keep[0]
        for gone in (held[0], lost):
            assert not gone[13:27, 17:31].any(), "the centre calibrates phase and coils"
            assert not (gone & (mask == 0)).any()
        assert 0.1 * mask.sum() < held[0].sum() + 14 * 14 * 0.2 < 0.3 * mask.sum()
        assert 0.1 * (mask.sum() - 196) < lost.sum() < 0.5 * (mask.sum() - 196)
        assert (lost.float().mean(0) < 0.5).all(), "scattered samples, not lines"


@pytest.mark.parametrize("kind", ["lines", "scattered", "partial Fourier"])
def test_phase_of_the_centre(kind):
    """What is sampled beyond the fully sampled centre must not tilt the phase."""
    mask = poisson_like()
    if kind != "scattered":
        mask = torch.zeros(1, 48)
        mask[:, ::3] = mask[:, 17:31] = 1
    if kind == "partial Fourier":
        mask[:] = 0
        mask[:, 17:] = 1
    rows, columns = torch.linspace(-1, 1, 40)[:, None], torch.linspace(-1, 1, 48)[None]
    phase = torch.exp(1j * (0.4 + 0.8 * rows - 0.5 * columns))
    body = torch.exp(-4 * (rows**2 + (columns - 0.1) ** 2))
    operator = MultiCoilFourier(torch.ones(1, 40, 48, dtype=torch.complex64), mask)
    image = body * phase
    found = operator.phase_reference(operator(torch.stack((image.real, image.imag))))
    assert float(torch.angle(found * phase.conj())[body > 0.3].abs().max()) < 0.1


def test_phase_without_a_centre_is_none():
    operator = MultiCoilFourier(torch.ones(1, 8, 8, dtype=torch.complex64), torch.arange(8)[None] % 2)
    found = operator.phase_reference(torch.ones(1, 8, 8, dtype=torch.complex64))
    torch.testing.assert_close(found, torch.ones_like(found))


def test_gram_of_lines_and_of_their_parts():
    """Lines are transformed along one axis only; an operator of a part may need both."""
    mask = torch.zeros(1, 48)
    mask[:, ::3] = 1
    operator = MultiCoilFourier(torch.randn(2, 40, 48, dtype=torch.complex64), mask)
    image = torch.randn(2, 40, 48)
    part, _ = operator.partition.restrict(torch.rand(40, 48) < 0.5)
    for each in (operator, part):
        torch.testing.assert_close(each.gram(image), each.adjoint(each(image)), rtol=1e-4, atol=1e-4)


def test_the_centre_is_left_as_sparse_as_the_rest():
    lines = torch.zeros(1, 96)
    lines[:, 2::4] = 1
    lines[:, 36:60] = 1
    partition = MultiCoilFourier(torch.ones(2, 80, 96, dtype=torch.complex64), lines).partition
    held, share = partition.held_out_centre(torch.Generator().manual_seed(0))
    columns = torch.nonzero(held[0].any(0)).flatten().tolist()
    assert columns == [c for c in range(36, 60) if c % 4 != 2 and not 44 <= c < 52]
    assert bool((held[0] == held[0][:1]).all())
    assert share == pytest.approx(24 / 96, abs=0.05)
    # The gaps of lines at random are all of one kind; without lines in between there is nothing to take.
    random = (torch.rand(96, generator=torch.Generator().manual_seed(3)) < 0.3)[None].float()
    random[:, 40:56] = 1
    for mask in (random, (torch.arange(96) % 4 == 0)[None]):
        operator = MultiCoilFourier(torch.ones(2, 80, 96, dtype=torch.complex64), mask)
        assert operator.partition.held_out_centre(torch.Generator().manual_seed(0)) is None


def test_the_centre_of_scattered_samples_is_left_as_sparse_as_the_rest():
    mask = torch.rand(80, 96, generator=torch.Generator().manual_seed(1)) < 0.2
    mask[28:52, 36:60] = True
    partition = MultiCoilFourier(torch.ones(2, 80, 96, dtype=torch.complex64), mask).partition
    held, share = partition.held_out_centre(torch.Generator().manual_seed(0))
    centre = held[0][28:52, 36:60]
    assert int(held[0].sum()) == int(centre.sum())
    assert not held[0][36:44, 44:52].any()
    kept = 1 - float(centre.float().sum()) / (24**2 - 8**2)
    assert kept == pytest.approx(0.2, abs=0.05)
    assert share == pytest.approx(24**2 / (80 * 96), rel=0.2)
