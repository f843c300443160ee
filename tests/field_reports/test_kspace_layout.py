"""K-space files in other layouts, scales and endings than fastMRI's own."""

from __future__ import annotations

import h5py
import numpy as np
import pytest

from disinr_monai.data import AcquireMRI, list_cases
from disinr_monai.data.readers.fastmri import read_fastmri
from disinr_monai.errors import InputError
from disinr_monai.methods import TotalVariation
from tests.data.readers.nexus_files import PARALLEL, system
from tests.data.readers.nexus_files import write as nexus_file
from tests.field_reports.raw_mri import N, coil_images, fourier, noisy, psnr, rss, write_lines

IMAGES = coil_images()
TRUTH = np.sqrt((np.abs(IMAGES) ** 2).sum(0))
KSPACE = noisy(fourier(IMAGES))
MASK = (np.arange(N) % 2 == 0) | (abs(np.arange(N) - N // 2) < 8)


def _header(channels: int | None = None, n_slices: int | None = None) -> str:
    space = f"<matrixSize><x>{N}</x><y>{N}</y><z>1</z></matrixSize>"
    space += "<fieldOfView_mm><x>96</x><y>96</y><z>5</z></fieldOfView_mm>"
    system_text = "" if channels is None else f"<receiverChannels>{channels}</receiverChannels>"
    limits = "" if n_slices is None else f"<slice><minimum>0</minimum><maximum>{n_slices - 1}</maximum></slice>"
    return (
        f'<ismrmrdHeader xmlns="http://www.ismrm.org/ISMRMRD"><acquisitionSystemInformation>{system_text}'
        f"</acquisitionSystemInformation><encoding><encodedSpace>{space}</encodedSpace><reconSpace>{space}</reconSpace>"
        f"<encodingLimits>{limits}</encodingLimits><trajectory>cartesian</trajectory></encoding></ismrmrdHeader>"
    )


ONE, FOUR = np.ones((N, N), np.float32), np.ones((4, N, N), np.float32)
COILS = {
    "channels and one reconstruction": {"ismrmrd_header": _header(4), "reconstruction_rss": ONE},
    "channels alone": {"ismrmrd_header": _header(4)},
    "one reconstruction": {"ismrmrd_header": _header(), "reconstruction_rss": ONE[None]},
    "slice limits": {"ismrmrd_header": _header(20, 1)},
    "as many slices as coils before the cut": {"ismrmrd_header": _header(4, 4), "reconstruction_rss": ONE},
    "slices of the whole scan": {"ismrmrd_header": _header(4, 11)},
    "noise": {"ismrmrd_header": _header(), "noise": np.random.default_rng(0).standard_normal((4, 99)) + 0j},
}
SLICES = {
    "reconstructions": {"ismrmrd_header": _header(20), "reconstruction_rss": FOUR},
    "single-coil reconstructions": {"ismrmrd_header": _header(4), "reconstruction_esc": FOUR},
    "slice limits": {"ismrmrd_header": _header(20, 4)},
    "one channel": {"ismrmrd_header": _header(1)},
    "nothing but a header": {"ismrmrd_header": _header()},
}
CONTRADICTIONS = {
    "channels and reconstructions": ({"ismrmrd_header": _header(4), "reconstruction_rss": FOUR}, "receiverChannels 4"),
    "channels and slice limits": ({"ismrmrd_header": _header(4, 4)}, "slice limits 0 to 3"),
    "reconstruction and slice limits": (
        {"ismrmrd_header": _header(20, 4), "reconstruction_rss": ONE}, r"reconstruction_rss \(48, 48\) for coils",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", COILS)
def test_coils_of_one_slice_are_recognised(write_hdf5, name):
    path = write_hdf5(kspace=(KSPACE * MASK).astype(np.complex64), mask=MASK, **COILS[name])
    (listed,) = list_cases(path, "mri")
    scan = read_fastmri(path)
    assert scan.kspace.shape == (4, N, N)
    assert "4 coils of one slice" in scan.info["read_as"]
    assert listed["slice"] is None


@pytest.mark.parametrize("name", SLICES)
def test_slices_of_one_coil_are_recognised(write_hdf5, name):
    path = write_hdf5(kspace=(KSPACE * MASK).astype(np.complex64), mask=MASK, **SLICES[name])
    assert [case["slice"] for case in list_cases(path, "mri")] == [0, 1, 2, 3]
    assert read_fastmri(path, 2).kspace.shape == (1, N, N)


@pytest.mark.parametrize("name", CONTRADICTIONS)
def test_facts_that_contradict_each_other_are_refused(write_hdf5, name):
    more, message = CONTRADICTIONS[name]
    path = write_hdf5(kspace=KSPACE, **more)
    with pytest.raises(InputError, match=message) as error:
        read_fastmri(path)
    assert "4 slices of one coil or 4 coils of one slice" in str(error.value)


def test_one_slice_of_a_multi_coil_file_is_reconstructed_with_its_coils(write_hdf5):
    """Field report 14."""
    more = COILS["channels and one reconstruction"]
    path = write_hdf5(kspace=(KSPACE * MASK).astype(np.complex64), mask=MASK, **more)
    case = AcquireMRI()(list_cases(path, "mri")[0])
    image = TotalVariation()(None, None, case=case)[0].norm(dim=0).numpy() * case["output_scale"]
    assert psnr(image, TRUTH) > 28


def test_coils_and_slices_in_the_other_order_are_refused(write_hdf5):
    kspace = np.stack([KSPACE, KSPACE], axis=1)  # (coil, slice, H, W)
    more = {"ismrmrd_header": _header(4, 2), "reconstruction_rss": FOUR[:2]}
    with pytest.raises(
        InputError, match=r"with 4 receiver channels and 2 slices; store kspace.transpose\(1, 0, 2, 3\)"
    ):
        read_fastmri(write_hdf5(kspace=kspace, **more), 0)
    read_fastmri(write_hdf5("good.h5", kspace=kspace.transpose(1, 0, 2, 3), **more), 0)


REFUSED = {
    "coils last": (np.moveaxis(KSPACE, 0, -1), r"evenly along the last axis of \(..., 48, 48, 4\)"),
    "coils last of slices": (np.moveaxis(KSPACE, 0, -1)[None], "evenly along the last axis"),
    "corner": (np.fft.ifftshift(KSPACE, axes=(1, 2)), "both ends of its rows and columns; apply np.fft.fftshift"),
    "corner of the columns": (np.fft.ifftshift(KSPACE, axes=2) * np.fft.ifftshift(MASK), "both ends of its columns"),
    "two channels": (np.stack([KSPACE.real, KSPACE.imag], -1), r"store kspace.take\(0, axis=-1\) \+ 1j"),
    "two channels first": (np.stack([KSPACE.real, KSPACE.imag]), r"store kspace.take\(0, axis=0\) \+ 1j"),
    "real": (np.abs(KSPACE), "must be complex, found float64; store real"),
    "pairs": (
        np.rec.fromarrays([KSPACE.real, KSPACE.imag], names="real,imag"),
        r"store kspace\['real'\] \+ 1j \* kspace\['imag'\]",
    ),
}


@pytest.mark.parametrize("name", REFUSED)
def test_other_layouts_are_refused_with_the_likely_cause(write_hdf5, name):
    kspace, message = REFUSED[name]
    with pytest.raises(InputError, match=message):
        read_fastmri(write_hdf5(kspace=kspace))


@pytest.mark.parametrize("part", [np.s_[:, 10:], np.s_[:, :, :36], np.s_[:1]])
def test_partial_fourier_and_single_coils_are_not_refused(write_hdf5, part):
    kept = np.zeros_like(KSPACE)
    kept[part] = KSPACE[part]
    np.testing.assert_allclose(read_fastmri(write_hdf5(kspace=kept)).kspace, kept.astype(np.complex64))


@pytest.mark.parametrize("scale", [1e-24, 1e-60, 1e24])
@pytest.mark.parametrize("maps", ["espirit", "file"])
def test_the_scale_of_kspace_does_not_matter(write_hdf5, scale, maps):
    more = {} if maps == "espirit" else {"sensitivity_maps": IMAGES / np.maximum(TRUTH, 1e-3) + 0.1}
    results = []
    for factor in (1.0, scale):
        path = write_hdf5(f"{factor}.h5", kspace=KSPACE * factor * MASK, mask=MASK, **more)
        case = AcquireMRI(maps=maps)(list_cases(path, "mri")[0])
        image = case["scan"].operator.adjoint(case["scan"].measurement).norm(dim=0).numpy()
        results.append(image.astype(np.float64) * case["image_scale"] * (case["output_scale"] / factor))
    np.testing.assert_allclose(results[1], results[0], rtol=1e-4, atol=1e-4)


def test_noise_of_small_kspace_is_whitened_alike(write_hdf5):
    noise = np.random.default_rng(1).standard_normal((2, 4, 99))
    noise = 0.02 * (noise[0] + 1j * noise[1])
    scans = [read_fastmri(write_hdf5(f"{s}.h5", kspace=KSPACE * s, noise=noise * s)) for s in (1.0, 1e-30)]
    np.testing.assert_allclose(scans[1].kspace, scans[0].kspace, rtol=1e-4, atol=1e-4)
    assert [scan.unit for scan in scans] == [1, 1]


def test_a_small_ismrmrd_scan(tmp_path):
    path = write_lines(tmp_path / "scan.h5", KSPACE * 1e-24)
    case = AcquireMRI(acceleration=2, acs=12, reference="rss")(list_cases(path, "mri")[0])
    reference = case["reference"][0].numpy() * (case["output_scale"] / 1e-24)
    np.testing.assert_allclose(reference, rss(KSPACE), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("ending", [".mrd", ".MRD", ".dat", ""])
def test_hdf5_is_recognised_under_any_name(tmp_path, ending):
    path = write_lines(tmp_path / f"scan{ending}", KSPACE)
    (listed,) = list_cases(tmp_path, "mri")
    assert (listed["reader"], listed["name"]) == ("ismrmrd_hdf5", "scan")
    case = AcquireMRI(acceleration=2, acs=12)(listed)
    assert psnr(case["reference"][0].numpy() * case["output_scale"], TRUTH) > 32
    assert list_cases(path, "mri")[0]["reader"] == "ismrmrd_hdf5"


def test_contents_decide_which_hdf5_format_it_is(tmp_path):
    geometry = system(**PARALLEL | {"n": (12, 4)}, angles=np.linspace(0, 150, 6))
    nexus_file(tmp_path / "projections.h5", geometry, np.ones((6, 12), np.float32))
    write_lines(tmp_path / "scan.nxs", KSPACE)
    with h5py.File(tmp_path / "weights.keras", "w") as file:  # no scan
        file["weights"] = np.ones(3)
    assert [case["reader"] for case in list_cases(tmp_path, "ct")] == ["cil_nexus"]
    assert [case["reader"] for case in list_cases(tmp_path, "mri")] == ["ismrmrd_hdf5"]
