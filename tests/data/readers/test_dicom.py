"""DICOM beyond one axial CT slice: other orientations, syntaxes and multi-frame files, against SimpleITK."""

import logging

import numpy as np
import pydicom
import pytest
from pydicom.dataset import Dataset
from pydicom.uid import ExplicitVRBigEndian, ImplicitVRLittleEndian, RLELossless

from disinr_monai.data.cases import list_cases
from disinr_monai.data.readers.dicom import read_dicom
from disinr_monai.data.readers.image import read_image
from disinr_monai.errors import InputError
from tests.data.readers.helpers import image_case, sorted_series

ORIENTATIONS = {
    "axial": [1, 0, 0, 0, 1, 0],
    "sagittal": [0, 1, 0, 0, 0, -1],
    "coronal": [1, 0, 0, 0, 0, -1],
    "feet first": [-1, 0, 0, 0, 1, 0],
    "oblique": [0.96, 0.28, 0, -0.224, 0.768, -0.6],
}


def _read(paths) -> tuple[np.ndarray, np.ndarray]:
    volume = read_dicom(paths, "ct")
    return volume.image, volume.affine


def _asymmetric(n: int) -> np.ndarray:
    volume = np.random.default_rng(0).integers(-500, 500, (n, 5, 7)).astype(np.int16)
    volume[min(1, n - 1), 1, 4] = 2000
    return volume


def _series(write_dicom, orientation, n=4, step=2.5, **attributes):
    axes = np.reshape(orientation, (2, 3))
    normal = np.cross(*axes)
    volume = _asymmetric(n)
    paths = []
    for i in np.random.default_rng(1).permutation(n):
        position = np.array([-9.0, -4.0, 10.0]) + i * step * normal
        options = {"RescaleSlope": 1, "RescaleIntercept": -1000 + 10 * int(i), **attributes}
        paths.append(
            write_dicom(
                f"{i}.dcm",
                volume[i],
                ImageOrientationPatient=orientation,
                ImagePositionPatient=position.round(6).tolist(),
                **options,
            )
        )
    return [str(path) for path in paths]


def _itk(paths):
    sitk = pytest.importorskip("SimpleITK")
    reader = sitk.ImageSeriesReader()
    reader.SetFileNames(paths)
    image = reader.Execute()
    affine = np.eye(4)
    directions = np.reshape(image.GetDirection(), (3, 3))
    affine[:3, :3] = np.diag([-1, -1, 1]) @ directions * image.GetSpacing()
    affine[:3, 3] = np.array([-1, -1, 1]) * image.GetOrigin()
    return sitk.GetArrayFromImage(image).transpose(2, 1, 0), affine  # (column, row, slice)


def _same_in_space(volume, affine, other, other_affine):
    """Every voxel of one volume has the value of the other at the same place in the patient."""
    where = np.stack(np.meshgrid(*(np.arange(n) for n in volume.shape), indexing="ij"), axis=-1).reshape(-1, 3)
    world = where @ affine[:3, :3].T + affine[:3, 3]
    there = np.rint((world - other_affine[:3, 3]) @ np.linalg.inv(other_affine[:3, :3]).T).astype(int)
    back = there @ other_affine[:3, :3].T + other_affine[:3, 3]
    np.testing.assert_allclose(back, world, atol=1e-2)
    np.testing.assert_allclose(volume[tuple(where.T)], other[tuple(there.T)], atol=1e-3)


@pytest.mark.parametrize("name", ORIENTATIONS)
def test_every_voxel_lies_where_simpleitk_puts_it(write_dicom, name):
    paths = _series(write_dicom, ORIENTATIONS[name])
    ordered = sorted_series(paths)
    volume, affine = _read(paths)
    normal = np.cross(*np.reshape(ORIENTATIONS[name], (2, 3)))
    by_itk = sorted(paths, key=lambda p: normal @ np.array(pydicom.dcmread(p).ImagePositionPatient, float))
    assert ordered in (by_itk, by_itk[::-1])
    _same_in_space(volume, affine, *_itk(by_itk))


def test_real_series_against_simpleitk(real_data):
    sitk = pytest.importorskip("SimpleITK")
    folder = real_data("ct_dicom/KiTS-00072")
    paths = sorted(str(path) for path in folder.iterdir() if path.is_file())
    volume, affine = _read(paths)
    _same_in_space(volume, affine, *_itk(list(sitk.ImageSeriesReader.GetGDCMSeriesFileNames(str(folder)))))


@pytest.mark.parametrize("syntax", [ImplicitVRLittleEndian, ExplicitVRBigEndian, RLELossless])
def test_transfer_syntaxes(write_dicom, tmp_path, syntax):
    plain = write_dicom(pixels=_asymmetric(1)[0])
    expected, affine = _read([str(plain)])
    dataset = pydicom.dcmread(plain)
    if syntax == RLELossless:
        dataset.compress(syntax)
    elif syntax == ExplicitVRBigEndian:
        dataset.PixelData = dataset.pixel_array.astype(">i2").tobytes()
    other = tmp_path / "other.dcm"
    if syntax == RLELossless:
        dataset.save_as(other)
    else:
        elements, meta = {element.tag: element for element in dataset}, dataset.file_meta
        dataset = Dataset(elements)  # pydicom does not turn the bytes of one that it has read
        dataset.file_meta, meta.TransferSyntaxUID = meta, syntax
        dataset.save_as(other, enforce_file_format=True)
    found = _read([str(other)])
    np.testing.assert_array_equal(found[0], expected)
    np.testing.assert_array_equal(found[1], affine)


