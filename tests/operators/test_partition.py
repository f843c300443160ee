"""What dividing a measurement must do, tried on an example of every operator."""

import math
from functools import partial

import pytest
import torch

from disinr_monai.grid import voxel_centres
from disinr_monai.operators import Identity, LinearOperator, NonCartesianFourier, PerFrame
from tests.operators.helpers import every_operator, fan_beam, measured, random_like, random_range, scattered
from tests.problems import ct_case, mri_case

# As good as the NUFFT, whose tables were made in single precision.
assert_same = partial(torch.testing.assert_close, rtol=1e-5, atol=1e-5)


def generator(seed: int = 3) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def masks(operator: LinearOperator, seed: int = 3) -> dict[str, torch.Tensor]:
    """Everything held out by a partition; a training split holds out what it does not keep."""
    partition = operator.partition
    return {
        "samples": partition.held_out_samples(0.3, generator(seed)),
        "blocks": partition.held_out_blocks(0.3, generator(seed)),
        "split": ~partition.training_split(seed, generator(seed)),
    }


@every_operator
def test_masks(make):
    """Boolean over the range, reproducible, neither all nor (samples, splits) nothing of what is measured."""
    operator = make()
    seen, again = masks(operator), masks(operator)
    for name, held in seen.items():
        assert held.shape == operator.range_shape
        assert held.dtype == torch.bool
        assert torch.equal(held, again[name])
        assert (measured(operator) & ~held).any(), f"{name}: nothing left to reconstruct from"
    assert 0 < int(seen["samples"].sum()) < operator.n_measured <= math.prod(operator.range_shape)


@every_operator
def test_training_splits_leave_something_on_both_sides(make):
    operator = make()
    if operator.range_shape[1] < 2 and operator.partition.gaps == "readouts":
        pytest.skip("one readout: all of its samples can lie in the dense centre")
    for index in range(8):
        keep = operator.partition.training_split(index, generator(index))
        assert (measured(operator) & keep).any()
        assert (measured(operator) & ~keep).any()


@every_operator
@pytest.mark.parametrize("kind", ["samples", "blocks", "split"])
def test_restriction(make, kind):
    """The operator of a part is the whole one on the samples kept: forward, adjoint, gram, and for batches."""
    operator = make().double()
    held = masks(operator)[kind]
    for keep in (~held, held):
        if not keep.any():
            continue
        part, select = operator.partition.restrict(keep)
        x, y = random_like((2, *operator.domain_shape), False, 0), random_range(operator, (2,))
        assert part.domain_shape == operator.domain_shape
        assert select(y[0]).shape == part.range_shape
        assert_same(part(x), select(operator(x)))
        weights = random_like(operator.range_shape, False, 2).square()
        assert_same(part.gram(x, select(weights)), part.adjoint(select(operator(x) * weights)))
        assert_same(part.gram(x), part.adjoint(part(x)))
        assert 0 < part.n_measured <= operator.n_measured
        assert part.direct_inverse(select(y)).shape == x.shape
        again, select_again = part.partition.restrict(torch.ones(part.range_shape, dtype=torch.bool))
        assert_same(again(x), select_again(part(x)))


@every_operator
@pytest.mark.parametrize("kind", ["blocks", "split"])
def test_held_out_and_rest_are_the_whole(make, kind):
    """Whole blocks can be taken out: both parts together give the adjoint, and nothing reaches the other."""
    operator = make().double()
    held = masks(operator)[kind]
    if not held.any():
        pytest.skip("too few blocks")
    y = random_range(operator)
    (rest, keep), (test, take) = (operator.partition.restrict(mask) for mask in (~held, held))
    together = rest.adjoint(keep(y)) + test.adjoint(take(y))
    assert_same(together, operator.adjoint(y))
    changed = torch.where(held, y + 1, y)
    assert torch.equal(keep(changed), keep(y))
    assert rest.n_measured + test.n_measured == pytest.approx(operator.n_measured, abs=2)


