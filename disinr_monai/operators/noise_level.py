"""How large the noise of a measurement is, from the measurement alone."""

from __future__ import annotations

import math

import torch
from torch import Tensor

# Share of a readout's field of view that must be free of the object, and how many readouts that takes.
_FREE, _FEWEST = 1 / 16, 16
_OUTERMOST = 0.1
# Of a normal variable squared: its median.
_MEDIAN_CHI = 0.45494
_FOURTH_DIFFERENCE = torch.tensor([1.0, -4.0, 6.0, -4.0, 1.0]) / math.sqrt(70)


def kspace_noise(samples: Tensor, radius: Tensor, axes: tuple[int, ...] = (1, 2)) -> Tensor:
    r"""Variance of complex white noise in k-space, mean over the coils.

    The smallest of what each of these shows, because a signal only adds to it:

    * readouts, where there are whole ones: transformed along them with a Hann window :math:`w` the signal ends where
      the object does, so the part of the field of view with the least power,
      :math:`\min_r \overline{|F^{-1} w\, y|^2}(r) / \overline{w^2}`, shows noise even where the outermost samples hold
      signal; once of all readouts and once of the outer half;
    * the outermost tenth of the samples: median power over :math:`\ln 2` in each coil. Where there are no readouts the
      signal that they hold is taken off: a power law of the radius plus a constant is fitted to the outer half. It can
      explain away all, so a quarter of the power is kept at least.

    Samples that are exactly 0 in all coils (zero filling, an interpolated matrix, an elliptical edge) count as not
    measured. Coils may differ in noise and share it: the result is the mean of the diagonal of their covariance. Noise
    that a file's filter has shaped is no longer white and not found.

    Args:
        samples: complex ``(n_coils, A, B)``.
        radius: distance of each sample from the centre of k-space, ``(A, B)``; 1 is the edge of an axis.
        axes: axes of ``samples`` (1, 2) along which readouts may run.

    Returns:
        A number; 0 if all samples are 0.
    """
    measured = (samples != 0).any(0)
    if not bool(measured.any()):
        return torch.zeros((), device=samples.device)
    edge = _outermost(samples, radius, measured)
    found = []
    for axis in axes:
        lines, taken = samples.movedim(axis, -1), measured.movedim(axis - 1, -1)
        whole = _whole(taken)
        near = radius.movedim(axis - 1, -1).masked_fill(~taken, math.inf).amin(-1)
        for chosen in (whole, whole & (near > float(near[whole].median()) if bool(whole.any()) else whole)):
            if int(chosen.sum()) >= 1 and taken.shape[-1] >= _FEWEST:
                found.append(_free_field(lines[:, chosen], taken[chosen]))
    if not found:
        constant = _below_power_law(samples, radius, measured)
        found = [edge if constant is None else constant.clamp(min=edge / 4)]
    return torch.stack((edge, *found)).min()


def _outermost(samples: Tensor, radius: Tensor, measured: Tensor) -> Tensor:
    reach = torch.sort(radius[measured]).values
    outer = measured & (radius >= reach[min(int((1 - _OUTERMOST) * len(reach)), len(reach) - 1)])
    return _median_power(samples[:, outer])


def _median_power(samples: Tensor) -> Tensor:
    return samples.abs().square().median(dim=1).values.mean() / math.log(2)


