"""Projections as people have them: any order of views, and what is no line integral at all."""

from __future__ import annotations

import math
import re

import numpy as np
import pytest

from disinr_monai.data import AcquireCT
from disinr_monai.data.cases import list_cases
from disinr_monai.data.readers.sinogram import read_sinogram
from disinr_monai.errors import InputError
from disinr_monai.fitting.self_check import Residual, poor_fit
from disinr_monai.methods import DirectInverse, TotalVariation
from tests.field_reports.scans import DISCS, FAN, FULL_TURN, GOLDEN, integrals, measured_hu, write

HALF_TURN = np.arange(120) * math.pi / 120
TV = {"tv_weight": 1.2, "absolute": True, "non_negative": True, "n_iterations": 60}


def reconstruct(path, method=None, **given):
    (listed,) = list_cases(path, "ct", ct_geometry=given)
    case = AcquireCT(file_geometry=given)(listed)
    method = method or TotalVariation(**TV)
    image = method(None, None, case=case)
    assert image is not None, method.error
    return image[0], case, method


# --- Any order of views, any arc ---

REPEATED = np.repeat(FULL_TURN[::2], 2)
ORDERS = {
    "full turn": (FULL_TURN, {}),
    "clockwise": (-FULL_TURN, {}),
    "last view repeats the first": (np.linspace(0, 2 * math.pi, 121), {}),
    "golden angles": (GOLDEN, {"detector_offset": 0.5}),
    "small golden angles": (np.arange(120) * math.radians(23.628), {}),
    "golden angles in one turn": (GOLDEN % (2 * math.pi), {}),
    "random order": (np.random.default_rng(1).permutation(FULL_TURN), {}),
    "five turns": (np.arange(120) * math.radians(15.1), {}),
    "every view twice": (REPEATED, {}),
    "short scan": (np.linspace(0, math.radians(222), 120), {}),
    "half fan": (np.linspace(0, 2 * math.pi, 181), {"n": 100, "detector_offset": 80.0}),
    "half fan, other side, golden angles": (GOLDEN, {"n": 110, "detector_offset": -70.0}),
}


@pytest.mark.parametrize("name", ORDERS)
def test_the_order_of_views_does_not_matter(tmp_path, name):
    angles, options = ORDERS[name]
    n = options.pop("n", 200) if (options := dict(options)) else 200
    sinogram = integrals(angles, n, **FAN, **options)
    path = write(tmp_path / "a.h5", sinogram, angles, **FAN, **options)
    image, case, method = reconstruct(path)
    assert measured_hu(image) == pytest.approx((0, 200, -500), abs=6)
    assert poor_fit(method.residual) == ""
    assert not [text for text in case["info"]["unverified"] if "lengths" in text or "integrals" in text]
    image, _, _ = reconstruct(path, DirectInverse())
    assert measured_hu(image) == pytest.approx((0, 200, -500), abs=30)


@pytest.mark.parametrize("n_repeats", [1, 2, 3])
def test_repeated_views_count_once(tmp_path, n_repeats):
    """12 directions of a parallel beam, 30 degrees apart: repeats bring no new ones, and no gap between arcs."""
    angles = np.tile(np.arange(12) * math.pi / 6, n_repeats) + np.repeat(np.arange(n_repeats) * 1e-5, 12)
    path = write(tmp_path / "a.h5", integrals(angles), angles)
    image, _, _ = reconstruct(path, DirectInverse())
    assert measured_hu(image)[0] == pytest.approx(0, abs=15)


# --- The unit of the angles ---


@pytest.mark.parametrize("order", [FULL_TURN, HALF_TURN, GOLDEN, FULL_TURN[::-1], np.linspace(0, math.pi, 120)])
def test_degrees_given_as_radians_are_told(tmp_path, order):
    path = write(tmp_path / "a.h5", integrals(order, **FAN), np.degrees(order), **FAN)
    with pytest.raises(InputError, match=r"a\.h5: `angles` must be in radians, .* degrees; name them `angles_deg`"):
        read_sinogram(path)
    image, _, _ = reconstruct(path, angles=order.tolist())
    assert measured_hu(image)[0] == pytest.approx(0, abs=6) or np.ptp(order) < 4