@every_operator
@pytest.mark.parametrize("size", [1, 2, 6])
def test_subsets(make, size):
    """Every sample is in one subset: their grams sum to that of the whole."""
    operator = make().double()
    x, weights = random_like(operator.domain_shape, False, 0), random_like(operator.range_shape, False, 2).square()
    total = 0
    for part, select in operator.partition.subsets(size):
        assert_same(part(x), select(operator(x)))
        total = total + part.gram(x, select(weights))
    assert_same(total, operator.gram(x, weights))


@every_operator
def test_drawn_parts(make):
    """A part depends on the points that it names alone; only operators of which this is true have one."""
    operator = make()
    grid = voxel_centres(operator.domain_shape[1:])
    part = operator.partition.draw(generator())
    assert (part is None) == (operator.partition.draw(generator(), ~masks(operator)["samples"]) is None)
    if part is not None:
        image = torch.cat([grid] * 3)[: operator.domain_shape[0]]
        values = torch.cat([part.at(grid)] * 3)[: operator.domain_shape[0]]
        torch.testing.assert_close(part.operator(values), part.select(operator(image)))


@every_operator
def test_gaps_are_named(make):
    assert make().partition.gaps in ("samples", "lines", "readouts", "views")
    assert isinstance(make().partition.is_typical, bool)


def test_parts_of_compositions_stay_what_they_were():
    """Views of a composed beam are views, not a mask; frames that keep unlike numbers of readouts are masked."""
    beam = fan_beam() @ Identity((1, 5, 7)).masked(torch.ones(1, 5, 7, dtype=torch.bool))
    part, _ = beam.partition.restrict(beam.partition.training_split(0, generator()))
    assert part.outer.range_shape == (1, 2, 11)
    assert part.inner is beam.inner
    maps = random_like((2, 5, 7), True, 0)
    frames = PerFrame([NonCartesianFourier(maps, scattered((4, 6), (5, 7), seed)) for seed in range(2)])
    keep = torch.ones(frames.range_shape, dtype=torch.bool)
    keep[0, :, 1] = False
    part, select = frames.partition.restrict(keep)
    x = random_like(frames.domain_shape, False, 0)
    torch.testing.assert_close(part(x), select(frames(x)))
    assert part.range_shape == frames.range_shape


def test_an_operator_from_outside_needs_nothing():
    class Twice(LinearOperator):
        def forward(self, image):
            return 2 * image

        adjoint = forward

    operator = Twice((1, 4, 5), (1, 4, 5))
    assert 0 < operator.partition.held_out_samples(0.3, generator()).float().mean() < 0.6
    image = torch.rand(1, 4, 5)
    part, select = operator.partition.restrict(operator.partition.training_split(0, generator()))
    torch.testing.assert_close(part(image), select(operator(image)))
    assert operator.partition.subsets(3)[0][0] is operator
    assert float(operator.noise.residual_energy(image)) == pytest.approx(float(image.square().mean()))


def test_mri_splits_keep_the_centre():
    operator = mri_case()["scan"].operator
    for index in range(10):
        keep = operator.partition.training_split(index, torch.Generator().manual_seed(index))
        assert keep[:, :, 7:13].all()


def test_restriction_of_a_restriction():
    operator = ct_case()["scan"].operator
    keep = torch.zeros(operator.range_shape, dtype=torch.bool)
    keep[:, 3:15] = True
    part, select = operator.partition.restrict(keep)
    inner, choose = part.partition.restrict(torch.arange(12)[None, :, None].expand(part.range_shape) % 3 == 1)
    image = torch.randn(operator.domain_shape)
    torch.testing.assert_close(inner(image), choose(select(operator(image))))
    mask = torch.eye(4, dtype=torch.bool)[None]
    masked = Identity((1, 4, 4)).masked(mask).masked(mask.logical_not().tril().logical_not())
    assert masked.n_measured == 4
    torch.testing.assert_close(masked(torch.ones(1, 4, 4)), torch.eye(4)[None])


def test_ordered_subsets_are_alike():
    parts = ct_case()["scan"].operator.partition.subsets(6)
    assert [part.range_shape[1] for part, _ in parts] == [6, 6, 6, 6]
