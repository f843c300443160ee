"""CIL's files and objects: geometry, orientation, errors."""

from types import SimpleNamespace

import h5py
import numpy as np
import pytest
import torch

from disinr_monai.data import AcquireCT, list_cases
from disinr_monai.data.acquire.ct import from_cil, from_cil_image, to_cil_array
from disinr_monai.data.readers.cil import read_nexus
from disinr_monai.errors import InputError
from tests.data.readers.nexus_files import ANGLES, CONE, PARALLEL, measured, system, write

GEOMETRIES = {
    "cone": system(**CONE),
    "cone, the other way round": system(source=[0.0, 200.0, 0.0], detector=[0.0, -150.0, 0.0]),
    "cone, detector mirrored": system(**CONE, direction_x=[-1.0, 0.0, 0.0]),
    "cone, origin right": system(**CONE, origin="bottom-right"),
    "cone, axis shifted": system(**CONE, axis=[4.0, 3.0, 0.0]),
    "cone, detector shifted": system(source=[0.0, -200.0, 0.0], detector=[9.0, 150.0, 0.0]),
    "cone, detector turned": system(**CONE, direction_x=[np.cos(0.1), np.sin(0.1), 0.0]),
    "parallel": system(**PARALLEL),
    "parallel, along x": system(**PARALLEL | {"ray": [1.0, 0.0, 0.0]}, direction_x=[0.0, -1.0, 0.0]),
    "parallel, shifted and mirrored": system(
        **PARALLEL | {"detector": [2.0, 50.0, 0.0]}, axis=[-3.0, 0.0, 0.0], direction_x=[-1.0, 0.0, 0.0]
    ),
}


def _check(case: dict, height: float = 0.0) -> None:
    """The insert is where CIL's frame has it, and HU are right."""
    image = case["scan"].operator.direct_inverse(case["scan"].measurement)[0]
    rows, columns = image.shape[:2]
    spacing = case["info"]["pixel_spacing"]
    column = round((columns - 1) / 2 + 9.0 / spacing)
    row, mirrored = (round((rows - 1) / 2 - sign * 14.0 / spacing) for sign in (1, -1))
    near = (slice(row - 1, row + 2), slice(column - 1, column + 2))
    other = (slice(mirrored - 1, mirrored + 2), slice(column - 1, column + 2))
    assert float(image[near].mean()) * 1200 - 1000 == pytest.approx(500, abs=40)
    assert float(image[other].mean()) * 1200 - 1000 == pytest.approx(0, abs=40)


@pytest.mark.parametrize("name", GEOMETRIES)
def test_2d_files(tmp_path, name):
    geometry = GEOMETRIES[name]
    # The slice through the insert's middle: all balls to z = 0.
    data = measured(geometry | {"is_3d": False})[:, 0]
    path = write(tmp_path / "scan.nxs", geometry, data)
    (listed,) = list_cases(path, "ct")
    case = AcquireCT(image_size=64)(listed)
    assert case["info"]["format"] == "cil_nexus"
    assert "CIL" in case["info"]["read_as"]
    image = case["scan"].operator.direct_inverse(case["scan"].measurement)[0]
    spacing = case["info"]["pixel_spacing"]
    found = [round(31.5 - 14 / spacing), round(31.5 + 9 / spacing)]
    # The insert's cut at z = 0 has 5.7 mm radius.
    assert float(image[found[0], found[1]]) * 1200 - 1000 == pytest.approx(500, abs=60)
    assert float(image[63 - found[0], found[1]]) * 1200 - 1000 == pytest.approx(0, abs=60)
    assert float(image[found[0], 63 - found[1]]) * 1200 - 1000 == pytest.approx(0, abs=60)


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"origin": "top-right"},
        {"labels": ("vertical", "angle", "horizontal")},
        {"detector": [0.0, 150.0, 6.0]},
        {"direction_y": [0.0, 0.0, -1.0]},
    ],
)
def test_cone_3d_files(tmp_path, changes):
    geometry = system(
        **{**CONE, "labels": ("angle", "vertical", "horizontal"), "is_3d": True, "n": (84, 56), **changes}
    )
    order = [("angle", "vertical", "horizontal").index(label) for label in geometry["labels"]]
    path = write(tmp_path / "scan.nxs", geometry, measured(geometry).transpose(order))
    scan = read_nexus(path, image_size=40)
    assert scan["settings"]["beam"] == "cone"
    (listed,) = list_cases(path, "ct")
    case = AcquireCT(image_size=40, file_geometry={"image_shape": (40, 40, 32)})(listed)
    image = case["scan"].operator.direct_inverse(case["scan"].measurement)[0]
    spacing = case["info"]["pixel_spacing"]
    row, column = round(19.5 - 14 / spacing), round(19.5 + 9 / spacing)
    slices = round(15.5 + 4 / spacing)
    assert float(image[row, column, slices]) * 1200 - 1000 == pytest.approx(500, abs=80)
    assert float(image[row, column, 31 - slices - 2]) * 1200 - 1000 < 250
    np.testing.assert_allclose(np.asarray(case["affine"]) @ [19.5, 19.5, 15.5, 1], [0, 0, 0, 1], atol=1e-6)


