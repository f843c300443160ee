import torch

from disinr_monai.prior import data_consistency
from disinr_monai.scan import Scan
from tests.problems import ct_case, mri_case


def test_data_consistency_solves_its_equation():
    scan, centre = mri_case()["scan"], torch.randn(2, 24, 20)
    image = data_consistency(centre, scan, 0.3, 60)
    slope = scan.operator.adjoint(scan.residual(image)) + 0.3 * (image - centre)
    assert float(slope.abs().max()) < 1e-4


def test_gradient_of_data_consistency():
    scan = ct_case(n_views=6, size=6)["scan"]
    scan = Scan(scan.operator.double(), scan.measurement.double(), scan.weights.double())
    centre = torch.rand(1, 6, 6, dtype=torch.float64, requires_grad=True)
    dc_weight = torch.tensor(5.0, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda x, w: data_consistency(x, scan, w, 60), (centre, dc_weight), atol=1e-6)