def _enhanced(path, single, n=3, own_slope=True, heights=(20.0, 10.0, 15.0)):
    """An enhanced CT object of ``n`` frames, out of order, with a slope of each frame's own."""
    dataset = pydicom.dcmread(single)
    volume = _asymmetric(n)
    dataset.SOPClassUID = dataset.file_meta.MediaStorageSOPClassUID = "1.2.840.10008.5.1.4.1.1.2.1"
    orientation, spacing = dataset.ImageOrientationPatient, dataset.PixelSpacing
    for key in ("ImagePositionPatient", "ImageOrientationPatient", "PixelSpacing", "RescaleSlope", "RescaleIntercept"):
        delattr(dataset, key)
    dataset.NumberOfFrames = n

    def group(name, **values):
        outer, inner = Dataset(), Dataset()
        for key, value in values.items():
            setattr(inner, key, value)
        setattr(outer, name, [inner])
        return outer

    shared = group("PlaneOrientationSequence", ImageOrientationPatient=orientation)
    shared.update(group("PixelMeasuresSequence", PixelSpacing=spacing, SliceThickness=5.0))
    dataset.SharedFunctionalGroupsSequence = [shared]
    frames = []
    for i in range(n):
        frame = group("PlanePositionSequence", ImagePositionPatient=[-9.0, -4.0, heights[i]])
        slope = {"RescaleSlope": 1 + i, "RescaleIntercept": -1000, "RescaleType": "HU"}
        frame.update(group("PixelValueTransformationSequence", **slope))
        frames.append(frame)
    dataset.PerFrameFunctionalGroupsSequence = frames
    dataset.PixelData = volume.tobytes()
    dataset.save_as(path)
    return volume, heights


def test_enhanced_multi_frame(write_dicom, tmp_path):
    path = tmp_path / "enhanced" / "1.dcm"
    path.parent.mkdir()
    frames, heights = _enhanced(path, write_dicom())
    volume, affine = _read([str(path)])
    assert volume.shape == (5, 7, 3)
    for index, i in enumerate(np.argsort(heights)):
        np.testing.assert_array_equal(volume[..., index], frames[i] * float(1 + i) - 1000)
        np.testing.assert_allclose((affine @ [0, 0, index, 1])[:3], [9, 4, heights[i]])
    assert [case["slice"] for case in list_cases(path.parent, "ct", 2)] == [1, 2]


@pytest.mark.parametrize(
    ("heights", "message"),
    [((10.0, 10.0, 15.0), "found several at 10.00 mm"), ((10.0, 15.0, 40.0), "found a step of 25.00 mm at 15.00 mm")],
)
def test_gaps_and_copies_are_named(write_dicom, tmp_path, heights, message):
    _enhanced(tmp_path / "e.dcm", write_dicom("single/1.dcm"), heights=heights)
    with pytest.raises(InputError, match=message):
        _read([str(tmp_path / "e.dcm")])


def test_what_is_no_image_is_left_out_with_a_line_and_listed_where_nothing_is_left(write_dicom, tmp_path, caplog):
    write_dicom("scan/1.dcm", ImageType=["ORIGINAL", "PRIMARY", "AXIAL"])
    write_dicom("scan/2.dcm", SeriesInstanceUID="9", ImageType=["ORIGINAL", "PRIMARY", "LOCALIZER"])
    write_dicom("scan/3.dcm", SeriesInstanceUID="8", SOPClassUID="1.2.840.10008.5.1.4.1.1.7")
    write_dicom("scan/4.dcm", SeriesInstanceUID="7", Modality="SR", Rows=None)
    with caplog.at_level(logging.INFO):
        cases = list_cases(tmp_path / "scan", "ct")
    assert len(cases) == 1
    found = ("DICOM CT (a localizer)", "DICOM CT (a secondary capture)", "DICOM SR (no image)")
    assert ", ".join(f"1 x {kind}" for kind in found) in caplog.text
    (tmp_path / "scan" / "1.dcm").unlink()
    with pytest.raises(InputError, match=r"found none but 1 x CT \(a localizer\), 1 x CT \(a secondary"):
        list_cases(tmp_path / "scan", "ct")


@pytest.mark.parametrize(
    ("attributes", "message"),
    [
        ({"PixelSpacing": [0.0, 1.0]}, "a positive PixelSpacing"),
        ({"ImageOrientationPatient": [1, 0, 0, 1, 0, 0]}, "expected perpendicular unit directions"),
        ({"PixelSpacing": None}, "PixelSpacing with 2 numbers, found None"),
        ({"RescaleSlope": 0}, "rescale slope other than 0"),
        ({"Rows": 60000, "Columns": 60000}, "expected decodable DICOM pixels"),
    ],
)
def test_impossible_headers(write_dicom, attributes, message):
    with pytest.raises(InputError, match=message):
        read_dicom([str(write_dicom(**attributes))], "ct")


@pytest.mark.parametrize(
    ("lacks", "modality", "said"),
    [
        ({}, "ct", []),
        ({"RescaleSlope": None, "RescaleIntercept": None}, "ct", ["scale in HU"]),
        ({"RescaleIntercept": None}, "ct", ["scale in HU"]),
        ({"RescaleSlope": None, "RescaleIntercept": None, "Modality": "MR"}, "mri", []),
        ({"SliceThickness": None}, "ct", ["slice thickness"]),
    ],
)
def test_what_the_header_does_not_say_is_in_the_information(write_dicom, lacks, modality, said):
    stored = {"RescaleSlope": 1, "RescaleIntercept": 0}
    pixels = np.arange(35).reshape(5, 7) * 40 - (1000 if modality == "ct" else 0)
    path = write_dicom(pixels=pixels, **{**stored, **lacks})
    info = read_image(image_case([str(path)], 0), modality).info
    assert [text.split(" (")[0] for text in info.get("unverified", [])] == said
