import nibabel as nib
import numpy as np
import pytest

from disinr_monai.data.cases import list_cases
from disinr_monai.data.readers.dicom import read_dicom
from disinr_monai.data.readers.image import read_image
from disinr_monai.data.readers.nifti import nifti_slices, open_nifti
from disinr_monai.errors import InputError
from tests.data.readers.helpers import image_case, sorted_series


def _slices(path) -> int:
    with open_nifti(path) as image:
        return nifti_slices(image)


def _spacing(result) -> np.ndarray:
    return np.linalg.norm(result.affine[:3, :2], axis=0)


def _hu(*shape: int) -> np.ndarray:
    image = np.full(shape, -1000.0, np.float32)
    image[1:-1, 1:-2] = 40
    return image


@pytest.mark.parametrize("codes", ["RAS", "LPS", "LIA", "PSR", "ASL"])
def test_a_marked_voxel_stays_where_it_is(write_nifti, codes):
    """Whatever the order in the file, the array is RAS and the affine points at the same place in the patient."""
    volume = np.random.default_rng(0).uniform(1, 2, (5, 7, 6)).astype(np.float32)
    volume[1, 4, 3] = 9
    affine = np.diag([2.0, 3.0, 4.0, 1.0])
    affine[:3, 3] = [-7, 11, 5]
    image = nib.Nifti1Image(volume, affine)
    target = nib.orientations.axcodes2ornt(codes)
    stored = image.as_reoriented(nib.orientations.ornt_transform(nib.orientations.axcodes2ornt("RAS"), target))
    path = write_nifti(np.asarray(stored.dataobj), stored.affine)
    assert _slices(path) == 6
    result = read_image(image_case(path, 3), "mri")
    assert result.image.shape == (5, 7)
    np.testing.assert_allclose(_spacing(result), (2, 3))
    np.testing.assert_array_equal(result.image, volume[:, :, 3])
    where = np.argwhere(result.image == 9)[0]
    np.testing.assert_allclose(result.affine @ [*where, 0, 1], affine @ [1, 4, 3, 1])


def test_thick_slices_are_cut_as_they_were_acquired(write_nifti):
    volume = np.arange(5 * 4 * 7, dtype=np.float32).reshape(5, 4, 7)
    path = write_nifti(volume, np.diag([1.5, 8.0, 1.5, 1]))
    assert _slices(path) == 4
    result = read_image(image_case(path, 2), "mri")
    np.testing.assert_array_equal(result.image, volume[:, 2])
    np.testing.assert_allclose(result.affine[:3, 2], [0, 8, 0])
    np.testing.assert_allclose(result.affine[:3, 3], [0, 16, 0])


def test_2d_and_trailing_axes(write_nifti):
    image = np.arange(35, dtype=np.float32).reshape(5, 7)
    for shape in ((5, 7), (5, 7, 1), (5, 7, 1, 1)):
        path = write_nifti(image.reshape(shape))
        assert _slices(path) == 1
        np.testing.assert_array_equal(read_image(image_case(path), "mri").image, image)


@pytest.mark.parametrize(
    ("array", "modality", "message"),
    [
        (np.random.default_rng(0).random((5, 7)), "ct", "values in HU.*found 0.* to 0.9"),
        (np.full((5, 7), -1024.0), "ct", "values in HU.*found -1024 to -1024"),
        (np.linspace(0, 4095, 35).reshape(5, 7), "ct", "values in HU.*found 0 to 4095"),
        (np.zeros((5, 7)), "mri", "found the same value 0 everywhere"),
        (np.where(np.eye(5, 7) > 0, np.nan, 1.0), "mri", "found 5 NaN"),
        (np.where(np.eye(5, 7) > 0, np.inf, -1000.0), "ct", "found 5 NaN or infinite"),
        (np.ones((5, 7, 3, 4)), "mri", r"2-D or 3-D image, found shape \(5, 7, 3, 4\)"),
        (np.ones((5, 7, 3), np.complex64), "mri", "real voxel values, found complex64"),
        (np.ones((1, 7)), "mri", "at least 2 x 2 voxels|2-D"),
    ],
)
def test_bad_images_are_named_with_what_was_found(write_nifti, array, modality, message):
    path = write_nifti(array if array.dtype.kind == "c" else array.astype(np.float32))
    with pytest.raises(InputError, match=message) as error:
        read_image(image_case(path, 0), modality)
    assert str(path) in str(error.value)


