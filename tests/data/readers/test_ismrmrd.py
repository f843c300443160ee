import h5py
import ismrmrd
import numpy as np
import pytest

from disinr_monai.data import AcquireMRI, SkipFailed, list_cases
from disinr_monai.data.readers.hdf5 import open_hdf5
from disinr_monai.data.readers.ismrmrd import read_ismrmrd
from disinr_monai.data.readers.ismrmrd_acquisitions import find_ismrmrd, open_ismrmrd
from disinr_monai.errors import InputError
from disinr_monai.operators.calibration import acs_size
from tests.data.readers.helpers import kspace_summary
from tests.data.readers.ismrmrd_files import (
    FOV,
    NX,
    NY,
    POINTS,
    POSITION,
    Writer,
    grid,
    header,
    kspace_at,
    oblique,
    write_scan,
    write_slab,
)

STRONGEST = 1
ISOTROPIC = FOV[0] / NX


def _image(kspace):
    axes = (-2, -1)
    coils = np.fft.fftshift(np.fft.ifft2(np.fft.ifftshift(kspace, axes=axes), norm="ortho"), axes=axes)
    return np.sqrt((np.abs(coils) ** 2).sum(0))


def _world(affine, image):
    """Where the brightest spot lies in the patient (RAS mm), from its centre of mass."""
    at = np.unravel_index(image.argmax(), image.shape)
    window = [slice(max(i - 3, 0), i + 4) for i in at]
    weight = image[tuple(window)] ** 2
    rows, columns = np.mgrid[window[0], window[1]]
    where = [(rows * weight).sum() / weight.sum(), (columns * weight).sum() / weight.sum()]
    return (affine @ [*where, 0, 1])[:3]


def _expected(directions, point, shift=0.0):
    lps = POSITION + directions @ [*point, shift]
    return lps * [-1, -1, 1]


@pytest.mark.parametrize("oversampling", [1, 2])
@pytest.mark.parametrize("turned", [False, True])
def test_an_asymmetric_object_lies_where_it_was_in_the_patient(tmp_path, oversampling, turned):
    directions = oblique() if not turned else np.array([[0, 0, 1.0], [-1, 0, 0], [0, -1, 0]])
    kspace = grid(NX, NY, POINTS, oversampling)
    path = write_scan(tmp_path / "scan.h5", kspace, directions, header(NX, NY, oversampling=oversampling))
    scan = read_ismrmrd(path)
    assert scan.kspace.shape == (3, NX, NY)
    assert scan.is_full
    assert scan.shape == scan.crop == (NX, NY)
    np.testing.assert_allclose(np.linalg.norm(scan.affine[:3, :3], axis=0), [2, 2, 5], rtol=1e-5)
    image = _image(scan.kspace)
    np.testing.assert_allclose(
        _world(scan.affine, image), _expected(directions, POINTS[STRONGEST]), atol=0.1 * ISOTROPIC
    )
    # The pixels keep the values that they have in the whole field of view.
    whole = _image(kspace)
    start = (whole.shape[0] - NX) // 2
    np.testing.assert_allclose(image, whole[start : start + NX], atol=1e-4 * image.max())


def test_samples_are_those_that_ismrmrds_own_library_reads(tmp_path):
    kspace = grid(NX, NY, POINTS, 1)
    path = write_scan(tmp_path / "scan.h5", kspace, xml=header(NX, NY, oversampling=1))
    ours = read_ismrmrd(path).kspace
    with ismrmrd.Dataset(str(path), mode="r") as file:
        for number in range(file.number_of_acquisitions()):
            acquisition = file.read_acquisition(number)
            np.testing.assert_array_equal(ours[..., acquisition.idx.kspace_encode_step_1], acquisition.data)
        encoding = ismrmrd.xsd.CreateFromDocument(file.read_xml_header()).encoding[0]
    with open_hdf5(path) as file:
        parsed = open_ismrmrd(find_ismrmrd(file), path).encoding
    size, fov = encoding.encodedSpace.matrixSize, encoding.encodedSpace.fieldOfView_mm
    assert parsed.encoded.matrix == (size.x, size.y, size.z)
    assert parsed.encoded.fov == (fov.x, fov.y, fov.z)
    assert parsed.trajectory == encoding.trajectory.value


def test_averages_and_reversed_lines(tmp_path):
    kspace = grid(NX, NY, POINTS)
    path = tmp_path / "scan.h5"
    with Writer(path, header(NX, NY), oblique(), POSITION) as writer:
        for average, change in enumerate((-0.5, 0.0, 0.5)):
            for w in range(NY):
                line = kspace[..., w] + change
                reverse = w % 2 == 1
                writer.line(
                    line[:, ::-1] if reverse else line,
                    kspace_encode_step_1=w,
                    average=average,
                    flags=(ismrmrd.ACQ_IS_REVERSE,) if reverse else (),
                )
    plain = read_ismrmrd(write_scan(tmp_path / "plain.h5", kspace))
    np.testing.assert_allclose(read_ismrmrd(path).kspace, plain.kspace, atol=1e-4 * np.abs(kspace).max())


