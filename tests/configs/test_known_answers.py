"""Every door in and out: an object that no flip, turn, slice order or sign maps onto itself comes out where it was.

Each door gets a file of the same object, made from the definition of its format, and gives an image by its one-step
inverse, which is written as NIfTI. Two markers, one above and one below what surrounds them, must have their values at
their places in the patient, and the places of their mirror images must not.
"""

import math
from collections.abc import Iterator
from pathlib import Path

import h5py
import nibabel
import numpy as np
import pydicom
import pytest
import torch

from disinr_monai.data import AcquireCT, AcquirePET, list_cases
from disinr_monai.errors import InputError
from disinr_monai.methods import DirectInverse
from disinr_monai.modality import facts_of
from disinr_monai.operators import FanBeam, FanGeometry, ParallelBeam, ParallelGeometry
from disinr_monai.output.dicom import DicomWriter
from disinr_monai.output.write_case import CaseWriter, write_nifti
from tests.configs import known_answers as doors
from tests.configs.known_answers import SHAPE, STRONG, WEAK, Answer, object_hu, volume
from tests.data.readers import nexus_files
from tests.operators.tomography.phantoms import analytic


def value_at(image: nibabel.Nifti1Image, ras: np.ndarray) -> float:
    index = np.linalg.inv(image.affine) @ [*ras, 1]
    nearest = np.rint(index[:3]).astype(int)
    assert abs(index[2] - nearest[2]) < 0.1, "another slice"
    assert ((nearest >= 0) & (nearest < image.shape)).all(), "outside the image"
    return float(np.asarray(image.dataobj)[tuple(nearest)])


def check(image: nibabel.Nifti1Image, answer: Answer) -> None:
    near = {"abs": answer.tolerance}
    assert value_at(image, answer.place(STRONG)) == pytest.approx(answer.strong, **near)
    assert value_at(image, answer.place(WEAK)) == pytest.approx(answer.weak, **near)
    for a, b in (STRONG, WEAK):
        for wrong in ((-a, b), (a, -b), (-a, -b), (b, a)):
            assert value_at(image, answer.place(wrong)) == pytest.approx(answer.background, **near)


# --- Projections: chords are known along every line ---

WATER = 0.02  # 1/mm
BONE, LUNG = 0.8 * WATER, -0.5 * WATER
ELLIPSES = [(0.0, 0.0, 40.0, 34.0, 0.0, WATER), (*STRONG, 7.0, 7.0, 0.0, BONE), (*WEAK, 7.0, 7.0, 0.0, LUNG)]


def sinogram(folder: Path, kind: str, affine: np.ndarray | None) -> Iterator[Answer]:
    """At angle 0 the detector runs along +x and the rays along +y; x runs along columns, y against the rows."""
    angles = 0.4 + np.arange(90) * (2 * math.pi / 90)
    common = {"image_shape": (64, 64), "pixel_spacing": 1.5, "angles": angles}
    detector = {"n_detectors": 120, "detector_spacing": 1.5}
    fan = {"source_distance": 200.0, "detector_distance": 100.0}
    operator = (
        ParallelBeam(ParallelGeometry(**common, **detector))
        if kind == "parallel"
        else FanBeam(FanGeometry(**common, **detector, **fan))
    )
    path = folder / "scan.h5"
    with h5py.File(path, "w") as file:
        file["sinogram"] = np.asarray(analytic(operator, ELLIPSES))[0]
        file.attrs.update({"geometry": kind, **common, "detector_spacing": 1.5, "water_attenuation": WATER})
        file.attrs.update({} if kind == "parallel" else fan)
        if affine is not None:
            file["affine"] = affine

    def place(p: tuple[float, float]) -> np.ndarray:
        if affine is None:
            return np.array([*p, 0.0])
        return (affine @ [31.5 - p[1] / 1.5, 31.5 + p[0] / 1.5, 0, 1])[:3]

    (listed,) = list_cases(path, "ct")
    yield Answer(AcquireCT()(listed), place, 800.0, -500.0, 0.0, 120)


def sinogram_fan(folder: Path) -> Iterator[Answer]:
    """Sagittal: rows run downwards, columns to the back."""
    affine = np.array([[0, 0, 4.0, 5], [0, -1.5, 0, 30], [-1.5, 0, 0, 70], [0, 0, 0, 1]])
    return sinogram(folder, "fan_flat", affine)


def sinogram_parallel(folder: Path) -> Iterator[Answer]:
    return sinogram(folder, "parallel", None)


def cil(folder: Path) -> Iterator[Answer]:
    """A stack of rows; the only insert stands for the strong marker, water for the weak one."""
    geometry = nexus_files.system(**nexus_files.PARALLEL, labels=("vertical", "angle", "horizontal"), is_3d=True)
    path = nexus_files.write(folder / "scan.nxs", geometry, nexus_files.measured(geometry).transpose(1, 0, 2))
    places = {STRONG: (9.0, 14.0), (12.0, 24.0): (-9.0, 14.0), (-12.0, -24.0): (9.0, -14.0)}
    row = 21
    case = AcquireCT(image_size=64)(list_cases(path, "ct")[row])
    where = lambda p: np.array([*places.get(p, (-9.0, -14.0)), 2.0 * (row - 19.5)])  # noqa: E731
    yield Answer(case, where, 500.0, 0.0, 0.0, 60)


