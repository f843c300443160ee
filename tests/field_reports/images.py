"""Images of field reports: phantoms, and the files that hold them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pydicom
from pydicom.datadict import tag_for_keyword
from pydicom.dataset import FileMetaDataset
from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian, generate_uid

AFFINE = np.diag([3.0, 3.0, 4.0, 1.0])


def grid(n: int = 64) -> tuple[np.ndarray, np.ndarray]:
    """Rows and columns from the middle, mm."""
    y, x = (np.mgrid[:n, :n] - (n - 1) / 2) * 3.0
    return y, x


def head(n: int = 64) -> np.ndarray:
    """A magnitude: air 0, no symmetry."""
    y, x = grid(n)
    image = 60.0 * ((x / 66) ** 2 + (y / 81) ** 2 < 1)
    image[(x - 24) ** 2 + (y + 27) ** 2 < 21**2] = 150
    image[(x + 27) ** 2 + (y - 30) ** 2 < 12**2] = 200
    return image


def body(n: int = 64) -> np.ndarray:
    """HU: air, soft tissue, lung and bone."""
    y, x = grid(n)
    image = np.full((n, n), -1000.0)
    image[(x / 70) ** 2 + (y / 55) ** 2 < 1] = 40
    image[(x - 30) ** 2 + (y + 9) ** 2 < 18**2] = -850
    image[(x + 33) ** 2 + (y - 9) ** 2 < 12**2] = 300
    return image


def outside(n: int = 64) -> np.ndarray:
    """What a round field of view leaves out."""
    y, x = grid(n)
    return x**2 + y**2 > (1.5 * (n - 1)) ** 2


def nifti(path: Path, image: np.ndarray, dtype: Any = np.float32) -> Path:
    """Write an image ``(H, W)`` or ``(H, W, D)``."""
    path.parent.mkdir(parents=True, exist_ok=True)
    image = image[..., None] if image.ndim == 2 else image
    nibabel.save(nibabel.Nifti1Image(image.astype(dtype), AFFINE), path)
    return path


def dicom(path: Path, stored: np.ndarray, **attributes: Any) -> Path:
    """Write one axial DICOM slice of stored values, signed 16-bit unless ``PixelRepresentation`` is 0."""
    path.parent.mkdir(parents=True, exist_ok=True)
    dataset, meta = pydicom.Dataset(), FileMetaDataset()
    meta.MediaStorageSOPClassUID, meta.MediaStorageSOPInstanceUID = CTImageStorage, generate_uid()
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    dataset.file_meta = meta
    values = {
        "SOPClassUID": CTImageStorage, "SOPInstanceUID": meta.MediaStorageSOPInstanceUID, "SeriesInstanceUID": "1.2.3",
        "StudyInstanceUID": "1.2", "Modality": "CT", "ImageType": ["ORIGINAL", "PRIMARY", "AXIAL"], "PatientID": "p",
        "Rows": stored.shape[-2], "Columns": stored.shape[-1], "PixelSpacing": [3.0, 3.0], "SliceThickness": 4.0,
        "ImageOrientationPatient": [1, 0, 0, 0, 1, 0], "ImagePositionPatient": [0.0, 0.0, 0.0], "SamplesPerPixel": 1,
        "PhotometricInterpretation": "MONOCHROME2", "BitsAllocated": 16, "BitsStored": 16, "HighBit": 15,
        "PixelRepresentation": 1, "RescaleSlope": 1, "RescaleIntercept": 0, **attributes,
    }  # fmt: skip
    signed = bool(values["PixelRepresentation"])
    for key in ("PixelPaddingValue", "PixelPaddingRangeLimit"):
        if key in values:
            dataset.add_new(
                tag_for_keyword(key),
                "SS" if values[key] < 0 or (signed and values[key] < 2**15) else "US",
                values.pop(key),
            )
    for key, value in values.items():
        setattr(dataset, key, value)
    dataset.PixelData = np.asarray(stored).astype(np.int16 if signed else np.uint16).tobytes()
    dataset.save_as(path, enforce_file_format=True)
    return path


def enhanced(path: Path, frames: np.ndarray, kinds: list[str]) -> Path:
    """Write an enhanced MR object: frames ``(k, H, W)``, 4 mm apart, each with its ComplexImageComponent."""
    groups = []
    for index, kind in enumerate(kinds):
        position, of_kind, group = pydicom.Dataset(), pydicom.Dataset(), pydicom.Dataset()
        position.ImagePositionPatient = [0.0, 0.0, 4.0 * (index % kinds.count("MAGNITUDE"))]
        of_kind.ComplexImageComponent, of_kind.FrameType = kind, ["ORIGINAL", "PRIMARY", "T1", "NONE"]
        group.PlanePositionSequence, group.MRImageFrameTypeSequence = [position], [of_kind]
        groups.append(group)
    more = {"NumberOfFrames": len(kinds), "PerFrameFunctionalGroupsSequence": groups, "Modality": "MR"}
    more["ImageType"] = ["ORIGINAL", "PRIMARY", "T1", "MIXED"]
    return dicom(path, frames, PixelRepresentation=0, **more)