def test_undersampling_partial_fourier_and_centre(tmp_path):
    """The centre of the limits, not the middle of the counter, says where a line lies."""
    kspace = grid(NX, NY, POINTS)
    path = tmp_path / "scan.h5"
    first = 12  # lines 0 to 11 were not measured; the scanner counts from the first measured one
    with Writer(path, header(NX, NY, centre=NY // 2 - first), oblique(), POSITION) as writer:
        for w in range(first, NY):
            writer.line(kspace[..., w], kspace_encode_step_1=w - first)
    scan = read_ismrmrd(path)
    assert not scan.is_full
    np.testing.assert_array_equal(np.flatnonzero(scan.mask.all(0)), np.arange(first, NY))
    full = read_ismrmrd(write_scan(tmp_path / "full.h5", kspace)).kspace
    np.testing.assert_allclose(scan.kspace[..., first:], full[..., first:], atol=1e-5)
    assert kspace_summary(path) == (1, False)


def test_an_asymmetric_echo_keeps_the_oversampling_until_the_image_is_cut(tmp_path):
    kspace = grid(NX, NY, POINTS)
    path = tmp_path / "scan.h5"
    missing = 22
    with Writer(path, header(NX, NY), oblique(), POSITION) as writer:
        for w in range(NY):
            writer.line(kspace[:, missing - 2 :, w], kspace_encode_step_1=w, centre=NX - missing + 2, discard=(2, 0))
    scan = read_ismrmrd(path)
    assert scan.shape == (2 * NX, NY)
    assert scan.crop == (NX, NY)
    np.testing.assert_array_equal(np.flatnonzero(scan.mask.all(1)), np.arange(missing, 2 * NX))
    np.testing.assert_allclose(scan.kspace[:, missing:], kspace[:, missing:], atol=1e-5)
    np.testing.assert_allclose(
        _world(scan.affine, _image(scan.kspace)), _expected(oblique(), POINTS[STRONGEST]), atol=0.3
    )
    (listed,) = list_cases(path, "mri")
    case = AcquireMRI()(listed)
    assert case["crop"] == (NX, NY)
    from disinr_monai.methods import DirectInverse

    image = DirectInverse()(None, None, case=case)[0].norm(dim=0).numpy()
    assert image.shape == (NX, NY)
    np.testing.assert_allclose(_world(case["affine"].numpy(), image), _expected(oblique(), POINTS[STRONGEST]), atol=0.3)


def test_slices_become_cases_at_their_own_places(tmp_path):
    kspace = grid(NX, NY, POINTS)
    path = tmp_path / "scan.h5"
    with Writer(path, header(NX, NY), oblique(), POSITION) as writer:
        for w in range(0, NY, 1):
            for s in (0, 2, 1):
                if w % 2 == 0 or 10 < w < 30:
                    writer.line((s + 1) * kspace[..., w], shift=6.0 * s, kspace_encode_step_1=w, slice=s)
    cases = list_cases(path, "mri")
    assert [case["slice"] for case in cases] == [0, 1, 2]
    for s in range(3):
        scan = read_ismrmrd(path, s)
        np.testing.assert_allclose(np.linalg.norm(scan.affine[:3, 2]), 6, rtol=1e-4)
        image = _image(scan.kspace)
        np.testing.assert_allclose(
            _world(scan.affine, image), _expected(oblique(), POINTS[STRONGEST], 6.0 * s), atol=0.3
        )
        np.testing.assert_allclose(scan.kspace, (s + 1) * read_ismrmrd(path, 0).kspace, rtol=1e-4, atol=1e-4)
    with pytest.raises(InputError, match="slice number from 0 to 2, found none"):
        read_ismrmrd(path)


def test_a_3d_scan_becomes_slices(tmp_path):
    points = np.array([[18.0, 10.0, -8.0], [-12.0, 24.0, 4.0]])
    path = tmp_path / "scan.h5"
    write_slab(path, points, [w for w in range(NY) if w % 3 == 0 or 12 <= w < 28])
    assert kspace_summary(path) == (6, False)
    scans = [read_ismrmrd(path, s) for s in range(6)]
    energy = [float(_image(scan.kspace).max()) for scan in scans]
    at = int(np.argmax(energy))
    np.testing.assert_allclose(
        _world(scans[at].affine, _image(scans[at].kspace)), _expected(oblique(), points[1][:2], points[1][2]), atol=0.3
    )
    with h5py.File(path, "a") as file:  # one partition of one line is lost
        heads = file["dataset/data"]
        row = heads[5]
        row["head"]["flags"] = 1 << (ismrmrd.ACQ_IS_NAVIGATION_DATA - 1)
        heads[5] = row
    with pytest.raises(InputError, match="lines that lack some partitions"):
        read_ismrmrd(path, 0)


def test_noise_prewhitens_and_calibration_lines_find_their_place(tmp_path):
    rng = np.random.default_rng(0)
    mixing = np.array([[1, 0, 0], [0.5, 2, 0], [0, 0.3, 0.7]])
    noise = mixing @ (rng.standard_normal((3, 900)) + 1j * rng.standard_normal((3, 900)))
    kspace = grid(NX, NY, POINTS)
    middle = range(NY // 2 - 6, NY // 2 + 6)
    for mode, separate in (("embedded", False), ("separate", True)):
        path = tmp_path / f"{mode}.h5"
        with Writer(path, header(NX, NY, calibration=mode), oblique(), POSITION) as writer:
            writer.line(noise, flags=(ismrmrd.ACQ_IS_NOISE_MEASUREMENT,))
            writer.line(kspace[..., 0] * 100, flags=(ismrmrd.ACQ_IS_PHASECORR_DATA,), kspace_encode_step_1=3)
            for w in middle:
                flag = (
                    ismrmrd.ACQ_IS_PARALLEL_CALIBRATION_AND_IMAGING
                    if w % 3 == 0
                    else ismrmrd.ACQ_IS_PARALLEL_CALIBRATION
                )
                writer.line(kspace[..., w], flags=(flag,), kspace_encode_step_1=w)
            for w in range(0, NY, 3):
                if w not in middle:
                    writer.line(kspace[..., w], kspace_encode_step_1=w)
        scan = read_ismrmrd(path)
        assert scan.info["prewhitened"]
        measured = np.flatnonzero(scan.mask.all(0))
        if separate:
            np.testing.assert_array_equal(measured, np.arange(0, NY, 3))
            found = np.flatnonzero((scan.calibration != 0).any((0, 1)))
            np.testing.assert_array_equal(found, [w for w in middle if w % 3])
        else:
            assert acs_size(scan.mask)[1] == 12
            assert scan.calibration is None
        plain = read_ismrmrd(write_scan(tmp_path / f"{mode}_plain.h5", kspace)).kspace
        back = np.linalg.cholesky(noise @ noise.conj().T / noise.shape[1]) @ scan.kspace[..., 0]
        np.testing.assert_allclose(back, plain[..., 0], atol=1e-4)


@pytest.mark.parametrize("unit", ["pixel", "radian", "field of view"])
def test_radial_trajectories_in_the_usual_units(tmp_path, unit):
    n = 48
    angles = np.arange(60) * np.pi * (np.sqrt(5) - 1) / 2
    radius = (np.arange(2 * n) - n) / 2  # cycles per field of view
    trajectory = radius[:, None] * np.stack((np.cos(angles), np.sin(angles)), axis=-1)[:, None]
    factor = {"pixel": 1 / n, "radian": 2 * np.pi / n, "field of view": 1}[unit]
    xml = header(n, n, oversampling=1, trajectory="radial", phase_fov=FOV[0], recon_phase_fov=FOV[0])
    kspace = kspace_at(trajectory / FOV[0], POINTS)
    path = tmp_path / "radial.h5"
    with Writer(path, xml, oblique(), POSITION) as writer:
        for spoke, positions in enumerate(trajectory):
            writer.line(kspace[:, spoke], trajectory=factor * positions, kspace_encode_step_1=spoke)
    scan = read_ismrmrd(path)
    np.testing.assert_allclose(scan.trajectory, trajectory, atol=1e-3)
    (listed,) = list_cases(path, "mri")
    case = AcquireMRI()(listed)
    image = case["scan"].operator.direct_inverse(case["scan"].measurement).norm(dim=0).numpy()
    np.testing.assert_allclose(_world(case["affine"].numpy(), image), _expected(oblique(), POINTS[STRONGEST]), atol=0.5)


def test_contrasts_are_refused_by_name_or_selected(tmp_path, caplog):
    kspace = grid(NX, NY, POINTS)
    path = tmp_path / "scan.h5"
    with Writer(path, header(NX, NY), oblique(), POSITION) as writer:
        for w in range(NY):
            for contrast in (0, 2):
                writer.line((1 + contrast) * kspace[..., w], kspace_encode_step_1=w, contrast=contrast)
    with pytest.raises(InputError, match=r"expected one contrast, found 2 \(0, 2\); choose with --select"):
        read_ismrmrd(path)
    both = [read_ismrmrd(path, select={"contrast": c}) for c in (0, 2)]
    np.testing.assert_allclose(both[1].kspace, 3 * both[0].kspace, rtol=1e-4, atol=1e-5)
    assert both[1].info["contrast"] == 2
    with pytest.raises(InputError, match=r"select: expected a contrast of \[0, 2\], found 1"):
        read_ismrmrd(path, select={"contrast": 1})
    with pytest.raises(InputError, match="select: expected numbers for some of contrast, phase"):
        read_ismrmrd(path, select={"echo": 1})
    (listed,) = list_cases(path, "mri")
    case = SkipFailed(AcquireMRI(select={"contrast": 2}, acs=10, acceleration=2))(listed)
    said = "read as ISMRMRD HDF5, contrast 2, 3 coils, fully sampled, measurements taken away"
    assert case["info"]["read_as"].startswith(said)
