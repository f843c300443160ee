"""Lines and samples of ISMRMRD files that do not lie where the header alone would put them."""

from __future__ import annotations

import numpy as np
import pytest

from disinr_monai.data import AcquireMRI, list_cases
from disinr_monai.data.readers.ismrmrd import read_ismrmrd
from disinr_monai.errors import InputError
from tests.data.readers.ismrmrd_files import Writer
from tests.field_reports.raw_mri import FOV, N, coil_images, fourier, noisy, psnr, rss, write_lines, xml

WIDTHS = (8, 14, 11)


def _write_slices(path, counted=False, directions=None, shifts=(0, 10, 20), average=False, lines=N):
    """Three objects at three positions, measured in turn."""
    slices = [noisy(fourier(coil_images(width, width + 4))) for width in WIDTHS]
    with Writer(path, xml(), np.eye(3), np.zeros(3)) as writer:
        for w in range(lines):
            for s in (0, 2, 1):
                writer.directions = np.eye(3) if directions is None else directions[s]
                counters = {"slice": s} if counted else {"average": s} if average else {}
                writer.line(slices[s][..., w], shift=float(shifts[s]), kspace_encode_step_1=w, **counters)
    return path


def test_slices_without_a_counter_are_sorted_by_position(tmp_path):
    counted = _write_slices(tmp_path / "counted.h5", counted=True)
    path = _write_slices(tmp_path / "uncounted.h5")
    cases = list_cases(path, "mri")
    assert [case["slice"] for case in list_cases(counted, "mri")] == [case["slice"] for case in cases]
    for s in range(3):
        scan, truth = read_ismrmrd(path, s), read_ismrmrd(counted, s)
        np.testing.assert_array_equal(scan.kspace, truth.kspace)
        np.testing.assert_array_equal(scan.affine, truth.affine)
        assert "the slice counter is 0 everywhere: 3 slices sorted by their position" in scan.info["read_as"]
        assert "read_as" not in truth.info


TURNED = [np.eye(3), np.eye(3)[:, [1, 2, 0]], np.eye(3)[:, [2, 0, 1]]]
MIXED = {
    "orientations": ({"directions": TURNED, "shifts": (0, 0, 0)}, 3),
    "orientations of one slice": ({"directions": [np.eye(3), TURNED[1], np.eye(3)], "shifts": (0, 0, 0)}, 2),
    "few lines at each position": ({"lines": 3}, 3),
}


@pytest.mark.parametrize("name", MIXED)
def test_lines_that_cannot_be_averages_are_refused_with_the_number_of_positions(tmp_path, name):
    how, n = MIXED[name]
    path = _write_slices(tmp_path / "mixed.h5", **how)
    with pytest.raises(InputError, match=f"expected the lines of slice 0 at one position .* found them at {n}; count"):
        read_ismrmrd(path)


def test_a_counted_slice_at_two_positions_is_refused(tmp_path):
    path = tmp_path / "scan.h5"
    with Writer(path, xml(), np.eye(3), np.zeros(3)) as writer:
        for s, shift in ((0, 0), (1, 5), (1, 9)):
            for w in range(N):
                writer.line(fourier(coil_images())[..., w], shift=shift, kspace_encode_step_1=w, slice=s)
    with pytest.raises(InputError, match=r"lines of slice 1 at one position .* found them at 2"):
        read_ismrmrd(path, 0)


def test_averages_at_one_position_are_averaged(tmp_path):
    kspace = fourier(coil_images())
    path = tmp_path / "scan.h5"
    with Writer(path, xml(), np.eye(3), np.zeros(3)) as writer:
        for average, change in enumerate((-0.5, 0.5)):
            for w in range(N):  # positions are written as float32
                shift = 1e-4 * average
                writer.line(kspace[..., w] + change, shift=shift, kspace_encode_step_1=w, average=average)
    np.testing.assert_allclose(read_ismrmrd(path).kspace, kspace, atol=1e-5)


def test_partitions_of_a_header_without_them_are_not_averaged(tmp_path):
    path = tmp_path / "scan.h5"
    with Writer(path, xml(), np.eye(3), np.zeros(3)) as writer:
        for w in range(N):
            for p in range(4):
                writer.line(fourier(coil_images())[..., w], kspace_encode_step_1=w, kspace_encode_step_2=p)
    with pytest.raises(InputError, match="one kspace_encode_step_2 of an encoded matrix with z = 1, found 4"):
        read_ismrmrd(path)