def _below_power_law(samples: Tensor, radius: Tensor, measured: Tensor, n_rings: int = 16) -> Tensor | None:
    """The constant of a power law plus a constant, fitted to the median power of rings in the outer half."""
    values, distance = samples[:, measured], radius[measured]
    order = torch.argsort(distance)
    order = order[distance[order] > 0.5]
    if len(order) < _FEWEST * n_rings:
        return None
    rings = torch.tensor_split(order, n_rings)
    level = torch.stack([_median_power(values[:, ring]) for ring in rings]).double()
    where = torch.stack([distance[ring].mean() for ring in rings]).double()
    fits = []
    for power in torch.arange(2, 6.1, 0.25):
        law = (where / where[-1]) ** -power
        columns = torch.stack((law, torch.ones_like(law)), 1) / level[:, None]  # relative errors
        both = torch.linalg.lstsq(columns, torch.ones_like(level)[:, None]).solution[:, 0]
        if both[1] < 0:
            both = torch.stack((columns[:, 0].sum() / columns[:, 0].square().sum(), torch.zeros_like(both[0])))
        elif both[0] < 0:
            both = torch.stack((torch.zeros_like(both[0]), columns[:, 1].sum() / columns[:, 1].square().sum()))
        fits.append((float((columns @ both - 1).square().sum()), both[1]))
    return min(fits, key=lambda fit: fit[0])[1].to(samples.real.dtype)


def _whole(taken: Tensor) -> Tensor:
    """Readouts ``(L, N)`` measured without a gap over at least half of the longest one, ``(L,)``."""
    count = taken.sum(-1)
    place = torch.arange(taken.shape[-1], device=taken.device)
    first = torch.where(taken, place, taken.shape[-1]).amin(-1)
    last = torch.where(taken, place, -1).amax(-1)
    return (count == last - first + 1) & (count >= max(int(count.max()) / 2, taken.shape[-1] / 4, 1))


def _free_field(lines: Tensor, taken: Tensor) -> Tensor:
    """Mean power of readouts ``(n_coils, L, N)`` in the part of the field of view that has the least of it."""
    n = lines.shape[-1]
    place = torch.arange(n, device=lines.device, dtype=torch.float64)
    count = taken.sum(-1, keepdim=True)
    first = taken.to(torch.int8).argmax(-1, keepdim=True)
    window = (torch.sin(math.pi * (place - first + 1) / (count + 1)) ** 2 * taken).to(lines.real.dtype)
    images = torch.fft.ifft(lines * window, norm="ortho")
    power = images.abs().square().mean((0, 1)) / window.square().mean()
    width = max(round(_FREE * n), 1)
    # Circular: the ends of a field of view are neighbours.
    means = torch.cat((power, power[: width - 1])).unfold(0, width, 1).mean(-1)
    # All parts that are about as low: the mean of the field around the object, not its lowest chance value.
    return means[means <= 1.25 * means.min()].mean()


def ray_noise(values: Tensor, weights: Tensor | None = None) -> Tensor:
    r"""Variance of the noise of line integrals ``(1, n_views, ..., n_detectors)``, of each ray.

    From fourth differences :math:`d` along the detector, which have the variance of the noise and hardly any of the
    object: with weights :math:`w` it is :math:`c / w`, :math:`c = \mathrm{median}(w\,d^2) / 0.455`; without them the
    counts of a ray fall with its value, so :math:`\log σ^2 = a + b\,y`, :math:`b \ge 0`, is fitted to the medians of
    rays of like value.
    """
    n = values.shape[-1]
    if n < 5:
        return torch.zeros_like(values)
    kernel = _FOURTH_DIFFERENCE.to(values)
    squares = (values.unfold(-1, 5, 1) * kernel).sum(-1).square()
    if weights is not None:
        return (weights[..., 2 : n - 2] * squares).median() / _MEDIAN_CHI / weights.clamp(min=1e-12)
    y, order = values[..., 2 : n - 2].flatten().sort()
    groups = [part for part in torch.tensor_split(torch.arange(len(y)), 16) if len(part)]
    level = torch.stack([squares.flatten()[order[g]].median() for g in groups]) / _MEDIAN_CHI
    middle = torch.stack([y[g].mean() for g in groups])
    if not bool((level > 0).all()) or float(middle.std()) == 0:
        return level.mean().expand(values.shape)
    level, spread = level.log(), middle - middle.mean()
    slope = ((spread * level).sum() / spread.square().sum()).clamp(min=0)
    return torch.exp(level.mean() + slope * (values.clamp(float(y[0]), float(y[-1])) - middle.mean()))