def discs(angles: np.ndarray, u: np.ndarray, values: tuple[float, float, float]) -> np.ndarray:
    """Line integrals ``(view, bin)`` of body and markers; ``values`` are those of the background and what is added."""
    total = np.zeros((len(angles), len(u)))
    for (x, y), radius, value in zip(((0, 0), STRONG, WEAK), (42.0, 8.0, 8.0), values, strict=True):
        distance = u - (x * np.cos(angles) + y * np.sin(angles))[:, None]
        total += value * 2 * np.sqrt(np.maximum(radius**2 - distance**2, 0))
    return total


def pet(folder: Path, scan: str) -> Iterator[Answer]:
    """Counts along parallel lines: at angle 0 bins count along +x, which columns do too; rows run along -y."""
    angles, u = np.arange(90) * (math.pi / 90), (np.arange(48) - 23.5) * 2.0
    affine = np.array([[0, -2.0, 0, 50], [-2.0, 0, 0, 40], [0, 0, 3.0, -8], [0, 0, 0, 1]])  # columns to the left
    path = folder / "scan.h5"
    with h5py.File(path, "w") as file:
        if scan == "emission":
            integrals = discs(angles, u, (100.0, 80.0, -60.0))
            file["sinogram"] = np.stack([integrals, 2 * integrals])
            file.attrs["calibration"] = 0.5
        else:
            file["blank"] = np.full((2, 90, 48), 1e4)
            file["transmission"] = 1e4 * np.exp(-np.stack([discs(angles, u, (0.01, 0.008, -0.006))] * 2))
            file.attrs["blank_scale"] = 1.0
        file.attrs["bin_spacing"], file["angles"], file["affine"] = 2.0, angles, affine
    place = lambda p: (affine @ [23.5 - p[1] / 2, 23.5 + p[0] / 2, 0, 1])[:3]  # noqa: E731
    for plane, listed in enumerate(list_cases(path, "pet")):
        case = AcquirePET(scan=scan)(listed)
        unit = 0.5 * 100.0 * (plane + 1) if scan == "emission" else 0.01
        yield Answer(case, place, 1.8 * unit, 0.4 * unit, unit, 0.2 * unit)


def pet_emission(folder: Path) -> Iterator[Answer]:
    return pet(folder, "emission")


def pet_transmission(folder: Path) -> Iterator[Answer]:
    return pet(folder, "transmission")


DOORS = (doors.fastmri, doors.trajectory, doors.ismrmrd, doors.mri_nifti, doors.ct_nifti, doors.ct_dicom)
DOORS += (doors.ct_multi_frame, doors.pet_nifti, doors.volume_nifti, doors.volume_dicom)
DOORS += (sinogram_fan, sinogram_parallel, cil, pet_emission, pet_transmission)


@pytest.mark.parametrize("door", DOORS, ids=lambda door: door.__name__)
def test_the_object_comes_out_where_it_was(door, tmp_path):
    answers = list(door(tmp_path))
    assert answers
    for answer in answers:
        case = answer.case
        method = DirectInverse()
        image = method(None, None, case=case)
        assert image is not None, method.error
        values = CaseWriter(tmp_path, facts_of(case["modality"])).physical(case, image[0])
        write_nifti(tmp_path / "out.nii.gz", values, np.asarray(case["affine"]))
        check(nibabel.load(tmp_path / "out.nii.gz"), answer)


@pytest.mark.parametrize("door", [doors.fastmri, doors.trajectory, doors.ismrmrd], ids=lambda door: door.__name__)
def test_the_sign_of_the_phase_is_kept(door, tmp_path):
    """A conjugate k-space gives the same magnitude, turned by 180 degrees, but the other sign of the phase."""
    answer = next(iter(door(tmp_path)))
    image = torch.complex(*DirectInverse()(None, None, case=answer.case)[0]).numpy()
    to_index = np.linalg.inv(np.asarray(answer.case["affine"]))
    strong, weak = (image[tuple(np.rint((to_index @ [*answer.place(p), 1])[:2]).astype(int))] for p in (STRONG, WEAK))
    assert np.degrees(np.angle(weak / strong)) == pytest.approx(90, abs=10)


def test_a_complex_nifti_is_refused_not_halved(tmp_path):
    image, affine = volume("RAS")
    path = tmp_path / "a.nii.gz"
    nibabel.save(nibabel.Nifti1Image(image.astype(np.complex64), affine), path)
    with pytest.raises(InputError, match="expected real voxel values"):
        list_cases(path, "mri")


@pytest.mark.parametrize("codes", ["RAS", "PIL"])
def test_dicom_out_by_the_formula_of_the_standard(codes, tmp_path):
    """Positions from the attributes alone (DICOM PS3.3 C.7.6.2.1.1), values by slope and intercept."""
    image, affine = volume(codes)
    case = {"name": "a", "subject": "a", "affine": affine, "path": "a.nii.gz", "info": {}}
    files = DicomWriter("CT", "disinr").write(tmp_path, case, image.astype(np.float32))
    found = {}
    for file in files:
        dataset = pydicom.dcmread(file)
        row, column = np.reshape(np.asarray(dataset.ImageOrientationPatient, float), (2, 3))
        between_rows, between_columns = map(float, dataset.PixelSpacing)
        i, j = np.indices(dataset.pixel_array.shape)
        lps = np.asarray(dataset.ImagePositionPatient, float) + (
            row * between_columns * j[..., None] + column * between_rows * i[..., None]
        )
        values = dataset.pixel_array * float(dataset.RescaleSlope) + float(dataset.RescaleIntercept)
        found |= dict(zip(map(tuple, np.rint(lps * [-4, -4, 4]).reshape(-1, 3)), values.flatten(), strict=True))
    assert len(found) == math.prod(SHAPE)
    expected = object_hu(np.array(list(found)) / 4)
    np.testing.assert_allclose(list(found.values()), expected, atol=0.5)
