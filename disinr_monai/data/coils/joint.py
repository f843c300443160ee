from __future__ import annotations

import torch
from torch import Tensor

from disinr_monai.errors import InputError
from disinr_monai.grid import centre_block
from disinr_monai.numerics.conjugate_gradients import conjugate_gradients
from disinr_monai.operators import fft2c, ifft2c
from disinr_monai.operators.calibration import acs_size

_WEIGHT, _POWER, _SCALE = 220.0, 16, 200
_UNIT = 100.0
_MIDDLE = 96


def joint_maps(kspace: Tensor, mask: Tensor, n_newton: int = 10, n_cg: int = 40, name: str = "kspace") -> Tensor:
    r"""Coil sensitivity maps of a scan without a calibration region, estimated together with the image.

    .. math:: F(ρ, \hat c) = M\,\mathcal F (ρ\, c_j)_j, \qquad
        c_j = \mathcal F^{-1} (1 + 220\,\|k\|^2)^{-16}\, \hat c_j

    (:math:`k` in cycles per field of view over 200) is inverted by
    the iteratively regularised Gauss-Newton method (Uecker et al., Magn. Reson. Med. 60:674, 2008):

    .. math:: (DF^H DF + α_n) \, Δx = DF^H (y - F(x_n)) + α_n (x_0 - x_n), \qquad α_n = 2^{-n}

    from :math:`ρ = 1`, :math:`\hat c = 0`. The weight keeps the coils smooth, so that every sample helps to calibrate,
    not only those of a fully sampled centre. Only the middle 96 x 96 of k-space
    is used, which is where coils show.

    Args:
        kspace: complex ``(n_coils, H, W)``, zero where nothing was measured.
        mask: real or boolean ``(H, W)``.
        n_newton: Gauss-Newton steps.
        n_cg: conjugate gradient steps in each.
        name: what error messages call the data.

    Returns:
        complex64 ``(n_coils, H, W)``, root sum of squares 1, the phase relative to the strongest combination of coils.

    Raises:
        InputError: not even 2 x 2 samples in the centre, without which the estimate goes astray, or it is not finite.
    """
    if min(acs_size(mask.cpu().numpy())) < 2:
        raise InputError(
            f"{name}: maps: joint needs at least 2 neighbouring lines in the centre of k-space, found fewer; give "
            "`sensitivity_maps` in the file"
        )
    kspace, mask = kspace.to(torch.complex64), mask.to(kspace.device, torch.float32)
    if len(kspace) == 1:
        return torch.ones_like(kspace)
    shape = kspace.shape[1:]
    middle = tuple(centre_block(n, min(n, _MIDDLE)) for n in shape)
    y, mask = kspace[:, *middle], mask[middle]
    y = y * (_UNIT / torch.linalg.vector_norm(y).clamp(min=1e-30))
    axes = [(torch.arange(n, device=y.device) - n // 2) / _SCALE for n in mask.shape]
    smooth = (1 + _WEIGHT * (axes[0][:, None] ** 2 + axes[1] ** 2)) ** -_POWER

    def coils(weighted: Tensor) -> Tensor:
        return ifft2c(smooth * weighted)

    # The unknowns in one tensor: image first, then the weighted spectra of the coils.
    start = torch.zeros((len(y) + 1, *mask.shape), dtype=torch.complex64, device=y.device)
    start[0] = 1
    x = start.clone()
    for n in range(n_newton):
        image, maps, alpha = x[0], coils(x[1:]), 0.5**n

        def derivative(d: Tensor, image: Tensor = image, maps: Tensor = maps) -> Tensor:
            return mask * fft2c(d[0] * maps + image * coils(d[1:]))

        def adjoint(r: Tensor, image: Tensor = image, maps: Tensor = maps) -> Tensor:
            low = ifft2c(mask * r)
            both = (maps.conj() * low).sum(0)[None], smooth * fft2c(image.conj() * low)
            return torch.cat(both)

        right = adjoint(y - mask * fft2c(image * maps)) + alpha * (start - x)
        x = x + conjugate_gradients(lambda d, a=alpha: adjoint(derivative(d)) + a * d, right, n_cg, tolerance=1e-3)
    spectra = torch.zeros((len(y), *shape), dtype=torch.complex64, device=y.device)
    spectra[:, *middle] = smooth * x[1:]
    maps, low = ifft2c(spectra), (coils(x[1:]) * x[0]).flatten(1)
    size = torch.linalg.vector_norm(maps, dim=0)
    if not bool(torch.isfinite(size).all()) or not float(size.max()) > 0:
        raise InputError(f"{name}: the joint estimate of the coil maps failed (maps = joint); give `sensitivity_maps`")
    strongest = torch.linalg.eigh(low @ low.conj().t())[1][:, -1]
    phase = torch.einsum("c,chw->hw", strongest.conj(), maps)
    return maps / size.clamp(min=1e-6 * float(size.max())) * torch.polar(torch.ones_like(size), -phase.angle())
