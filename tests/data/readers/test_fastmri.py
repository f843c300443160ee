import re

import numpy as np
import pytest

from disinr_monai.data import AcquireMRI, list_cases
from disinr_monai.data.readers.fastmri import read_fastmri
from disinr_monai.data.readers.kspace import is_fully_sampled
from disinr_monai.errors import InputError
from disinr_monai.methods import DirectInverse
from tests.data.readers.helpers import kspace_summary


def _kspace(n_slices: int = 3, n_coils: int = 2, height: int = 12, width: int = 10) -> np.ndarray:
    rng = np.random.default_rng(0)
    shape = (n_slices, n_coils, height, width)
    return (rng.standard_normal(shape) + 1j * rng.standard_normal(shape)).astype(np.complex64)


def test_a_full_scan(write_hdf5):
    kspace = _kspace()
    path = write_hdf5(kspace=kspace)
    scan = read_fastmri(path, 1)
    np.testing.assert_array_equal(scan.kspace, kspace[1])
    assert scan.is_full
    assert not scan.has_mask
    assert scan.mask.all()
    assert scan.maps is None
    assert "assumed" in scan.info["geometry"]
    assert kspace_summary(path) == (3, True)


def test_undersampling_is_recognised_from_zeros(write_hdf5):
    kspace = _kspace()
    kspace[..., 1::2] = 0
    path = write_hdf5(kspace=kspace)
    scan = read_fastmri(path, 0)
    assert not scan.is_full
    np.testing.assert_array_equal(np.flatnonzero(scan.mask[0]), np.arange(0, 10, 2))
    assert kspace_summary(path) == (3, False)


def test_zero_padding_around_is_not_undersampling():
    measured = np.zeros((12, 10), bool)
    measured[:, 2:9] = True
    assert is_fully_sampled(measured)
    measured[:, 4] = False
    assert not is_fully_sampled(measured)


@pytest.mark.parametrize(("rows", "columns"), [(slice(0, 64), slice(0, 40)), (slice(12, 64), slice(0, 48))])
def test_zeros_on_one_side_are_partial_fourier(rows, columns):
    measured = np.zeros((64, 48), bool)
    measured[rows, columns] = True
    assert not is_fully_sampled(measured)


@pytest.mark.parametrize("shape", [(10,), (12, 10), (1, 10), (3, 12, 10), (1, 1, 12, 10)])
def test_masks_of_every_usual_shape(write_hdf5, shape):
    mask = np.zeros(shape, np.uint8)
    mask[..., ::3] = 1
    scan = read_fastmri(write_hdf5(kspace=_kspace(), mask=mask), 2)
    assert scan.has_mask
    np.testing.assert_array_equal(np.flatnonzero(scan.mask[5]), [0, 3, 6, 9])


def test_maps_geometry_and_a_single_slice(write_hdf5):
    kspace = _kspace()
    header = b"<encodedSpace><fieldOfView_mm><x>24.0</x><y>30</y><z>5</z></fieldOfView_mm></encodedSpace>"
    path = write_hdf5(kspace=kspace, sensitivity_maps=kspace, ismrmrd_header=header)
    scan = read_fastmri(path, 2)
    np.testing.assert_array_equal(scan.maps, kspace[2])
    # Rows run to the back, columns to the left: a viewer shows the image as it is stored.
    np.testing.assert_allclose(scan.affine, [[0, -3, 0, 0], [-2, 0, 0, 0], [0, 0, 5, 10], [0, 0, 0, 1]])
    single = read_fastmri(write_hdf5("single.h5", kspace=kspace[0], sensitivity_maps=kspace[0]))
    np.testing.assert_array_equal(single.kspace, single.maps)


def _with(value: complex) -> np.ndarray:
    kspace = _kspace(1)
    kspace[0, 1, 3, 4] = value
    return kspace


BAD = {
    "no kspace": ({"image": np.ones(3)}, "expected a dataset `kspace`.*found keys ['image']"),
    "no key": ({}, "found keys none"),
    "rank": ({"kspace": _kspace()[0, 0]}, "must have shape (slice, coil, H, W), found (12, 10)"),
    "real": ({"kspace": _kspace().real}, "must be complex, found float32"),
    "no coil": ({"kspace": _kspace(n_coils=0)}, "zero coils, found shape (3, 0, 12, 10)"),
    "nan": ({"kspace": _with(np.nan)}, "must be finite, found 1 NaN"),
    "infinite": ({"kspace": _with(np.inf * 1j)}, "must be finite, found 1 NaN"),
    "zero": ({"kspace": np.zeros_like(_kspace(1))}, "found all zero"),
    "mask shape": (
        {"kspace": _kspace(1), "mask": np.ones(12)},
        "`mask` must have shape (10,) or (12, 10).*found (12,)",
    ),
    "mask values": ({"kspace": _kspace(1), "mask": np.arange(10)}, "must hold 0 and 1 only"),
    "mask zero": ({"kspace": _kspace(1), "mask": np.zeros(10)}, "must select measured samples, found all zero"),
    "maps shape": ({"kspace": _kspace(1), "sensitivity_maps": _kspace(1, 3)}, "must have the shape of `kspace`"),
    "maps real": ({"kspace": _kspace(1), "sensitivity_maps": _kspace(1).real}, "`sensitivity_maps` must be complex"),
    "maps nan": ({"kspace": _kspace(1), "sensitivity_maps": _with(np.nan)}, "must be finite"),
}