def test_parallel_3d_gives_a_case_a_row(tmp_path):
    geometry = system(**PARALLEL, labels=("vertical", "angle", "horizontal"), is_3d=True)
    path = write(tmp_path / "scan.nxs", geometry, measured(geometry).transpose(1, 0, 2))
    cases = list_cases(path, "ct")
    assert len(cases) == 40
    row = 21
    case = AcquireCT(image_size=64)(cases[row])
    height = (row - 19.5) * 2.0
    assert float(case["affine"][2, 3]) == pytest.approx(height)
    _check(case)


def test_compressed_and_with_dark_and_flat_fields(tmp_path):
    data = measured(GEOMETRIES["cone"])[:, 0]
    scale, offset = 10000.0, 7.0
    extended = np.concatenate((data[:2] * 0, data)) * scale + offset
    path = write(tmp_path / "a.nxs", GEOMETRIES["cone"], extended.astype(np.uint16), scale=scale, offset=offset)
    with h5py.File(path, "a") as file:
        file["entry1/tomo_entry/data/image_key"] = np.array([2, 1] + [0] * len(data))
    np.testing.assert_allclose(read_nexus(path)["projections"], data, atol=2e-4)


def test_big_endian_is_fine(tmp_path):
    data = measured(GEOMETRIES["cone"])[:, 0]
    path = write(tmp_path / "a.nxs", GEOMETRIES["cone"], data.astype(">f4"))
    np.testing.assert_allclose(read_nexus(path)["projections"], data)


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        ({"leave_out": "entry1/tomo_entry/config/angles"}, "expected `entry1/tomo_entry/config/angles`"),
        ({"leave_out": "entry1/tomo_entry/config/detector/position"}, "config/detector/position`, found it missing"),
        ({"leave_out": "pixel_size_h"}, "expected the attribute `pixel_size_h`"),
        ({"leave_out": "dim1"}, r"expected dim0 \.\.\."),
        ({"leave_out": "entry1/tomo_entry/data/data"}, "expected a NeXus file of CIL's NEXUSDataWriter"),
        ({"data_type": "ImageData"}, "found ImageData"),
        ({"geom_type": "cone"}, "expected the layout of CIL 20.11 or later"),
        ({"num_pixels_h": 83}, "expected .* pixels"),
        ({"pixel_size_h": -1.0}, "`detector_spacing` must be one positive length"),
        ({"dim0": "channel"}, "expected one channel"),
    ],
)
def test_bad_files(tmp_path, damage, message):
    path = write(tmp_path / "bad.nxs", GEOMETRIES["cone"], measured(GEOMETRIES["cone"])[:, 0], **damage)
    with pytest.raises(InputError, match=message):
        read_nexus(path)


@pytest.mark.parametrize("content", [b"", b"not HDF5", None])
def test_damaged_files(tmp_path, content):
    path = write(tmp_path / "bad.nxs", GEOMETRIES["cone"], measured(GEOMETRIES["cone"])[:, 0])
    whole = (tmp_path / "bad.nxs").read_bytes()
    (tmp_path / "bad.nxs").write_bytes(whole[: len(whole) // 2] if content is None else content)
    with pytest.raises(InputError, match=r"bad\.nxs: expected a readable HDF5 file"):
        read_nexus(path)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"axis_direction": [0.0, 0.1, 1.0]}, r"axis of rotation along \+z"),
        ({"direction_x": [1.0, 0.0, 0.1]}, "tilted detectors are not supported"),
        ({"source": [0.0, -200.0, 9.0]}, "at the height of the axis"),
    ],
)
def test_tilted_geometries_are_refused(tmp_path, changes, message):
    geometry = system(**{**CONE, "labels": ("angle", "vertical", "horizontal"), "is_3d": True, "n": (8, 4), **changes})
    with pytest.raises(InputError, match=message):
        read_nexus(write(tmp_path / "a.nxs", geometry, np.ones((120, 4, 8))))


