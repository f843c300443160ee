"""Phase difference of reversed and forward lines of an echo train, and its correction."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from disinr_monai.data.readers.ismrmrd_places import (
    ORDERS,
    distinct_readouts,
    is_reversed,
    readout_rows,
    readout_window,
)
from disinr_monai.errors import InputError

if TYPE_CHECKING:
    from disinr_monai.data.readers.ismrmrd_acquisitions import IsmrmrdScan

_FINER = 32  # the slope is looked for in steps of so small a part of a sample
_SHARPER, _MUCH_SHARPER = 0.97, 0.85  # of the sum of magnitudes: less ghost; where lines are missing between
_LEAST = 0.1  # radians, or samples: smaller differences are left


@dataclass(frozen=True)
class Reversal:
    r"""Correction of the reversed lines of one slice.

    In the image along the readout, pixel x of n: :math:`r(x) = f(x)\, e^{i (a + b (x - \lfloor n/2 \rfloor))}`.

    Attributes:
        order: of :func:`~disinr_monai.data.readers.ismrmrd_places.readout_window`.
        constant: a, radians.
        slope: b, radians a pixel; :math:`bn/2π` samples of delay.
        note: what was found, as text; empty where nothing was to be decided.
        n_corrections: phase-correction lines that were used.
    """

    order: str = "forward"
    constant: float = 0.0
    slope: float = 0.0
    note: str = ""
    n_corrections: int = 0

    def apply(self, lines: NDArray) -> NDArray[np.complex64]:
        """Reversed lines ``(..., n)`` of k-space as a forward readout would have measured them."""
        if self.constant == self.slope == 0:
            return lines
        x = np.arange(lines.shape[-1]) - lines.shape[-1] // 2
        image = _image(lines, -1) * np.exp(-1j * (self.constant + self.slope * x))
        kspace = np.fft.fftshift(np.fft.fft(np.fft.ifftshift(image, axes=-1), axis=-1, norm="ortho"), axes=-1)
        return kspace.astype(np.complex64)

    def delay(self, n: int) -> float:
        """Samples by which reversed readouts of ``n`` are late."""
        return self.slope * n / (2 * np.pi)


def find_reversal(
    scan: IsmrmrdScan, chosen: NDArray[np.int64], places: NDArray[np.int64], corrections: NDArray[np.int64]
) -> Reversal:
    """Decide from the data how the reversed lines of a slice become forward ones.

    The order of the samples is the one with the least ghost (smallest sum of the magnitudes of the zero-filled image);
    the constant and linear phase come from neighbouring forward and reversed phase-correction lines, over all coils
    (Ahn and Cho, IEEE Trans. Med. Imaging 6:32, 1987, with the peak of their correlation in place of its first lag).
    Then the imaging lines must agree: the difference between neighbouring lines of both directions (Buonocore and Gao,
    Magn. Reson. Med. 38:89, 1997) must not be one that would lessen the ghost.

    Args:
        scan: the scan.
        chosen: imaging acquisitions of one slice, or of one partition.
        places: their lines.
        corrections: phase-correction acquisitions of the same slice.

    Raises:
        InputError: no phase correction, or one that does not fit, and lines of both directions that disagree.
    """
    turned = is_reversed(scan.heads[chosen]).astype(bool)
    if not turned.any():
        return Reversal()
    orders = _different_orders(scan, chosen)
    if turned.all():
        return _one_direction(scan, chosen, orders)
    best = None
    for order in orders:
        constant, slope, n_used = _of_corrections(scan, corrections, order)
        found = Reversal(order, constant, slope, n_corrections=n_used)
        forward, backward = _hybrid(scan, chosen, places, order)
        ghost = _magnitude(forward, backward, found)
        n = forward.shape[1]
        # Orders that differ by whole samples only make one image after phase correction: the smaller delay is likelier.
        sharper = _SHARPER if _neighbours(forward, backward).any() else _MUCH_SHARPER
        better = best is None or ghost < sharper * best[0]
        alike = best is not None and ghost < 1.005 * best[0] and abs(found.delay(n)) + 1.5 < abs(best[1].delay(n))
        if better or alike:
            best = ghost, found, forward, backward
    ghost, found, forward, backward = best
    constant, slope = _between_lines(forward, backward, found)
    rests = [Reversal(found.order, found.constant + c, found.slope + slope) for c in (constant, constant + np.pi)]
    sharpest = min(rests, key=lambda rest: _magnitude(forward, backward, rest))
    off = _wrapped(sharpest.constant - found.constant)
    late = sharpest.delay(forward.shape[1]) - found.delay(forward.shape[1])
    if max(abs(off), abs(late)) > _LEAST and _magnitude(forward, backward, sharpest) < _SHARPER * ghost:
        after = "after their phase correction" if found.n_corrections else "and no phase-correction lines (flag 24)"
        raise InputError(
            f"{scan.path}: expected reversed lines that agree with the forward ones, found them {late:+.2f} samples "
            f"and {off:+.2f} rad apart {after}; correct the lines, or write phase-correction lines too"
        )
    said = [_ORDER_NOTES[found.order]] * (len(orders) > 1)
    if found.n_corrections:
        said += [
            f"reversed lines corrected by {found.constant:+.2f} rad and {found.delay(forward.shape[1]):+.2f} samples "
            f"from {found.n_corrections} phase-correction lines"
        ]
    elif _neighbours(forward, backward).any():
        said += ["reversed lines without phase correction, no difference from the forward ones found"]
    else:
        said += ["reversed lines without phase correction, taken as they are"]
    return Reversal(found.order, found.constant, found.slope, ", ".join(said), found.n_corrections)


def corrections_of(scan: IsmrmrdScan, chosen: NDArray[np.int64], number: int) -> NDArray[np.int64]:
    """Phase-correction acquisitions of some imaging ones: of their slice and counters, where there are any."""

    def fits(head: NDArray) -> bool:
        try:
            readout_rows(head, scan.encoding.encoded.matrix[0], "forward", scan.path)
        except InputError:
            return False
        return True

    n_coils = scan.heads["active_channels"][chosen[0]]
    found = scan.corrections[scan.heads["active_channels"][scan.corrections] == n_coils]
    found = found[np.array([fits(head) for head in scan.heads[found]], bool)]
    of_slice = scan.slices[found] == number
    same = of_slice.copy()
    for name, value in scan.settings.items():
        same &= scan.heads["idx"][name][found] == value
    for few in (same, of_slice):
        if len(np.unique(is_reversed(scan.heads[found[few]]))) == 2:
            return found[few]
    return found


_ORDER_NOTES = {
    "forward": "center_sample of reversed lines counted as in forward ones",
    "acquired": "center_sample of reversed lines counted as acquired",
    "turned": "reversed lines had been turned round",
}


def _different_orders(scan: IsmrmrdScan, chosen: NDArray[np.int64]) -> list[str]:
    """Orders of reversed samples that would not place them alike."""
    heads = scan.heads[chosen][is_reversed(scan.heads[chosen]).astype(bool)]
    found: dict[tuple, str] = {}
    n = scan.encoding.encoded.matrix[0]
    for order in ORDERS:
        kept, centre, is_turned = readout_window(heads[0], order)
        key = (kept.start, kept.stop, centre, is_turned)
        try:
            for head in distinct_readouts(heads):
                readout_rows(head, n, order, scan.path)
        except InputError:
            continue
        found.setdefault(key, order)
    return list(found.values()) or ["forward"]  # of which the reading then says what is wrong


def _one_direction(scan: IsmrmrdScan, chosen: NDArray[np.int64], orders: list[str]) -> Reversal:
    """All lines are reversed: their strongest sample is the central one."""
    n = scan.encoding.encoded.matrix[0]

    def off(order: str) -> int:
        energy = np.zeros(n)
        for _, lines, _ in scan.placed_lines(chosen, order):
            energy += (np.abs(lines.astype(np.complex128)) ** 2).sum((0, 1))
        return abs(int(energy.argmax()) - n // 2)

    offs = {order: off(order) for order in orders}
    order = min(offs, key=lambda name: offs[name]) if min(offs.values()) + 1 < offs[orders[0]] else orders[0]
    return Reversal(order, note=f"all lines are reversed, {_ORDER_NOTES[order]}")


def _image(kspace: NDArray, axis: int) -> NDArray[np.complex128]:
    """Image along one axis of k-space."""
    shifted = np.fft.ifftshift(kspace.astype(np.complex128), axes=axis)
    return np.fft.fftshift(np.fft.ifft(shifted, axis=axis, norm="ortho"), axes=axis)


def _hybrid(
    scan: IsmrmrdScan, chosen: NDArray[np.int64], places: NDArray[np.int64], order: str
) -> tuple[NDArray[np.complex128], NDArray[np.complex128]]:
    """Forward and reversed lines ``(coil, x, line)``, the image along the readout, averaged where there are several."""
    lines = np.concatenate([lines for _, lines, _ in scan.placed_lines(chosen, order)]).astype(np.complex128)
    lines = _image(lines / max(np.abs(lines).max(), np.finfo(float).tiny), -1)
    turned = is_reversed(scan.heads[chosen]).astype(bool)
    count = np.maximum(np.bincount(places, minlength=scan.encoding.encoded.matrix[1]), 1)
    parts = np.zeros((2, len(count), *lines.shape[1:]), np.complex128)
    for direction, of_direction in enumerate((~turned, turned)):
        np.add.at(parts[direction], places[of_direction], lines[of_direction])
    forward, backward = (parts / count[:, None, None]).transpose(0, 2, 3, 1)
    return forward, backward


def _magnitude(forward: NDArray, backward: NDArray, reversal: Reversal) -> float:
    """Sum of the magnitudes of the zero-filled image, which a ghost makes larger."""
    x = np.arange(forward.shape[1]) - forward.shape[1] // 2
    phase = np.exp(-1j * (reversal.constant + reversal.slope * x))[:, None]
    return float(np.sqrt((np.abs(_image(forward + phase * backward, -1)) ** 2).sum(0)).sum())


def _peak(product: NDArray) -> tuple[float, float]:
    """Constant and slope of the phase of a signal ``(x,)``, weighted by its magnitude."""
    n = len(product)
    spectrum = np.abs(np.fft.fft(product, _FINER * n))
    at = int(spectrum.argmax())
    left, middle, right = spectrum[at - 1], spectrum[at], spectrum[(at + 1) % len(spectrum)]
    bend = left - 2 * middle + right
    step = at + (0.5 * (left - right) / bend if bend else 0.0)
    slope = _wrapped(2 * np.pi * step / (_FINER * n))
    x = np.arange(n) - n // 2
    return float(np.angle((product * np.exp(-1j * slope * x)).sum())), slope


def _wrapped(angle: float) -> float:
    return float((angle + np.pi) % (2 * np.pi) - np.pi)


def _of_corrections(scan: IsmrmrdScan, corrections: NDArray[np.int64], order: str) -> tuple[float, float, int]:
    """Constant and slope between forward and reversed phase-correction lines, and how many were used.

    A line is compared with the mean of its two neighbours in time, so that the phase that grows from echo to echo
    (off-resonance) cancels.
    """
    turned = is_reversed(scan.heads[corrections]).astype(bool)
    if not turned.any() or turned.all():
        return 0.0, 0.0, 0
    lines = _image(np.concatenate([lines for _, lines, _ in scan.placed_lines(corrections, order)]), -1)
    lines = lines / max(np.abs(lines).max(), np.finfo(float).tiny)
    next_to = (np.diff(corrections) == 1) & (turned[1:] != turned[:-1])
    middles = np.flatnonzero(next_to[1:] & next_to[:-1]) + 1
    if len(middles):
        pairs = [(at, (lines[at - 1] + lines[at + 1]) / 2) for at in middles]
    else:
        pairs = [(at, lines[at + 1]) for at in np.flatnonzero(next_to)]
    product = sum(
        ((lines[at] * other.conj()) if turned[at] else (other * lines[at].conj())).sum(0) for at, other in pairs
    )
    if not pairs:
        product = (lines[turned].mean(0) * lines[~turned].mean(0).conj()).sum(0)
    return *_peak(product), len(corrections)


def _between_lines(forward: NDArray, backward: NDArray, reversal: Reversal) -> tuple[float, float]:
    """Constant (up to π) and slope that are left between neighbouring imaging lines of both directions.

    Zero where no lines are neighbours: of an undersampled scan other lines differ anyway.
    """
    x = np.arange(forward.shape[1]) - forward.shape[1] // 2
    backward = backward * np.exp(-1j * (reversal.constant + reversal.slope * x))[:, None]
    has_forward, has_backward = forward.any((0, 1)), backward.any((0, 1))
    both = has_forward & has_backward
    if both.any():
        return _peak((backward[..., both] * forward[..., both].conj()).sum((0, 2)))
    changes = _neighbours(forward, backward)
    if not changes.any():
        return 0.0, 0.0
    products = np.zeros((2, len(x)), np.complex128)
    for at in np.flatnonzero(changes):
        after, to_backward = at + 1, int(has_backward[at + 1])
        first, second = (forward, backward) if to_backward else (backward, forward)
        products[to_backward] += (second[..., after] * first[..., at].conj()).sum(0)
    twice = products[1] * products[0].conj()
    constant, slope = _peak(twice / np.sqrt(np.maximum(np.abs(twice), np.finfo(float).tiny)))
    return constant / 2, slope / 2


def _neighbours(forward: NDArray, backward: NDArray) -> NDArray[np.bool_]:
    """Mask ``(lines - 1,)`` of lines that were, like the next one, measured in one direction only."""
    has_forward, has_backward = forward.any((0, 1)), backward.any((0, 1))
    return (has_forward[1:] & has_backward[:-1]) | (has_forward[:-1] & has_backward[1:])