OVERSAMPLED = {
    "base resolution": xml(),
    "field of view of the oversampled readout": xml(N, 2 * FOV),
    "true": xml(2 * N, 2 * FOV),
}


@pytest.mark.parametrize("name", OVERSAMPLED)
def test_oversampled_readouts_are_recognised(tmp_path, name):
    kspace = noisy(fourier(coil_images(n_readout=2 * N)))  # 2 x the field of view along the readout
    path = write_lines(tmp_path / "scan.h5", kspace, OVERSAMPLED[name])
    scan = read_ismrmrd(path)
    truth = np.sqrt((np.abs(coil_images()) ** 2).sum(0))
    assert scan.kspace.shape == (4, N, N)
    assert psnr(rss(scan.kspace), truth) > 32
    np.testing.assert_allclose(np.linalg.norm(scan.affine[:3, :2], axis=0), FOV / N)
    said = f"readouts of {2 * N} samples for an encoded matrix of {N} are 2-fold oversampled ones"
    assert (said in scan.info.get("read_as", "")) == (name != "true")
    AcquireMRI(acs=12, acceleration=2)(list_cases(path, "mri")[0])


def test_an_oversampled_asymmetric_echo_is_recognised(tmp_path):
    kspace = noisy(fourier(coil_images(n_readout=2 * N)))
    path = write_lines(tmp_path / "scan.h5", kspace[:, 20:], centre=N - 20)
    scan = read_ismrmrd(path)
    assert scan.shape == (2 * N, N)
    assert scan.crop == (N, N)
    np.testing.assert_array_equal(np.flatnonzero(scan.mask.all(1)), np.arange(20, 2 * N))
    np.testing.assert_allclose(scan.kspace[:, 20:], kspace[:, 20:], atol=1e-5)


def test_removed_oversampling_is_recognised(tmp_path):
    kspace = noisy(fourier(coil_images()))
    scan = read_ismrmrd(write_lines(tmp_path / "scan.h5", kspace, xml(2 * N, 2 * FOV)))
    np.testing.assert_allclose(scan.kspace, kspace, atol=1e-5)
    np.testing.assert_allclose(np.linalg.norm(scan.affine[:3, :2], axis=0), FOV / N)
    assert f"oversampling of the readout ({2 * N} to {N} samples) had been removed" in scan.info["read_as"]


REFUSED = {
    "samples in front": (np.s_[:, -8:], xml(), {}, f"would fill -4 to {N + 3}"),
    "another centre": (np.s_[:, :], xml(), {"centre": 15}, "would fill 9 to 56"),
    "fields of view that say otherwise": (np.s_[:, :], xml(32, FOV, 32, FOV), {}, "encoded matrix of 32"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_samples_beyond_the_matrix_are_refused(tmp_path, name):
    part, header, more, message = REFUSED[name]
    kspace = noisy(fourier(coil_images()))
    if name == "samples in front":
        kspace = np.concatenate((kspace[part], kspace), axis=1)
    with pytest.raises(InputError, match=message):
        read_ismrmrd(write_lines(tmp_path / "scan.h5", kspace, header, **more))


def test_readouts_of_twice_the_resolution_are_not_oversampled_ones(tmp_path):
    """The object fills the field of view that oversampling would cut away."""
    kspace = noisy(fourier(coil_images(12, 46, n_readout=2 * N)))
    with pytest.raises(InputError, match=r"oversampled ones whose image is empty .* found \d+ % of the signal there"):
        read_ismrmrd(write_lines(tmp_path / "scan.h5", kspace))


def test_one_sample_beyond_the_matrix_is_counted(tmp_path):
    kspace = noisy(fourier(coil_images()))
    scan = read_ismrmrd(write_lines(tmp_path / "scan.h5", kspace, centre=N // 2 - 1))
    assert scan.info["left_out"] == {"last sample of a readout, beyond the matrix": N}
    np.testing.assert_allclose(scan.kspace[:, 1:], kspace[:, :-1], atol=1e-5)
    assert psnr(rss(scan.kspace), rss(kspace)) > 40


def test_lines_in_the_order_of_fft_are_refused(tmp_path):
    kspace = noisy(fourier(coil_images()))
    with pytest.raises(
        InputError, match=r"zero frequency in the middle .* found the signal at both ends of its columns"
    ):
        read_ismrmrd(write_lines(tmp_path / "scan.h5", np.fft.ifftshift(kspace, axes=2)))
