"""Products and frames of operators against doing it by hand."""

import copy

import pytest
import torch

from disinr_monai.methods import ConjugateGradient
from disinr_monai.operators import Identity, PerFrame
from disinr_monai.scan import Scan
from tests.operators.helpers import fan_beam, frames_of_other_lines, non_cartesian, pet_projection, random_like


def test_product_by_hand():
    beam, region = fan_beam(), Identity((1, 5, 7)).masked(torch.ones(1, 5, 7).tril() > 0)
    image = torch.rand(1, 5, 7)
    torch.testing.assert_close((beam @ region)(image), beam(image.tril()))
    assert (beam @ Identity((1, 5, 7))).is_additive is False
    assert (pet_projection() @ region).undersampling() == pet_projection().undersampling()
    with pytest.raises(ValueError, match=r"FanBeam @ Identity: .* shape \(1, 5, 7\).* found \(1, 4, 4\)"):
        beam @ Identity((1, 4, 4))


def test_frames_by_hand():
    frames = frames_of_other_lines()
    image = torch.rand(2, 2, 5, 7)
    kspace = frames(image)
    for t, operator in enumerate(frames.each):
        assert torch.equal(kspace[t], operator(image[:, t]))
        assert torch.equal(frames.direct_inverse(kspace)[:, t], operator.direct_inverse(kspace[t]))
        assert torch.equal(frames.phase_reference(kspace)[t], operator.phase_reference(kspace[t]))
    assert frames.n_measured == sum(operator.n_measured for operator in frames.each)
    assert PerFrame([fan_beam()] * 2).phase_reference(torch.zeros(2, 1, 4, 11)) is None


def test_one_operator_for_all_frames_is_kept_once():
    shared, operator = PerFrame([non_cartesian()] * 4), non_cartesian()
    image = torch.rand(3, 2, 4, 5, 7)
    expected = torch.stack([operator(image[:, :, t]) for t in range(4)], 1)
    torch.testing.assert_close(shared(image), expected)
    assert len(shared.frames) == 1


@pytest.mark.parametrize("move", [lambda o: o.double(), copy.deepcopy, lambda o: copy.deepcopy(o).double().float()])
def test_frames_share_their_coil_maps_after_a_move(move):
    frames = move(frames_of_other_lines())
    first, second = (operator.maps for operator in frames.each)
    assert first.data_ptr() == second.data_ptr()
    masks = [operator.mask for operator in frames.each]
    assert not torch.equal(*masks)


def test_frames_are_solved_together_as_apart():
    frames = frames_of_other_lines().double()
    truth = random_like(frames.domain_shape, False, 0)
    together = ConjugateGradient(n_iterations=8).solve(Scan(frames, frames(truth)))
    assert together.shape == truth.shape
    assert torch.linalg.vector_norm(frames(together) - frames(truth)) < 0.05 * torch.linalg.vector_norm(frames(truth))


@pytest.mark.parametrize("operators", [[], [Identity((1, 2, 2)), Identity((1, 2, 3))]])
def test_frames_of_unlike_shapes(operators):
    with pytest.raises(ValueError, match="PerFrame: expected at least one operator and the same shapes"):
        PerFrame(operators)
