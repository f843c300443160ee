import copy

import numpy as np
import pytest
import torch

from disinr_monai.fitting.losses import PoissonLoss
from disinr_monai.methods import MLEM, DirectInverse, SeparableSurrogates, TotalVariation
from disinr_monai.operators import ParallelGeometry, PETProjection
from disinr_monai.operators.count_model import EmissionCounts, TransmissionCounts
from disinr_monai.scan import Scan
from tests.operators.tomography.phantoms import disc, disc_chords
from tests.problems import changed

ANGLES = np.arange(40) * (np.pi / 40)
LINES = ParallelGeometry(image_shape=(48, 48), pixel_spacing=1.5, angles=ANGLES, n_detectors=48, detector_spacing=1.5)
DISC = (10.0, -6.0, 14.0)


def case_of(operator: PETProjection, counts: torch.Tensor, model) -> dict:
    return {"name": "disc", "scan": Scan(operator, counts, counts=model)}


def emission(counts_per_mm: float = 20.0, fwhm: float = 0.0) -> dict:
    """A disc from its chord lengths (not from the operator), attenuated, with a background."""
    chords = disc_chords(ANGLES, 48, 1.5, *DISC)
    factors = torch.exp(-disc_chords(ANGLES, 48, 1.5, 0, 0, 30.0) / 60)
    background = torch.full_like(chords, 3.0)
    generator = torch.Generator().manual_seed(0)
    counts = torch.poisson(counts_per_mm * factors * chords + background, generator=generator)
    operator = PETProjection(LINES, sensitivity=counts_per_mm * factors, fwhm=fwhm)
    return case_of(operator, counts, EmissionCounts(background))


def transmission(blank: float = 200.0, background: float = 2.0) -> dict:
    chords = disc_chords(ANGLES, 48, 1.5, *DISC)
    model = TransmissionCounts(torch.full_like(chords, blank), torch.full_like(chords, background))
    counts = torch.poisson(model.expected(0.05 * chords), generator=torch.Generator().manual_seed(1))
    operator = PETProjection(LINES, sensitivity=0.05)
    return case_of(operator, counts, model)


def likelihood(case: dict, image: torch.Tensor) -> float:
    scan = copy.deepcopy(case["scan"])
    scan = Scan(scan.operator.double(), scan.measurement.double(), counts=scan.counts.double())
    return float(PoissonLoss(floor=1e-9).data(image.double(), scan))


def test_em_never_lowers_the_likelihood_and_keeps_the_counts():
    case = emission()
    values = []
    for n in (1, 2, 3, 5, 10, 30):
        image = MLEM(n_iterations=n)(None, None, case=case)[0]
        values.append(likelihood(case, image))
    assert values == sorted(values, reverse=True)
    without = changed(case, counts=EmissionCounts())
    image = MLEM(n_iterations=4)(None, None, case=without)[0]
    assert float(case["scan"].operator(image).sum()) == pytest.approx(float(case["scan"].measurement.sum()), rel=1e-4)


def test_one_subset_is_em_and_subsets_are_faster():
    case = emission()
    em, one = (MLEM(n_iterations=2, n_subsets=n)(None, None, case=case) for n in (1, 1))
    torch.testing.assert_close(em, one)
    several = MLEM(n_iterations=2, n_subsets=8)(None, None, case=case)
    long = MLEM(n_iterations=16)(None, None, case=case)
    assert float((several - long).norm() / long.norm()) < 0.1 < float((em - long).norm() / long.norm())


@pytest.mark.parametrize(
    ("method", "limit"),
    [
        (MLEM(n_iterations=20), 0.25),
        (MLEM(n_iterations=3, n_subsets=8), 0.25),
        (MLEM(n_iterations=10, n_subsets=8, tv_weight=0.2), 0.2),
        (DirectInverse(), 0.5),
        (TotalVariation(non_negative=True, tv_weight=1e-3), 0.4),
    ],
)
def test_every_method_finds_the_disc_in_its_place(method, limit):
    image = method(None, None, case=emission())[0]
    reference = disc(48, 1.5, *DISC)
    assert float((image - reference).norm() / reference.norm()) < limit
    assert float((image.flip(1) - reference).norm() / reference.norm()) > 0.8


def test_a_sensible_tv_weight_beats_em():
    reference = disc(48, 1.5, *DISC)
    case = emission()
    em, tv = (
        float((MLEM(n_iterations=10, n_subsets=8, tv_weight=w)(None, None, case=case)[0] - reference).norm())
        for w in (0.0, 0.2)
    )
    assert tv < 0.95 * em


def test_negative_counts_and_the_wrong_scan_are_refused():
    case = emission()
    method, sps = MLEM(), SeparableSurrogates()
    assert method(None, None, case=changed(case, measurement=case["scan"].measurement - 5)) is None
    assert "counts of at least 0" in method.error
    assert method(None, None, case=transmission()) is None
    assert "emission" in method.error
    assert sps(None, None, case=case) is None
    assert "transmission" in sps.error


def test_surrogates_never_lower_the_likelihood_and_find_the_attenuation():
    case = transmission()
    images = [SeparableSurrogates(n_iterations=n)(None, None, case=case)[0] for n in (1, 2, 4, 8, 40)]
    values = [likelihood(case, image) for image in images]
    assert values == sorted(values, reverse=True)
    reference = disc(48, 1.5, *DISC)
    inside = reference == 1
    assert float(images[-1][inside].mean()) == pytest.approx(1, abs=0.03)
    smooth = SeparableSurrogates(n_iterations=40, tv_weight=0.4)(None, None, case=case)[0]
    assert float((smooth - reference).norm()) < float((images[-1] - reference).norm())
