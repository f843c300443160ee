from __future__ import annotations

import numpy as np
import pytest
import torch

from disinr_monai.operators import MultiCoilFourier, fft2c, ifft2c


def one_coil(height: int, width: int) -> MultiCoilFourier:
    return MultiCoilFourier(torch.ones((1, height, width), dtype=torch.complex64), torch.ones(1, width))


@pytest.mark.parametrize(("height", "width"), [(5, 7), (6, 4), (5, 4)])
def test_shifted_point_is_a_phase_ramp(height, width):
    image = torch.zeros(2, height, width)
    image[0, height // 2 + 1, width // 2 - 2] = 1
    k1 = np.arange(height)[:, None] - height // 2
    k0 = np.arange(width)[None] - width // 2
    expected = np.exp(-2j * np.pi * (k1 / height - 2 * k0 / width)) / np.sqrt(height * width)
    np.testing.assert_allclose(one_coil(height, width)(image)[0].numpy(), expected, atol=1e-6)


@pytest.mark.parametrize(("height", "width"), [(5, 7), (6, 4)])
def test_constant_is_the_middle_of_kspace(height, width):
    image = torch.zeros(2, height, width)
    image[1] = 1
    expected = torch.zeros(1, height, width, dtype=torch.complex64)
    expected[0, height // 2, width // 2] = 1j * (height * width) ** 0.5
    torch.testing.assert_close(one_coil(height, width)(image), expected, atol=1e-5, rtol=0)


def test_agrees_with_fastmri():
    fastmri = pytest.importorskip("fastmri")
    image = torch.randn(5, 7, dtype=torch.complex64)
    torch.testing.assert_close(fft2c(image), torch.view_as_complex(fastmri.fft2c(torch.view_as_real(image))))
    torch.testing.assert_close(ifft2c(image), torch.view_as_complex(fastmri.ifft2c(torch.view_as_real(image))))


def test_round_trip_keeps_energy():
    image = torch.randn(5, 7, dtype=torch.complex64)
    torch.testing.assert_close(ifft2c(fft2c(image)), image)
    torch.testing.assert_close(torch.linalg.vector_norm(fft2c(image)), torch.linalg.vector_norm(image))


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


def test_withheld_samples_are_lines_or_scattered_as_the_pattern_is():
    maps = torch.ones(2, 12, 40, dtype=torch.complex64)
    lines = torch.zeros(1, 40)
    lines[:, ::4] = 1
    lines[:, 16:24] = 1
    scattered = (torch.rand(12, 40, generator=torch.Generator().manual_seed(1)) < 0.4).float()
    scattered[4:8, 16:24] = 1
    for mask in (lines, scattered):
        operator = MultiCoilFourier(maps, mask)
        held = operator.withhold(0.2, torch.Generator().manual_seed(0))
        full = mask.expand(12, 40).bool()
        assert 0 < int(held[0].sum()) < int(full.sum())
        assert not (held[0] & ~full).any(), "only what was measured can be withheld"
        assert torch.equal(held[0], held[1])
    columns = MultiCoilFourier(maps, lines).withhold(0.2, torch.Generator().manual_seed(0))[0].float().mean(0)
    assert set(columns.tolist()) == {0.0, 1.0}
