"""Files of one object in MRI and image formats, and what its image must be (`test_known_answers`)."""

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import h5py
import nibabel
import numpy as np
import pydicom
from pydicom.dataset import Dataset

from disinr_monai.data import AcquireCT, AcquireMRI, AcquirePET, AcquireVolume, list_cases
from disinr_monai.data.simulate.patterns import radial_trajectory
from tests.data.readers.ismrmrd_files import FOV, Writer, frequencies, header, oblique
from tests.fuzz.readers import READERS

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
    """Without an orientation: rows towards posterior, columns towards the left, the first pixel at 0."""
    path = folder / "scan.h5"
    with h5py.File(path, "w") as file:
        file["kspace"] = np.stack([cartesian()[None] * (i + 1) for i in range(3)])
        file["mask"] = np.ones(NY, np.uint8)
        file["ismrmrd_header"] = header(NX, NY, oversampling=1).encode()
    middle = np.array([NX // 2 * 2.0, NY // 2 * 2.0])
    return mri_answers(path, lambda i, p: np.array([*-(middle + p)[::-1], 5.0 * i]))


def trajectory(folder: Path) -> Iterator[Answer]:
    path, spokes = folder / "scan.h5", radial_trajectory((NX, NY), 90)
    with h5py.File(path, "w") as file:
        file["kspace"] = np.stack([samples(spokes / FOV)[None] * (i + 1) for i in range(2)])
        file["trajectory"], file.attrs["image_shape"] = spokes, (NX, NY)
        file["ismrmrd_header"] = header(NX, NY, oversampling=1).encode()
    middle = np.array([NX // 2 * 2.0, NY // 2 * 2.0])
    return mri_answers(path, lambda i, p: np.array([*-(middle + p)[::-1], 5.0 * i]))


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
