from dataclasses import replace

import pytest
import torch

from disinr_monai.operators import Identity, Samples
from disinr_monai.operators.count_model import EmissionCounts
from disinr_monai.scan import Scan
from tests.problems import ct_case, mri_case, pet_case, transmission_case

CASES = {"ct": ct_case, "mri": mri_case, "pet": pet_case, "transmission": transmission_case}


def test_tempered_weights_have_mean_one():
    scan = ct_case()["scan"]
    tempered = scan.tempered(0.5)
    torch.testing.assert_close(tempered.weights, scan.weights.sqrt() / scan.weights.sqrt().mean())
    assert tempered.operator is scan.operator
    assert scan.tempered(0).weights is None
    assert mri_case()["scan"].tempered(0.5).weights is None


@pytest.mark.parametrize("kind", CASES)
def test_restrict_takes_the_same_samples_out_of_everything(kind):
    scan = CASES[kind]()["scan"]
    if kind == "mri":
        keep = scan.operator.partition.training_split(0, torch.Generator().manual_seed(0))
    else:
        keep = (torch.arange(scan.measurement.shape[1]) % 3 == 0)[:, None].expand(scan.measurement.shape)
    part, other = scan.restrict(keep), scan.restrict(~keep)
    image = torch.rand(scan.operator.domain_shape)
    whole = replace(scan, measurement=scan.operator(image)).restrict(keep)
    torch.testing.assert_close(part.operator(image), whole.measurement, rtol=1e-4, atol=1e-4)
    assert part.operator.n_measured + other.operator.n_measured == scan.operator.n_measured
    if scan.weights is not None:
        assert part.weights.shape == part.measurement.shape
    if scan.counts is not None:
        expected = scan.counts.expected(scan.operator(image))
        torch.testing.assert_close(
            part.counts.expected(part.operator(image)), replace(scan, measurement=expected).restrict(keep).measurement
        )


def test_subsets_share_out_views_and_weights():
    scan = ct_case(n_views=24)["scan"]
    parts = scan.subsets(6)
    assert [part.measurement.shape[1] for part in parts] == [6, 6, 6, 6]
    assert sum(float(part.weights.sum()) for part in parts) == pytest.approx(float(scan.weights.sum()), rel=1e-5)
    assert len(mri_case()["scan"].subsets(6)) == 1


def test_drawn_part_is_a_scan_of_its_points():
    image = torch.rand(1, 5, 6)
    scan = Scan(Samples((1, 5, 6), n_drawn=7), image.flatten(1), torch.ones(1, 30))
    points_of, part = scan.draw(torch.Generator().manual_seed(0))
    assert part.weights.shape == part.measurement.shape == (1, 7)
    torch.testing.assert_close(part.residual(points_of(image)), torch.zeros(1, 7))
    assert mri_case()["scan"].draw() is None


@pytest.mark.parametrize("kind", CASES)
def test_normal_equations(kind):
    scan = CASES[kind]()["scan"]
    image = torch.randn(scan.operator.domain_shape)
    weights = 1 if scan.weights is None else scan.weights
    torch.testing.assert_close(
        scan.gram(image) - scan.adjoint(), scan.operator.adjoint(weights * scan.residual(image)), rtol=1e-3, atol=1e-1
    )


def test_corrected_scan_has_line_integrals():
    scan = pet_case()["scan"]
    corrected = scan.corrected()
    assert corrected.counts is None
    assert torch.equal(corrected.measurement, scan.measurement - scan.counts.background)
    assert corrected.corrected() is corrected


def test_every_part_moves():
    scan = pet_case()["scan"]
    moved = replace(scan, weights=torch.ones_like(scan.measurement), counts=EmissionCounts()).to("meta")
    assert {moved.measurement.device.type, moved.weights.device.type, moved.counts.background.device.type} == {"meta"}
    assert next(moved.operator.buffers()).device.type == "meta"


def test_wrong_shapes_are_named():
    with pytest.raises(ValueError, match=r"Scan: measurement must have the operator's shape \(2, 5, 7\), found"):
        Scan(Identity((2, 5, 7)), torch.zeros(2, 5, 6))
    with pytest.raises(ValueError, match="Scan: weights must have the operator's shape"):
        Scan(Identity((2, 5, 7)), torch.zeros(2, 5, 7), torch.ones(3))
