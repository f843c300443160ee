"""Reversed lines: phase correction, the order of their samples, and everything that is left out."""

from __future__ import annotations

import logging

import numpy as np
import pytest

from disinr_monai.data import AcquireMRI, SkipFailed, list_cases
from disinr_monai.data.readers.ismrmrd import read_ismrmrd
from disinr_monai.errors import InputError
from disinr_monai.methods import TotalVariation
from tests.data.readers.ismrmrd_files import Writer
from tests.field_reports.raw_mri import N, coil_images, fourier, noisy, psnr, rss, write_echo_train, write_lines, xml

TRUTH = np.sqrt((np.abs(coil_images()) ** 2).sum(0))
DELAYS = [(0.6, 1.3), (0.0, 0.3), (3.0, 0.0), (-1.2, -2.0)]


@pytest.mark.parametrize("n_corrections", [2, 3, 4])
@pytest.mark.parametrize(("constant", "delay"), DELAYS)
def test_phase_correction_lines_remove_the_ghost(tmp_path, constant, delay, n_corrections):
    clean = psnr(rss(read_ismrmrd(write_echo_train(tmp_path / "clean.h5", coil_images())).kspace), TRUTH)
    scan = read_ismrmrd(write_echo_train(tmp_path / "epi.h5", coil_images(), constant, delay, n_corrections))
    assert psnr(rss(scan.kspace), TRUTH) > clean - 0.5 > 30
    assert f"from {n_corrections} phase-correction lines" in scan.info["read_as"]
    assert "left_out" not in scan.info
    assert "unverified" not in scan.info


def test_off_resonance_between_the_echoes_is_no_phase_of_the_reversed_lines(tmp_path):
    """Every echo is 0.2 rad later than the one before; in the image that is a shift."""
    kspace = fourier(coil_images())
    with Writer(tmp_path / "epi.h5", xml(), np.eye(3), np.zeros(3)) as writer:
        for number, line in enumerate([N // 2] * 3 + list(range(N))):
            is_reverse = number % 2 == 0 if number < 3 else line % 2 == 1
            data = kspace[:, :: -1 if is_reverse else 1, line] * np.exp(
                0.2j * (number - N // 2 if number > 2 else number)
            )
            flags = (22,) * is_reverse + (24,) * (number < 3)
            writer.line(data, centre=N // 2, flags=flags, kspace_encode_step_1=line)
    corrected = read_ismrmrd(tmp_path / "epi.h5")
    assert "corrected by +0.00 rad" in corrected.info["read_as"].replace("-0.00", "+0.00")


@pytest.mark.parametrize(("constant", "delay"), DELAYS[:2])
def test_without_phase_correction_a_measurable_difference_is_refused(tmp_path, constant, delay):
    path = write_echo_train(tmp_path / "epi.h5", coil_images(), constant, delay)
    with pytest.raises(InputError, match=f"found them \\{delay:+.2f} samples and .*no phase-correction lines"):
        read_ismrmrd(path)


@pytest.mark.parametrize("step", [1, 2, 3])
@pytest.mark.parametrize("width", [10, 22])
def test_consistent_lines_without_phase_correction_are_not_refused_and_marked(tmp_path, step, width):
    images = coil_images(width)
    scan = read_ismrmrd(write_echo_train(tmp_path / "epi.h5", images, step=step))
    np.testing.assert_allclose(scan.kspace, noisy(fourier(images)) * scan.mask, atol=1e-4)
    assert scan.info["unverified"] == ["phase of the reversed lines (no phase-correction lines)"]


def test_phase_correction_lines_that_do_not_belong_to_the_scan_are_refused(tmp_path):
    """Corrected lines together with the uncorrected phase-correction lines of before."""
    kspace, late = fourier(coil_images()), fourier(coil_images() * np.exp(0.9j))
    with Writer(tmp_path / "epi.h5", xml(), np.eye(3), np.zeros(3)) as writer:
        for number, line in enumerate([N // 2] * 3 + list(range(N))):
            is_reverse = number % 2 == 0 if number < 3 else line % 2 == 1
            data = (late if number < 3 and is_reverse else kspace)[:, :: -1 if is_reverse else 1, line]
            flags = (22,) * is_reverse + (24,) * (number < 3)
            writer.line(data, centre=N // 2, flags=flags, kspace_encode_step_1=line)
    with pytest.raises(InputError, match=r"-0\.90 rad apart after their phase correction"):
        read_ismrmrd(tmp_path / "epi.h5")


@pytest.mark.parametrize("n_corrections", [0, 3])
@pytest.mark.parametrize("missing", [0, 8])
@pytest.mark.parametrize("order", ["forward", "acquired", "turned"])
def test_the_order_of_reversed_samples_is_decided_from_the_data(tmp_path, order, missing, n_corrections):
    path = write_echo_train(tmp_path / "epi.h5", coil_images(), 0, 0, n_corrections, order, missing)
    scan = read_ismrmrd(path)
    expected = noisy(fourier(coil_images()))
    rows = slice(missing, None if (order, n_corrections) != ("acquired", 3) else -1)
    np.testing.assert_allclose(scan.kspace[:, rows], expected[:, rows], atol=0.08 if n_corrections else 1e-4)
    said = {"forward": "as in forward ones", "acquired": "as acquired", "turned": "had been turned round"}
    if missing or not n_corrections:
        assert said[order] in scan.info["read_as"]


def test_lines_that_make_no_image_are_counted_by_kind(tmp_path, caplog):
    kspace = noisy(fourier(coil_images()))
    kinds = {23: 2, 24: 3, 26: 1, 27: 4, 28: 1, 29: 2, 30: 1, 31: 1}
    path = tmp_path / "scan.h5"
    with Writer(path, xml(), np.eye(3), np.zeros(3)) as writer:
        for flag, count in kinds.items():
            for _ in range(count):
                writer.line(kspace[..., 3] * 50, flags=(flag,), kspace_encode_step_1=3)
    write_lines(path, kspace)
    scan = read_ismrmrd(path)
    np.testing.assert_allclose(scan.kspace, kspace, atol=1e-4)
    assert scan.info["left_out"] == {
        "navigation": 2, "phase-correction": 3, "HP feedback": 1, "dummy": 4, "RT feedback": 1,
        "surface-coil correction": 2, "phase-stabilisation reference": 1, "phase-stabilisation": 1,
    }  # fmt: skip
    with caplog.at_level(logging.INFO):
        (listed,) = list_cases(path, "mri")
    assert "left out: 2 x navigation, 3 x phase-correction, 1 x HP feedback, 4 x dummy" in caplog.text
    case = SkipFailed(AcquireMRI(acs=12, acceleration=2))(listed)
    assert "left out: 2 x navigation, 3 x phase-correction" in case["info"]["read_as"]


def test_an_echo_train_is_reconstructed_as_well_as_one_without_delay(tmp_path):
    """Field report 22: 13.8 dB instead of 39.3, with a reference that had the same ghost."""
    images = coil_images()
    results = []
    for name, constant, delay in (("clean", 0.0, 0.0), ("epi", 0.6, 1.3)):
        path = write_echo_train(tmp_path / f"{name}.h5", images, constant, delay, n_corrections=3)
        case = AcquireMRI(acceleration=2, acs=12)(list_cases(path, "mri")[0])
        image = TotalVariation()(None, None, case=case)[0].norm(dim=0).numpy() * case["output_scale"]
        results.append(psnr(image, TRUTH))
        assert psnr(case["reference"][0].numpy() * case["output_scale"], TRUTH) > 30
    assert results[1] > results[0] - 0.5