def test_unreadable_nifti(tmp_path, write_nifti):
    (tmp_path / "text.nii").write_text("hello")
    with pytest.raises(InputError, match=r"text\.nii: expected a readable NIfTI"):
        read_image(image_case(tmp_path / "text.nii"), "mri")
    whole = write_nifti(np.random.default_rng(0).random((20, 20, 20)).astype(np.float32)).read_bytes()
    (tmp_path / "cut.nii.gz").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(InputError, match=r"cut\.nii\.gz: expected readable voxel values"):
        read_image(image_case(tmp_path / "cut.nii.gz", 3), "mri")
    with pytest.raises(InputError, match="no such file"):
        read_image(image_case(tmp_path / "absent.nii"), "mri")


def test_slice_out_of_range(write_nifti):
    path = write_nifti(np.random.default_rng(0).random((5, 7, 3)).astype(np.float32))
    with pytest.raises(InputError, match="slice number from 0 to 2, found 3"):
        read_image(image_case(path, 3), "mri")
    with pytest.raises(InputError, match="slice number from 0 to 2, found none"):
        read_image(image_case(path), "mri")


def test_dicom_rescale_and_orientation(write_dicom):
    pixels = np.arange(35, dtype=np.int16).reshape(5, 7)
    result = read_image(image_case([str(write_dicom(pixels=pixels))]), "ct")
    # The columns of the file run to the patient's left and its rows to the back; RAS order swaps and flips both.
    np.testing.assert_array_equal(result.image, (pixels * 10.0 - 1000).T[::-1, ::-1])
    np.testing.assert_allclose(_spacing(result), (3, 2))
    row, column = 1, 4
    expected = [-(-9.0 + 3.0 * column), -(-4.0 + 2.0 * row), 10.0]
    where = np.argwhere(result.image == pixels[row, column] * 10.0 - 1000)[0]
    np.testing.assert_allclose((result.affine @ [*where, 0, 1])[:3], expected)


def test_dicom_slices_are_sorted_by_position(write_dicom):
    heights = [30.0, 10.0, 20.0]
    paths = [
        str(
            write_dicom(
                f"{i}.dcm",
                np.full((5, 7), i * 100 + 300, np.int16) * (np.arange(7) > 0),
                ImagePositionPatient=[0, 0, z],
                RescaleSlope=1,
            )
        )
        for i, z in enumerate(heights)
    ]
    assert [paths.index(path) for path in sorted_series(paths)] == [1, 2, 0]
    volume = read_dicom(paths, "ct")
    assert volume.image.shape == (5, 7, 3)
    np.testing.assert_allclose(volume.affine[:3, 2], [0, 0, 10])
    for index, i in enumerate((1, 2, 0)):
        result = read_image(image_case(paths, index), "ct")
        assert result.image.max() == i * 100 + 300 - 1000
        assert result.affine[2, 3] == heights[i]


@pytest.mark.parametrize(
    ("attributes", "message"),
    [
        ({"Modality": "MR"}, "modality CT, found MR"),
        ({"NumberOfFrames": 3}, "one image a DICOM file, found 3 frames"),
        ({"Rows": None}, "expected a DICOM image, found modality CT without rows"),
        ({"ImagePositionPatient": None}, "attribute ImagePositionPatient with 3 numbers, found None"),
        ({"SamplesPerPixel": 3}, "found 3 colour channels"),
        ({"syntax": "1.2.840.10008.1.2.4.90"}, "expected decodable DICOM pixels"),
        ({"BitsAllocated": 32}, "expected decodable DICOM pixels"),
        ({"RescaleIntercept": 0}, "values in HU"),
    ],
)
def test_bad_dicom_is_named_with_what_was_found(write_dicom, attributes, message):
    path = write_dicom(**attributes)
    with pytest.raises(InputError, match=message) as error:
        read_image(image_case([str(path)]), "ct")
    assert str(path.parent) in str(error.value)
    assert "\n" not in str(error.value)


