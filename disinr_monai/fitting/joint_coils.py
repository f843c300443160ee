from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from disinr_monai.errors import InputError
from disinr_monai.fitting.adaptation import AdaptationInferer
from disinr_monai.fitting.losses import MeasurementLoss
from disinr_monai.grid import voxel_centres
from disinr_monai.operators import LinearOperator, MultiCoilFourier, ifft2c
from disinr_monai.operators.calibration import acs_size
from disinr_monai.operators.coils import coil_images
from disinr_monai.operators.partition import Partition
from disinr_monai.scan import Scan

_MIN_CENTRE = 8


class PolynomialCoils(LinearOperator):
    r"""Multi-coil Cartesian MRI whose coil sensitivities are smooth unknowns.

    .. math:: s_c = \frac{p_c}{\sqrt{\sum_k |p_k|^2}}, \qquad
        p_c(u, v) = \sum_{i, j = 0}^{n} a_{cij}\, P_i(u)\, P_j(v), \quad a_{cij} \in \mathbb{C}

    with Legendre polynomials :math:`P_i`, an orthogonal basis of the polynomials of IMJENSE. The root sum of squares of
    the maps is 1 everywhere, so the image has the magnitude that it has with any other such maps.

    The coefficients start from the least-squares fit to the coil images of the fully sampled centre; where that is too
    small, to the maps of the scan (``--maps joint``).

    Args:
        scan: operator of the scan; its coil maps are not used where it has a fully sampled centre.
        measurement: k-space ``(n_coils, H, W)``.
        degree: :math:`n`.
    """

    def __init__(self, scan: MultiCoilFourier, measurement: Tensor, degree: int) -> None:
        super().__init__((2, *scan.domain_shape[1:]), scan.range_shape)
        self.scan = scan
        for name, n in zip(("rows", "columns"), self.range_shape[1:], strict=True):
            basis = np.polynomial.legendre.legvander(voxel_centres((n,))[0].double().numpy(), degree)
            self.register_buffer(name, torch.from_numpy(basis).to(scan.mask), persistent=False)
        if min(acs_size(scan.sampled.cpu().numpy())) < _MIN_CENTRE:
            maps = torch.fft.fftshift(scan.maps, dim=(-2, -1))
            low = coil_images(torch.linalg.vector_norm(scan.adjoint(measurement), dim=0, keepdim=True), maps)
        else:
            low = ifft2c(scan.calibration(measurement))
        self.coefficients = nn.Parameter(torch.view_as_real(self._start(low)))

    @torch.no_grad()
    def _start(self, low: Tensor) -> Tensor:
        """Least-squares fit of ``(n_coils, H, W)`` low-resolution coil images over their root sum of squares."""
        size = torch.linalg.vector_norm(low, dim=0)
        # The object's own phase is taken out by that of the strongest combination of the coils.
        flat = low.flatten(1)
        strongest = torch.linalg.eigh(flat @ flat.conj().t())[1][:, -1]
        together = torch.einsum("c,chw->hw", strongest.conj(), low)
        target = low * together.conj() / (size * together.abs()).clamp(min=1e-6 * size.max() ** 2)
        rows, columns = (slice(None, None, max(n // 48, 1)) for n in size.shape)
        basis = torch.einsum("hi,wj->hwij", self.rows[rows], self.columns[columns]).flatten(0, 1).flatten(1)
        weights = size[rows, columns].flatten()[:, None] / size.max()
        values = target[:, rows, columns].flatten(1).t()
        ridge = 1e-3 * torch.eye(basis.shape[1]).to(basis)  # keeps the maps tame where there is no signal
        normal = (basis * weights.square()).t() @ basis / len(basis) + ridge
        right = (basis * weights.square()).t().to(values.dtype) @ values / len(basis)
        fitted = torch.linalg.solve(normal.to(values.dtype), right)
        return fitted.t().reshape(len(low), self.rows.shape[1], self.columns.shape[1])

    def maps(self) -> Tensor:
        """The coil maps, complex ``(n_coils, H, W)``, root sum of squares 1."""
        smooth = torch.einsum("hi,cijz,wj->chwz", self.rows, self.coefficients, self.columns)
        size = smooth.square().sum((0, 3)).clamp(min=1e-12).sqrt()
        return torch.view_as_complex((smooth / size[:, :, None]).contiguous())

    def forward(self, image: Tensor) -> Tensor:
        """Real image ``(..., 2, H, W)`` to complex k-space ``(..., n_coils, H, W)``."""
        return self.scan.with_maps(self.maps())(image)

    def adjoint(self, measurement: Tensor) -> Tensor:
        """Complex k-space ``(..., n_coils, H, W)`` to the coil-combined image ``(..., 2, H, W)``."""
        return self.scan.with_maps(self.maps()).adjoint(measurement)

    @property
    def n_measured(self) -> int:
        """Complex samples measured, over all coils."""
        return self.scan.n_measured

    @property
    def partition(self) -> Partition:
        """The partition of the scan's operator."""
        return self.scan.partition


class JointAdaptation(AdaptationInferer):
    r"""IMJENSE (Feng et al., IEEE TMI 2023): image and coil maps fitted together to one multi-coil scan.

    .. math:: \hat x, \hat a = \arg\min_{\theta, a} \frac1n \|M F (s_c(a) \odot x_\theta) - y\|_1 +
        \lambda\, \mathrm{TV}(x_\theta)

    Nothing but the k-space is used: no coil maps and no other scan. The authors' coil coefficients start at random,
    their polynomials go up to degree 15, and they put the measured samples back into the result.

    Args:
        loss: the measurement loss, with :math:`\lambda`.
        degree: degree of the coil polynomials along each axis.
        coil_lr: Adam's learning rate for their coefficients.
        **options: of :class:`~disinr_monai.fitting.adaptation.AdaptationInferer`.
    """

    def __init__(self, loss: MeasurementLoss, degree: int = 8, coil_lr: float = 0.001, **options: Any) -> None:
        super().__init__(loss, **options)
        if degree < 0 or degree != int(degree) or coil_lr <= 0:
            raise ValueError(f"JointAdaptation: expected degree >= 0 and coil_lr > 0, found {degree}, {coil_lr}")
        self.degree, self.coil_lr = int(degree), coil_lr

    def reconstruct(self, points: Tensor, network: nn.Module, case: Mapping[str, Any]) -> Tensor:
        """Fit image and coil maps; the image ``(2, H, W)`` on ``points`` ``(1, 2, H, W)``."""
        scan = case["scan"]
        # The measurement comes in units that were found with the coil maps; here its own size is the unit.
        unit = torch.quantile(torch.linalg.vector_norm(ifft2c(scan.measurement), dim=0), 0.999)
        scan = Scan(scan.operator, scan.measurement / unit)
        return unit * super().reconstruct(points, network, {**case, "scan": scan})

    def start_scan(self, scan: Scan) -> tuple[Scan, list[dict[str, Any]]]:
        """Scan with polynomial coil maps, which are fitted too.

        Raises:
            InputError: not a multi-coil MRI scan.
        """
        if not isinstance(scan.operator, MultiCoilFourier):
            raise InputError(
                f"imjense: expected a multi-coil Cartesian MRI scan, found {type(scan.operator).__name__}; "
                "use configs/mri.json"
            )
        if scan.operator.domain_shape[0] > 2:
            raise InputError(
                "imjense: expected an object inside the field of view, found one that wraps around it (2 sets of coil "
                "maps), which its coil polynomials cannot explain; use --map_sets 1 to fit it nevertheless"
            )
        coils = PolynomialCoils(scan.operator, scan.measurement, self.degree)
        return Scan(coils, scan.measurement), [{"params": [coils.coefficients], "lr": self.coil_lr}]