@pytest.mark.parametrize("order", [FULL_TURN, HALF_TURN, np.linspace(0, 2 * math.pi, 121)])
def test_radians_given_as_degrees_are_told(tmp_path, order):
    path = write(tmp_path / "a.h5", integrals(order), None, angles_deg=order)
    with pytest.raises(InputError, match=r"`angles_deg` must be in degrees, found .* as radians; name them `angles`"):
        read_sinogram(path)
    write(path, integrals(order), None, angles_deg=np.degrees(order))
    assert measured_hu(reconstruct(path)[0]) == pytest.approx((0, 200, -500), abs=8)


def test_an_object_that_looks_alike_from_everywhere(tmp_path, caplog):
    """Round numbers of degrees are refused; golden angles are taken, with a word."""
    disc = integrals(HALF_TURN, discs=DISCS[:1])
    with pytest.raises(InputError, match="round numbers of degrees"):
        read_sinogram(write(tmp_path / "a.h5", disc, np.arange(120) * 1.5))
    scan = read_sinogram(write(tmp_path / "a.h5", disc, GOLDEN))
    assert np.asarray(scan["geometry"].angles) == pytest.approx(GOLDEN)
    assert "taken for radians" in caplog.text


@pytest.mark.parametrize("arc", [6.28, 30.0])
def test_a_narrow_arc_in_degrees_passes(tmp_path, arc):
    angles = np.radians(np.linspace(0, arc, 60))
    scan = read_sinogram(write(tmp_path / "a.h5", integrals(angles, **FAN), None, angles_deg=np.degrees(angles), **FAN))
    assert np.ptp(scan["geometry"].angles) == pytest.approx(math.radians(arc))


# --- What is no line integral ---

RIGHT = integrals(HALF_TURN, 128)
WRONG = {
    "transmission": (np.exp(-RIGHT), "about 1 in air and lower through the object: transmission I / I0"),
    "transmission, not quite 1": (0.9 * np.exp(-RIGHT), "transmission I / I0"),
    "counts": (1e5 * np.exp(-RIGHT), "the largest .* in air and lower through the object: photon counts"),
    "detector values": (3.2 * np.exp(-RIGHT), "photon counts, detector values or their logarithm"),
    "logarithm of counts": (np.log(1e5) - RIGHT, "detector values or their logarithm"),
    "wrong sign": (-RIGHT, "negative through the object: the wrong sign"),
    "no air scan": (RIGHT - np.log(1e5), "lowest in air: the scan in air is missing"),
    "scaled integers": (1000 * RIGHT, "above 30 nothing gets through"),
    "exchanged axes": (RIGHT[:, 4:124].T, "the axes are exchanged"),
}


@pytest.mark.parametrize("name", WRONG)
def test_what_is_no_line_integral_is_named(tmp_path, name):
    sinogram, message = WRONG[name]
    with pytest.raises(InputError, match=message) as caught:
        read_sinogram(write(tmp_path / "a.h5", sinogram, HALF_TURN))
    assert "\n" not in str(caught.value)
    assert str(tmp_path / "a.h5") in str(caught.value)


def test_a_small_specimen_in_transmission_is_named(tmp_path):
    mouse = [(3.0, 1.0, 12.0, 0.02)]
    sinogram = integrals(HALF_TURN, 128, 0.4, mouse)
    with pytest.raises(InputError, match="transmission I / I0"):
        read_sinogram(write(tmp_path / "a.h5", np.exp(-sinogram), HALF_TURN, 0.4, pixel_spacing=0.8))
    scan = read_sinogram(write(tmp_path / "a.h5", sinogram, HALF_TURN, 0.4, pixel_spacing=0.8))
    assert [text for text in scan["unverified"] if "orientation" not in text and "HU" not in text] == []


