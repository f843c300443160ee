import numpy as np
import pytest

from disinr_monai.data.simulate.patterns import equispaced_mask, poisson_mask, random_mask
from disinr_monai.errors import InputError
from disinr_monai.operators.calibration import acs_size


def test_every_sixth_line_and_the_centre():
    expected = sorted({*range(2, 256, 6), *range(116, 140)})
    assert np.flatnonzero(equispaced_mask(256, 6, 24, offset=2)).tolist() == expected


def test_odd_sizes_centre_like_fastmri():
    # (7 - 3 + 1) // 2 = 2
    assert np.flatnonzero(equispaced_mask(7, 7, 3, offset=0)).tolist() == [0, 2, 3, 4]


def test_same_lines_as_fastmri():
    subsample = pytest.importorskip("fastmri.data.subsample", reason="fastmri is not installed")
    mask, n_low = subsample.EquiSpacedMaskFunc([24 / 256], [6])((1, 256, 2), offset=4, seed=1)
    assert n_low == 24
    np.testing.assert_array_equal(mask.numpy().ravel() != 0, equispaced_mask(256, 6, 24, offset=4))


def test_the_offset_is_drawn_with_the_seed():
    masks = [equispaced_mask(64, 6, 0, seed=seed) for seed in range(60)]
    assert {int(np.flatnonzero(mask)[0]) for mask in masks} == set(range(6))
    np.testing.assert_array_equal(masks[3], equispaced_mask(64, 6, 0, seed=3))


@pytest.mark.parametrize("arguments", [(64, 0, 8), (64, 2.5, 8), (64, 4, 65), (64, 4, -1), (64, 4, 8, 4)])
def test_impossible_masks_are_refused(arguments):
    with pytest.raises(InputError, match=r"expected .* found"):
        equispaced_mask(*arguments)


@pytest.mark.parametrize(("width", "acceleration", "acs"), [(256, 6, 24), (37, 2.5, 8), (64, 4, 0)])
def test_random_lines_count_the_centre(width, acceleration, acs):
    masks = [random_mask(width, acceleration, acs, seed) for seed in (0, 0, 1)]
    start = (width - acs + 1) // 2
    for mask in masks:
        assert mask.sum() == round(width / acceleration)
        assert mask[start : start + acs].all()
    assert (masks[0] == masks[1]).all()
    assert (masks[0] != masks[2]).any()


@pytest.mark.parametrize(("shape", "acceleration", "acs"), [((64, 80), 8, 10), ((61, 70), 5, 9)])
def test_poisson_discs_have_a_centre_and_keep_their_distance(shape, acceleration, acs):
    mask = poisson_mask(shape, acceleration, acs, 3)
    assert mask.dtype == bool
    assert mask.shape == shape
    assert mask.size / mask.sum() == pytest.approx(acceleration, rel=0.05)
    assert min(acs_size(mask)) >= acs
    assert (mask == poisson_mask(shape, acceleration, acs, 3)).all()
    assert (mask != poisson_mask(shape, acceleration, acs, 4)).any()
    # Far from the centre no two samples are neighbours (random samples of that number would be in places).
    outer = mask.copy()
    outer[shape[0] // 4 : -(shape[0] // 4), shape[1] // 4 : -(shape[1] // 4)] = False
    touching = (outer[1:] & outer[:-1]).sum() + (outer[:, 1:] & outer[:, :-1]).sum()
    assert touching < 0.5 * 2 * outer.sum() ** 2 / mask.size
    # Corners are left out, and the middle is denser than the rim.
    assert not mask[:3, :3].any()


@pytest.mark.parametrize("arguments", [((64,), 3, 24), ((64,), 0.5, 8), ((64,), 4, 70)])
def test_impossible_random_lines(arguments):
    with pytest.raises(InputError, match=r"(acceleration|acs): expected .* found"):
        random_mask(*arguments[0], *arguments[1:])


@pytest.mark.parametrize(("acceleration", "acs"), [(9, 24), (1, 8), (4, 65)])
def test_impossible_poisson_discs(acceleration, acs):
    with pytest.raises(InputError, match=r"acceleration: no Poisson-disc pattern|acs: expected"):
        poisson_mask((64, 64), acceleration, acs)


@pytest.mark.parametrize("width", [256, 180, 37])
def test_acs_size_of_lines(width):
    for acs in (8, 15, 24):
        mask = equispaced_mask(width, width, acs, offset=0)
        (size,) = acs_size(mask)
        assert size in (acs, acs - 1)
        start = width // 2 - size // 2
        assert mask[start : start + size].all()
        if width % 2 == 0:
            assert size == acs


def test_acs_size_of_a_block_and_of_lines_in_2d():
    mask = np.zeros((23, 31), bool)
    mask[11 - 4 : 11 + 4, 15 - 5 : 15 + 5] = True
    assert acs_size(mask) == (8, 10)
    assert acs_size(np.broadcast_to(equispaced_mask(32, 4, 8, 0), (20, 32)))[0] == 20
    assert acs_size(np.zeros((6, 8))) == (0, 0)
    assert acs_size(np.ones((6, 9))) == (6, 9)
    assert acs_size(np.zeros(8)) == (0,)