def _object(geometry: dict, data: np.ndarray):
    """Attributes of CIL's AcquisitionData that are read (CIL itself is tested below where it is installed)."""
    position = {name: np.array(geometry[key][:2]) for name, key in (("source", "source"), ("detector", "detector"))}
    config = SimpleNamespace(
        system=SimpleNamespace(
            geometry="cone",
            source=SimpleNamespace(position=position["source"]),
            detector=SimpleNamespace(position=position["detector"], direction_x=np.array(geometry["direction_x"][:2])),
            rotation_axis=SimpleNamespace(position=np.array(geometry["axis"][:2])),
        ),
        panel=SimpleNamespace(num_pixels=(84, 1), pixel_size=(1.6, 1.6), origin=geometry["origin"]),
        angles=SimpleNamespace(angle_data=geometry["angles"], initial_angle=geometry["initial"], angle_unit="degree"),
    )
    return SimpleNamespace(
        geometry=SimpleNamespace(config=config), dimension_labels=geometry["labels"], as_array=lambda: data
    )


def test_an_object_is_read_like_its_file(tmp_path):
    geometry = GEOMETRIES["cone, axis shifted"]
    data = measured(geometry)[:, 0]
    case = from_cil(_object(geometry, data), image_size=64)
    (listed,) = list_cases(write(tmp_path / "a.nxs", geometry, data), "ct")
    other = AcquireCT(image_size=64)(listed)
    torch.testing.assert_close(case["scan"].measurement, other["scan"].measurement)
    image = torch.rand(1, 64, 64)
    torch.testing.assert_close(case["scan"].operator(image), other["scan"].operator(image), rtol=1e-4, atol=1e-4)
    with pytest.raises(InputError, match="expected CIL AcquisitionData, found list"):
        from_cil([])


def test_images_go_there_and_back():
    for shape in ((1, 5, 7), (1, 5, 7, 3)):
        image = torch.rand(shape)
        array = to_cil_array(image)
        assert array.shape == ((5, 7) if len(shape) == 3 else (3, 5, 7))
        torch.testing.assert_close(from_cil_image(SimpleNamespace(as_array=lambda a=array: a)), image)
        # CIL's first row is the lowest.
        assert array.flat[0] == pytest.approx(0.024 * float(image[0, -1].flatten()[0]))


def test_with_cil(tmp_path):
    """CIL's own object and file, and its reconstruction as the start of ours."""
    framework = pytest.importorskip("cil.framework")
    from cil.io import NEXUSDataWriter
    from cil.recon import FBP

    geometry = GEOMETRIES["cone, axis shifted"]
    acquisition = framework.AcquisitionGeometry.create_Cone2D(
        [0.0, -200.0], [0.0, 150.0], rotation_axis_position=[4.0, 3.0]
    )
    acquisition.set_panel(84, pixel_size=1.6)
    acquisition.set_angles(ANGLES, initial_angle=20.0, angle_unit="degree")
    data = acquisition.allocate(None)
    data.fill(measured(geometry)[:, 0])
    NEXUSDataWriter(data=data, file_name=str(tmp_path / "a.nxs")).write()
    np.testing.assert_allclose(read_nexus(tmp_path / "a.nxs")["projections"], data.as_array())
    grid = acquisition.get_ImageGeometry()
    case = from_cil(data, given={"image_shape": grid.shape, "pixel_spacing": grid.voxel_size_x})
    theirs, ours = (
        from_cil_image(FBP(data, backend="tigre").run()),
        case["scan"].operator.direct_inverse(case["scan"].measurement),
    )
    assert float(torch.corrcoef(torch.stack((theirs.flatten(), ours.flatten())))[0, 1]) > 0.99