def test_incomplete_and_mixed_dicom_series(write_dicom, tmp_path):
    def series(name: str, *extra: dict) -> list[str]:
        attributes = [{"ImagePositionPatient": [0, 0, z]} for z in (0.0, 4.0)] + list(extra)
        return [str(write_dicom(f"{name}/{i}.dcm", **a)) for i, a in enumerate(attributes)]

    with pytest.raises(InputError, match=r"gap.*found a step of 8.00 mm.*missing"):
        read_dicom(series("gap", {"ImagePositionPatient": [0, 0, 12.0]}), "ct")
    with pytest.raises(InputError, match=r"double.*found several at 4.00 mm"):
        read_dicom(series("double", {"ImagePositionPatient": [0, 0, 4.0]}), "ct")
    big = {"ImagePositionPatient": [0, 0, 8.0], "pixels": np.ones((6, 7), np.int16)}
    with pytest.raises(InputError, match=r"size.*expected 5 x 7 pixels.*found 6 x 7"):
        read_dicom(series("size", big), "ct")
    turned = {"ImagePositionPatient": [0, 0, 8.0], "ImageOrientationPatient": [0, 1, 0, 0, 0, 1]}
    with pytest.raises(InputError, match=r"turn.*expected the orientation"):
        read_dicom(series("turn", turned), "ct")
    (tmp_path / "text.dcm").write_text("hello")
    with pytest.raises(InputError, match=r"text\.dcm: expected a readable DICOM"):
        read_dicom([str(tmp_path / "text.dcm")], "ct")


def test_real_dicom_equals_the_nifti_of_the_same_scan(real_data):
    dicom = list_cases(real_data("ct_dicom"), "ct", 3)
    assert [case["slice"] for case in dicom] == [4, 9, 13]
    nifti = real_data("ct3d/KiTS-00072_256.nii.gz")
    for case in dicom:
        fine = read_image(case, "ct")
        coarse = read_image(image_case(nifti, case["slice"]), "ct")
        mean = fine.image.reshape(256, 2, 256, 2).mean((1, 3))
        assert np.corrcoef(mean.ravel(), coarse.image.ravel())[0, 1] > 0.999
        np.testing.assert_allclose(fine.affine @ [0.5, 0.5, 0, 1], coarse.affine @ [0, 0, 0, 1], atol=0.01)


def test_real_ct_slices(real_data):
    folder = real_data("ct2d")
    cases = list_cases(folder, "ct")
    assert len(cases) == len(list(folder.glob("*.nii.gz")))
    assert len({case["subject"] for case in cases if case["name"].startswith("TCGA-17-Z058")}) == 1
    result = read_image(next(c for c in cases if c["name"] == "TCGA-17-Z013_054"), "ct")
    assert result.image.shape == (512, 512)
    assert result.image.min() < -900
    assert result.affine[0, 0] > 0
    assert result.affine[1, 1] > 0


def test_real_mr_volumes(real_data):
    cases = list_cases(real_data("mri3d"), "mri", 4)
    assert len({case["name"] for case in cases}) == len(cases)
    phase = [case for case in cases if "_phase" in case["name"]]
    with pytest.raises(InputError, match="most likely a phase, real or imaginary image"):
        read_image(phase[0], "mri")
    for case in [case for case in cases if case not in phase][::12]:
        result = read_image(case, "mri")
        assert result.image.max() > 0
        zooms = np.array(nib.load(case["path"]).header.get_zooms()[:3])
        assert all(np.isclose(zooms, spacing, rtol=1e-3).any() for spacing in _spacing(result))


def test_an_affine_with_two_axes_on_one_line(write_nifti):
    affine = np.eye(4)
    affine[0, :2], affine[1, 1] = 1e10, 1e-7
    path = write_nifti(np.random.default_rng(0).random((5, 7, 3)).astype(np.float32), affine)
    with pytest.raises(InputError, match="expected an invertible affine"):
        read_image(image_case(path, 0), "mri")
