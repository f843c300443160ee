"""Every door in and out: an object that no flip, turn, slice order or sign maps onto itself comes out where it was.

Each door gets a file of the same object, made from the definition of its format, and gives an image by its one-step
inverse, which is written as NIfTI. Two markers, one above and one below what surrounds them, must have their values at
their places in the patient, and the places of their mirror images must not.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import h5py
import nibabel
import numpy as np
import pydicom
import pytest
import torch
from pydicom.dataset import Dataset

from disinr_monai.data import AcquireCT, AcquireMRI, AcquirePET, AcquireVolume, list_cases
from disinr_monai.data.simulate.patterns import radial_trajectory
from disinr_monai.errors import InputError
from disinr_monai.methods import DirectInverse
from disinr_monai.modality import facts_of
from disinr_monai.operators import FanBeam, ParallelBeam
from disinr_monai.output.dicom import DicomWriter
from disinr_monai.output.write_case import CaseWriter, write_nifti
from tests.data.readers import test_cil
from tests.data.readers.ismrmrd_files import FOV, Writer, frequencies, header, oblique
from tests.fuzz.readers import READERS
from tests.operators.tomography.test_ct_geometries import analytic

# In the plane, mm from the middle of the object: to the right and to the front.
STRONG, WEAK = (-12.0, 24.0), (18.0, 10.0)
CENTRE = np.array([11.0, -7.0, 42.0])  # of the object in the patient, RAS mm


@dataclass
class Answer:
    """A case and what its image must be.

    Attributes:
        case: as the acquisition gives it.
        place: position in the plane to RAS mm.
        strong, weak, background: values in the units of the file that is written.
        tolerance: of them.
    """

    case: dict[str, Any]
    place: Callable[[tuple[float, float]], np.ndarray]
    strong: float
    weak: float
    background: float
    tolerance: float


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


# --- MRI: the object's Fourier transform is known everywhere ---

NX, NY, WIDTH = 48, 40, 2.0  # matrix over FOV, and a marker's standard deviation, mm
PEAK = FOV[0] * FOV[1] / math.sqrt(NX * NY) / (2 * math.pi * WIDTH**2)


def samples(k: np.ndarray) -> np.ndarray:
    """k-space at ``k`` (cycles/mm): a strong marker, and a weak one whose phase is a quarter turn ahead."""
    envelope = np.exp(-2 * (np.pi * WIDTH) ** 2 * (k**2).sum(-1))
    return (envelope * (2 * np.exp(-2j * np.pi * (k @ STRONG)) + 1j * np.exp(-2j * np.pi * (k @ WEAK)))).astype(
        np.complex64
    )


def cartesian() -> np.ndarray:
    grid = np.meshgrid(frequencies(NX, FOV[0]), frequencies(NY, FOV[1]), indexing="ij")
    return samples(np.stack(grid, axis=-1))


def mri_answers(path: Path, place: Callable[[int, tuple[float, float]], np.ndarray]) -> Iterator[Answer]:
    """Slice ``i`` is ``i + 1`` times as bright."""
    for listed in list_cases(path, "mri"):
        index = listed["slice"] or 0
        case = AcquireMRI(acceleration=1, acs=12)(listed)
        bright = PEAK * (index + 1)
        yield Answer(case, lambda p, i=index: place(i, p), 2 * bright, bright, 0.0, 0.12 * bright)


def fastmri(folder: Path) -> Iterator[Answer]:
    """Without an orientation: rows and columns are the axes, the first pixel is at 0."""
    path = folder / "scan.h5"
    with h5py.File(path, "w") as file:
        file["kspace"] = np.stack([cartesian()[None] * (i + 1) for i in range(3)])
        file["mask"] = np.ones(NY, np.uint8)
        file["ismrmrd_header"] = header(NX, NY, oversampling=1).encode()
    middle = np.array([NX // 2 * 2.0, NY // 2 * 2.0])
    return mri_answers(path, lambda i, p: np.array([*(middle + p), 5.0 * i]))


def trajectory(folder: Path) -> Iterator[Answer]:
    path, spokes = folder / "scan.h5", radial_trajectory((NX, NY), 90)
    with h5py.File(path, "w") as file:
        file["kspace"] = np.stack([samples(spokes / FOV)[None] * (i + 1) for i in range(2)])
        file["trajectory"], file.attrs["image_shape"] = spokes, (NX, NY)
        file["ismrmrd_header"] = header(NX, NY, oversampling=1).encode()
    middle = np.array([NX // 2 * 2.0, NY // 2 * 2.0])
    return mri_answers(path, lambda i, p: np.array([*(middle + p), 5.0 * i]))


def ismrmrd(folder: Path) -> Iterator[Answer]:
    """An oblique stack whose counter runs against the slice direction. Patient coordinates of the file are LPS."""
    path, position = folder / "scan.h5", CENTRE * [-1, -1, 1]
    with Writer(path, header(NX, NY, oversampling=1), oblique(), position) as writer:
        for i in range(4):
            for line in range(NY):
                data = cartesian()[None, :, line] * (i + 1)
                writer.line(data, kspace_encode_step_1=line, slice=i, shift=-6.0 * i)
    return mri_answers(path, lambda i, p: (position + oblique() @ [*p, -6.0 * i]) * [-1, -1, 1])


# --- Images: the object on a grid of voxels, in any order ---

SHAPE, SPACING = (40, 40, 6), np.array([2.5, 2.5, 5.0])


def object_hu(ras: np.ndarray) -> np.ndarray:
    """Water with bone to the left in front, less of it in the lower half, and lung to the right."""
    x, y, z = np.moveaxis(ras - CENTRE, -1, 0)
    image = np.where(np.hypot(x, y) < 45, 0.0, -1000.0)
    image = np.where(np.hypot(x - STRONG[0], y - STRONG[1]) < 8, np.where(z > 0, 800.0, 400.0), image)
    return np.where(np.hypot(x - WEAK[0], y - WEAK[1]) < 8, -500.0, image)


def volume(codes: str) -> tuple[np.ndarray, np.ndarray]:
    """The object with its axes in some order, and the affine."""
    affine = np.diag([*SPACING, 1.0])
    affine[:3, 3] = CENTRE - SPACING * (np.array(SHAPE) - 1) / 2
    index = np.stack(np.meshgrid(*(np.arange(n) for n in SHAPE), indexing="ij"), axis=-1)
    image = nibabel.Nifti1Image(object_hu(index * SPACING + affine[:3, 3]), affine)
    turn = nibabel.orientations.ornt_transform(*map(nibabel.orientations.axcodes2ornt, ("RAS", codes)))
    image = image.as_reoriented(turn)
    assert "".join(nibabel.aff2axcodes(image.affine)) == codes
    return np.asarray(image.dataobj), image.affine


def nifti(path: Path, codes: str, offset: float = 0.0) -> Path:
    image, affine = volume(codes)
    nibabel.save(nibabel.Nifti1Image((image + offset).astype(np.float32), affine), path)
    return path


def dicom(folder: Path, multi_frame: bool) -> Path:
    """Axial images, feet first and from the head downwards, as files of one image or as one of many frames."""
    image, affine = volume("PRI")  # array axes: rows to the back, columns to the right, slices downwards
    to_lps = np.diag([-1.0, -1, 1, 1]) @ affine
    folder.mkdir()
    READERS["dicom"][1](folder / "0.dcm")
    base = pydicom.dcmread(folder / "0.dcm")
    base.Rows, base.Columns, base.RescaleSlope, base.RescaleIntercept = *image.shape[:2], 2, -1000
    base.PixelSpacing, base.SliceThickness = [float(SPACING[1]), float(SPACING[0])], float(SPACING[2])
    directions = to_lps[:3, :2] / np.linalg.norm(to_lps[:3, :2], axis=0)
    # The first three numbers are the direction of a row, along which the column counts.
    base.ImageOrientationPatient = [*directions[:, 1], *directions[:, 0]]
    pixels = np.rint((image + 1000) / 2).astype(np.int16)
    positions = [(to_lps @ [0, 0, i, 1])[:3].tolist() for i in range(SHAPE[2])]
    if not multi_frame:
        for i, position in enumerate(positions):
            base.ImagePositionPatient, base.PixelData = position, pixels[..., i].tobytes()
            base.SOPInstanceUID = base.file_meta.MediaStorageSOPInstanceUID = f"1.2.3.{i + 1}"
            base.save_as(folder / f"{i}.dcm", enforce_file_format=True)
        return folder
    base.SOPClassUID = base.file_meta.MediaStorageSOPClassUID = "1.2.840.10008.5.1.4.1.1.2.1"
    base.NumberOfFrames, base.PixelData = len(positions), np.moveaxis(pixels, 2, 0).tobytes()
    base.PerFrameFunctionalGroupsSequence = []
    for position in positions:
        frame, plane = Dataset(), Dataset()
        plane.ImagePositionPatient = position
        frame.PlanePositionSequence = [plane]
        base.PerFrameFunctionalGroupsSequence.append(frame)
    del base.ImagePositionPatient
    base.save_as(folder / "0.dcm", enforce_file_format=True)
    return folder


def image_answers(path: Path, modality: str, acquire: Callable, offset: float, tolerance: float) -> Iterator[Answer]:
    """Slices count from the feet upwards, whatever their order in the file."""
    for listed in list_cases(path, modality, 2):
        z = (listed["slice"] - (SHAPE[2] - 1) / 2) * SPACING[2]
        strong = (800.0 if z > 0 else 400.0) + offset
        place = lambda p, z=z: CENTRE + [*p, z]  # noqa: E731
        yield Answer(acquire(listed), place, strong, -500.0 + offset, offset, tolerance)


SIMULATED = {"image_size": 40, "n_views": 120, "photons": 0, "pixel_spacing": None, "n_detectors": 120}
SIMULATED |= {"detector_spacing": 2.5}


def ct_nifti(folder: Path) -> Iterator[Answer]:
    return image_answers(nifti(folder / "a.nii.gz", "PIR"), "ct", AcquireCT(**SIMULATED), 0.0, 150)


def ct_dicom(folder: Path) -> Iterator[Answer]:
    return image_answers(dicom(folder / "a", False), "ct", AcquireCT(**SIMULATED), 0.0, 150)


def ct_multi_frame(folder: Path) -> Iterator[Answer]:
    return image_answers(dicom(folder / "a", True), "ct", AcquireCT(**SIMULATED), 0.0, 150)


def mri_nifti(folder: Path) -> Iterator[Answer]:
    acquire = AcquireMRI(acceleration=1, acs=12, n_coils=2, noise_std=0, image_size=40)
    return image_answers(nifti(folder / "a.nii.gz", "LSP", 1000.0), "mri", acquire, 1000.0, 130)


def pet_nifti(folder: Path) -> Iterator[Answer]:
    acquire = AcquirePET(image_size=40, n_views=120, fwhm=0, counts=1e8, attenuation="none")
    return image_answers(nifti(folder / "a.nii.gz", "IAL", 1000.0), "pet", acquire, 1000.0, 200)


def whole(path: Path, kind: str, offset: float) -> Iterator[Answer]:
    """A whole volume: both halves of it in turn."""
    (listed,) = list_cases(path, "volume")
    case = AcquireVolume(volume_modality=kind)(listed)
    low, high = (-800.0, 400.0) if kind == "ct" else (-np.inf, np.inf)
    for z, strong in ((7.5, 800.0), (-7.5, 400.0)):
        place = lambda p, z=z: CENTRE + [*p, z]  # noqa: E731
        yield Answer(case, place, *np.clip([strong + offset, -500.0 + offset, offset], low, high), 1.0)


def volume_nifti(folder: Path) -> Iterator[Answer]:
    return whole(nifti(folder / "a.nii.gz", "SPL", 1000.0), "mri", 1000.0)


def volume_dicom(folder: Path) -> Iterator[Answer]:
    return whole(dicom(folder / "a", False), "ct", 0.0)


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
    operator = ParallelBeam(**common, **detector) if kind == "parallel" else FanBeam(**common, **detector, **fan)
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
    geometry = test_cil.system(**test_cil.PARALLEL, labels=("vertical", "angle", "horizontal"), is_3d=True)
    path = test_cil.write(folder / "scan.nxs", geometry, test_cil.measured(geometry).transpose(1, 0, 2))
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


DOORS = (fastmri, trajectory, ismrmrd, mri_nifti, ct_nifti, ct_dicom, ct_multi_frame, pet_nifti, volume_nifti)
DOORS += (volume_dicom, sinogram_fan, sinogram_parallel, cil, pet_emission, pet_transmission)


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


@pytest.mark.parametrize("door", [fastmri, trajectory, ismrmrd], ids=lambda door: door.__name__)
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
