"""A small valid file for every reader, and how it is read."""

from collections.abc import Callable
from pathlib import Path

import h5py
import nibabel as nib
import numpy as np
import torch
from ignite.engine import Engine

from disinr_monai.checkpoints.of_run import n_prior_passes
from disinr_monai.checkpoints.released import load_shared, save_shared
from disinr_monai.data.acquire.pet import AcquirePET
from disinr_monai.data.cases import list_cases
from disinr_monai.data.readers.cil import read_nexus
from disinr_monai.data.readers.image import read_image
from disinr_monai.data.readers.reader import reader_of
from disinr_monai.data.readers.sinogram import read_sinogram
from disinr_monai.handlers.resume import ResumeCheckpoint
from tests.data.readers.helpers import image_case
from tests.data.readers.ismrmrd_files import Writer, grid, header
from tests.data.readers.nexus_files import PARALLEL, system
from tests.data.readers.nexus_files import write as nexus_file
from tests.problems import small_network

POINTS = np.array([[18.0, 10.0], [-12.0, 24.0]])


def _fastmri(path: Path) -> None:
    rng = np.random.default_rng(0)
    kspace = (rng.standard_normal((2, 2, 12, 10)) + 1j * rng.standard_normal((2, 2, 12, 10))).astype(np.complex64)
    with h5py.File(path, "w") as file:
        file["kspace"], file["mask"] = kspace, (np.arange(10) % 2 == 0).astype(np.uint8)
        file["sensitivity_maps"], file["reconstruction_rss"] = kspace, np.ones((2, 8, 8), np.float32)
        file["noise"] = kspace[0].reshape(2, -1)
        file["ismrmrd_header"] = header(6, 10).encode()


def _ismrmrd(path: Path) -> None:
    kspace = grid(12, 10, POINTS)
    with Writer(path, header(12, 10), np.eye(3), np.zeros(3)) as writer:
        writer.line(kspace[..., 0] + np.random.default_rng(0).standard_normal((3, 24)), flags=(19,))
        for w in range(10):
            writer.line(kspace[..., w], kspace_encode_step_1=w)


def _trajectory(path: Path) -> None:
    rng = np.random.default_rng(0)
    with h5py.File(path, "w") as file:
        file["kspace"] = (rng.standard_normal((2, 6, 16)) + 1j * rng.standard_normal((2, 6, 16))).astype(np.complex64)
        file["trajectory"] = rng.uniform(-8, 8, (6, 16, 2))
        file.attrs["image_shape"] = (16, 16)


def _sinogram(path: Path) -> None:
    with h5py.File(path, "w") as file:
        file["sinogram"] = np.random.default_rng(0).random((6, 20)).astype(np.float32)
        file["angles"] = np.linspace(0, 6, 6)
        file.attrs.update(
            {"detector_spacing": 2.0, "source_distance": 300.0, "detector_distance": 300.0, "pixel_spacing": 2.0}
        )
        file.attrs["image_shape"] = (16, 16)


def _pet(path: Path) -> None:
    rng = np.random.default_rng(0)
    with h5py.File(path, "w") as file:
        file["sinogram"] = rng.poisson(20, (2, 6, 12)).astype(np.float32)
        file["attenuation_factors"], file["background"] = rng.uniform(0.2, 1, (2, 6, 12)), np.full((6, 12), 2.0)
        file["angles"] = np.linspace(0, 2.6, 6)
        file.attrs.update({"bin_spacing": 4.0, "axes": "plane,view,bin"})


def _nexus(path: Path) -> None:
    geometry = system(**PARALLEL | {"n": (12, 4)}, angles=np.linspace(0, 150, 6))
    nexus_file(path, geometry, np.random.default_rng(0).random((6, 12)).astype(np.float32))


def _nifti(path: Path) -> None:
    volume = np.random.default_rng(0).random((6, 5, 4)).astype(np.float32)
    nib.save(nib.Nifti1Image(volume, np.diag([1.0, 2.0, 3.0, 1.0])), path)