TILTED = np.linspace(0, math.radians(40), 60)
METAL = [*DISCS, (0.0, -45.0, 6.0, 0.4)]
VALID = {
    "noisy": lambda: (integrals(HALF_TURN, 128, photons=300), HALF_TURN, {}),
    "dense implant": lambda: (integrals(HALF_TURN, 128, discs=METAL), HALF_TURN, {}),
    "photons run out": lambda: (np.where(integrals(HALF_TURN, 128, discs=METAL) > 5, 69.0, RIGHT), HALF_TURN, {}),
    "truncated": lambda: (integrals(HALF_TURN, 60), HALF_TURN, {}),
    "truncated, off centre": lambda: (integrals(HALF_TURN, 30, discs=[(40.0, 0.0, 90.0, 0.02)]), HALF_TURN, {}),
    "narrow arc, off centre": lambda: (integrals(TILTED, 128, discs=[(90.0, 30.0, 30.0, 0.02)]), TILTED, {}),
    "a pipe": lambda: (
        integrals(HALF_TURN, 128, discs=[(0.0, 0.0, 80.0, 0.05), (0.0, 0.0, 70.0, -0.05)]), HALF_TURN, {},
    ),
    "lungs": lambda: (
        integrals(HALF_TURN, 128, discs=[(0, 0, 110.0, 0.02), (45, 0, 40.0, -0.015), (-45, 0, 40.0, -0.015)]),
        HALF_TURN, {},
    ),
    "aluminium": lambda: (integrals(HALF_TURN, 128, discs=[(5.0, 0.0, 30.0, 0.07)]), HALF_TURN, {}),
    "steel": lambda: (
        integrals(HALF_TURN, 128, discs=[(5.0, 0.0, 20.0, 0.2)]), HALF_TURN, {"water_attenuation": 0.2},
    ),
    "air scan a little too low": lambda: (RIGHT - 0.02, HALF_TURN, {}),
    "few views": lambda: (integrals(np.arange(5.0), 128), np.arange(5.0), {}),
}  # fmt: skip


@pytest.mark.parametrize("name", VALID)
def test_valid_scans_pass(tmp_path, name):
    sinogram, angles, more = VALID[name]()
    scan = read_sinogram(write(tmp_path / "a.h5", sinogram, angles, **more))
    assert [text for text in scan["unverified"] if not text.startswith(("orientation", "scale in HU"))] == []


# --- Lengths ---


@pytest.mark.parametrize("fan", [{}, FAN])
def test_centimetres_are_doubted_and_metres_refused(tmp_path, fan):
    sinogram = integrals(FULL_TURN, 200, **fan)

    def scan(unit):
        values = {"detector_spacing": 2.0 * unit, "pixel_spacing": 4.0 * unit}
        return write(tmp_path / "a.h5", sinogram, FULL_TURN, **values, **{k: v * unit for k, v in fan.items()})

    assert "cm" not in " ".join(read_sinogram(scan(1.0))["unverified"])
    (doubt,) = [text for text in read_sinogram(scan(0.1))["unverified"] if "lengths" in text]
    assert "lengths in cm instead of mm?" in doubt
    assert re.search(r"0\.(19|20)\d? per mm", doubt)
    with pytest.raises(InputError, match="lengths in m; convert them, or give the `water_attenuation`"):
        read_sinogram(scan(0.001))
    with pytest.raises(InputError, match="lengths in micrometres"):
        read_sinogram(scan(1000.0))
    # Who says what the object is made of is believed.
    assert read_sinogram(scan(0.001), given={"water_attenuation": 20.0})["settings"]["water_attenuation"] == 20


# --- The self-check ---


def test_unknown_noise_is_not_nan_times():
    text = poor_fit(Residual("k-space", 0.2))
    assert "of noise nothing is known" in text
    assert "nan" not in text


@pytest.mark.parametrize("pixel", [4.0, 8.0])
def test_coarse_pixels_are_no_misfit_but_a_shifted_axis_is(tmp_path, pixel):
    grid = {"pixel_spacing": pixel, "image_shape": (int(256 / pixel),) * 2}
    sinogram = integrals(FULL_TURN, **FAN)
    _, _, method = reconstruct(write(tmp_path / "a.h5", sinogram, FULL_TURN, **FAN, **grid))
    assert poor_fit(method.residual) == ""
    for wrong in (np.roll(sinogram, 2, axis=1), np.where(np.arange(200) // 3 == 40, 0, sinogram), sinogram - 0.2):
        _, _, method = reconstruct(write(tmp_path / "a.h5", wrong, FULL_TURN, **FAN, **grid))
        assert "not explained by noise" in poor_fit(method.residual)