@pytest.mark.parametrize("problem", BAD)
def test_bad_files_are_named_with_what_was_found(write_hdf5, problem):
    datasets, message = BAD[problem]
    path = write_hdf5("bad.h5", **datasets)
    pattern = ".*".join(re.escape(part) for part in message.split(".*"))
    with pytest.raises(InputError, match=pattern) as error:
        read_fastmri(path, 0)
    assert str(path) in str(error.value)
    assert "\n" not in str(error.value)


def test_a_mask_where_nothing_was_measured(write_hdf5):
    kspace = _kspace(1)
    kspace[..., :5] = 0
    with pytest.raises(InputError, match="kspace is zero wherever mask is 1"):
        read_fastmri(write_hdf5(kspace=kspace, mask=np.arange(10) < 5))


def test_damaged_missing_and_wrong_files(tmp_path, write_hdf5):
    path = write_hdf5(kspace=_kspace())
    whole = path.read_bytes()
    for name, content in {"truncated.h5": whole[: len(whole) // 2], "text.h5": b"hello", "empty.h5": b""}.items():
        (tmp_path / name).write_bytes(content)
        with pytest.raises(InputError, match=f"{name}: expected a readable HDF5 file"):
            read_fastmri(tmp_path / name, 0)
    with pytest.raises(InputError, match="found no such file"):
        read_fastmri(tmp_path / "absent.h5", 0)
    with pytest.raises(InputError, match="slice number from 0 to 2, found 3"):
        read_fastmri(path, 3)
    with pytest.raises(InputError, match="slice number from 0 to 2, found none"):
        read_fastmri(path)


def test_real_raw_scan(real_data):
    scan = read_fastmri(real_data("kspace/brain8ch_poisson_undersampled_sigpy.h5"))
    assert scan.kspace.shape == (8, 230, 180)
    assert not scan.is_full
    assert scan.mask.mean() == pytest.approx(0.124, abs=0.002)


def _fastmri(n_slices=2, n_coils=3, height=64, width=36):
    """A scan with twice the field of view along the readout, and its image as fastMRI's own tools make it."""
    rng = np.random.default_rng(3)
    image = np.zeros((n_slices, n_coils, height, width), complex)
    image[:, :, height // 4 + 5 : height // 2, 6:20] = 1 + rng.random((n_slices, n_coils, height // 4 - 5, 14))
    axes = (-2, -1)
    kspace = np.fft.fftshift(np.fft.fft2(np.fft.ifftshift(image, axes=axes), norm="ortho"), axes=axes)
    rows, columns = (slice((n - m) // 2, (n - m) // 2 + m) for n, m in ((height, 32), (width, 32)))
    rss = np.sqrt((np.abs(image[..., rows, columns]) ** 2).sum(1))
    header = (
        "<ismrmrdHeader><encoding><encodedSpace><matrixSize><x>64</x><y>36</y><z>1</z></matrixSize><fieldOfView_mm>"
        "<x>128</x><y>72</y><z>4</z></fieldOfView_mm></encodedSpace><reconSpace><matrixSize><x>32</x><y>32</y><z>1</z>"
        "</matrixSize><fieldOfView_mm><x>64</x><y>64</y><z>4</z></fieldOfView_mm></reconSpace></encoding></ismrmrdHeader>"
    )
    return kspace.astype(np.complex64), rss, header


@pytest.mark.parametrize("with_header", [True, False])
def test_the_result_has_the_size_of_fastmris_own_reconstruction(write_hdf5, with_header):
    kspace, rss, header = _fastmri()
    extra = {"ismrmrd_header": header} if with_header else {"reconstruction_rss": rss}
    path = write_hdf5(kspace=kspace, **extra)
    scan = read_fastmri(path, 1)
    assert scan.kspace.shape == (3, 32, 36)  # oversampling of the readout is gone, that of the phase is not
    assert scan.crop == (32, 32)
    case = AcquireMRI(acceleration=2, acs=12, reference="rss")(list_cases(path, "mri")[1])
    reference = case["reference"][0].numpy() * case["output_scale"]
    np.testing.assert_allclose(reference, rss[1], atol=1e-5)
    image = DirectInverse()(None, None, case=case)[0]
    assert image.shape[1:] == (32, 32)
    if with_header:
        # The first pixel that is kept lies where it lay in the whole field of view.
        np.testing.assert_allclose(case["affine"][:3, :3], [[0, -2, 0], [-2, 0, 0], [0, 0, 4]])
        np.testing.assert_allclose(case["affine"][:2, 3], [-2 * 2, -2 * 16])


def test_single_coil_files_are_slices_of_one_coil(write_hdf5):
    kspace, _, header = _fastmri(n_coils=1)
    mask = (np.arange(36) % 2 == 0).astype(np.float32)
    path = write_hdf5(kspace=kspace[:, 0] * mask, mask=mask, ismrmrd_header=header)
    assert kspace_summary(path) == (2, False)
    scan = read_fastmri(path, 1)
    assert scan.kspace.shape == (1, 32, 36)
    assert not scan.is_full
    np.testing.assert_array_equal(scan.mask[7], mask != 0)
    (case, _) = list_cases(path, "mri")
    assert (AcquireMRI()(case)["scan"].operator.maps == 1).all()


def test_a_two_dimensional_mask_keeps_the_whole_readout(write_hdf5):
    kspace, _, header = _fastmri()
    mask = np.random.default_rng(0).random((64, 36)) < 0.5
    scan = read_fastmri(write_hdf5(kspace=kspace * mask, mask=mask, ismrmrd_header=header), 0)
    assert scan.shape == (64, 36)
    assert scan.crop == (32, 32)
    np.testing.assert_array_equal(scan.mask, mask & (kspace[0] != 0).any(0))