def _dicom(path: Path) -> None:
    import pydicom
    from pydicom.dataset import FileMetaDataset
    from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian

    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID, meta.MediaStorageSOPInstanceUID = CTImageStorage, "1.2.3.4"
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    dataset = pydicom.Dataset()
    dataset.file_meta = meta
    values = {
        "SOPClassUID": CTImageStorage, "SOPInstanceUID": "1.2.3.4", "Modality": "CT", "SeriesInstanceUID": "1.2",
        "PatientID": "A", "ImageType": ["ORIGINAL", "PRIMARY"], "Rows": 5, "Columns": 7, "PixelSpacing": [2.0, 3.0],
        "SliceThickness": 4.0, "ImageOrientationPatient": [1, 0, 0, 0, 1, 0], "SamplesPerPixel": 1,
        "ImagePositionPatient": [0.0, 0, 0], "PhotometricInterpretation": "MONOCHROME2", "BitsAllocated": 16,
        "BitsStored": 16, "HighBit": 15, "PixelRepresentation": 1, "RescaleSlope": 10, "RescaleIntercept": -1000,
        "PixelData": np.arange(35, dtype=np.int16).tobytes(),
    }  # fmt: skip
    for key, value in values.items():
        setattr(dataset, key, value)
    dataset.save_as(path, enforce_file_format=True)


def _checkpoint(path: Path) -> None:
    save_shared(path, small_network(), "mri")


def _read_mri(path: Path) -> None:
    reader_of(list_cases(path, "mri")[0]).read(path, 0)


def _read_ct(path: Path) -> None:
    list_cases(path, "ct")
    read_sinogram(path)


def _read_pet(path: Path) -> None:
    case = list_cases(path, "pet")[0]
    result = AcquirePET(image_size=8)(case)
    assert bool(torch.isfinite(result["scan"].measurement).all())


def _read_nexus(path: Path) -> None:
    list_cases(path, "ct")
    read_nexus(path, None, 8, {})


def _read_nifti(path: Path) -> None:
    list_cases(path, "mri")
    read_image(image_case(path, 0), "mri")


def _read_dicom(path: Path) -> None:
    list_cases(path, "ct")
    read_image(image_case([str(path)], 0), "ct")


def _read_checkpoint(path: Path) -> None:
    load_shared(path, small_network(), "mri")
    n_prior_passes(str(path), "mri")


def _resuming(path: Path) -> tuple[ResumeCheckpoint, Engine]:
    network = small_network(n_subjects=2)
    optimizer = torch.optim.Adam(network.parameters(), lr=1e-2)
    sum(parameter.sum() for parameter in network.parameters()).backward()
    optimizer.step()
    schedule = torch.optim.lr_scheduler.StepLR(optimizer, 4)
    handler, engine = ResumeCheckpoint(str(path.parent), network, optimizer, schedule, {"seed": 3}), Engine(_nothing)
    handler.path, engine.state.max_epochs = path, 4
    return handler, engine


def _nothing(engine: Engine, batch: int) -> None:
    pass


def _resume(path: Path) -> None:
    handler, engine = _resuming(path)
    engine.run(range(3), max_epochs=2)
    handler.save(engine)


def _read_resume(path: Path) -> None:
    handler, engine = _resuming(path)
    handler.load(engine)


# Name to (ending, writer of a valid file, reader).
READERS: dict[str, tuple[str, Callable[[Path], None], Callable[[Path], None]]] = {
    "fastmri": (".h5", _fastmri, _read_mri),
    "ismrmrd": (".h5", _ismrmrd, _read_mri),
    "trajectory": (".h5", _trajectory, _read_mri),
    "sinogram": (".h5", _sinogram, _read_ct),
    "pet": (".h5", _pet, _read_pet),
    "nexus": (".nxs", _nexus, _read_nexus),
    "nifti": (".nii", _nifti, _read_nifti),
    "nifti_gz": (".nii.gz", _nifti, _read_nifti),
    "dicom": (".dcm", _dicom, _read_dicom),
    "checkpoint": (".pt", _checkpoint, _read_checkpoint),
    "resume": (".pt", _resume, _read_resume),
}
