"""Scans whose texts try to get out: of the output folder, of the report's HTML, of anonymity."""

import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
from pydicom.datadict import dictionary_VR
from pydicom.dataset import FileMetaDataset
from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian

from tests.data.readers.ismrmrd_files import Writer, grid, header

POINTS = np.array([[18.0, 10.0], [-12.0, 24.0]])


def write_ct(folder: Path, texts: dict[str, Any], n: int = 2, size: int = 16, name: str = "{}.dcm") -> None:
    """A valid CT series with some attributes replaced, whatever the standard says of their values."""
    folder.mkdir(parents=True, exist_ok=True)
    image = np.random.default_rng(0).integers(-900, 300, (size, size)).astype(np.int16)
    for index in range(n):
        dataset, meta = pydicom.Dataset(), FileMetaDataset()
        meta.MediaStorageSOPClassUID, meta.MediaStorageSOPInstanceUID = CTImageStorage, f"1.2.3.{index}"
        meta.TransferSyntaxUID = ExplicitVRLittleEndian
        dataset.file_meta = meta
        values = {
            "SpecificCharacterSet": "ISO_IR 192", "SOPClassUID": CTImageStorage, "SOPInstanceUID": f"1.2.3.{index}",
            "Modality": "CT", "SeriesInstanceUID": "1.2", "ImageType": ["ORIGINAL", "PRIMARY"], "Rows": size,
            "Columns": size, "PixelSpacing": [10.0, 10.0], "SliceThickness": 4.0, "SamplesPerPixel": 1,
            "ImageOrientationPatient": [1, 0, 0, 0, 1, 0], "ImagePositionPatient": [0.0, 0, 4.0 * index],
            "PhotometricInterpretation": "MONOCHROME2", "BitsAllocated": 16, "BitsStored": 16, "HighBit": 15,
            "PixelRepresentation": 1, "RescaleSlope": 1, "RescaleIntercept": -100,
            "PixelData": image.tobytes(), **texts,
        }  # fmt: skip
        before = pydicom.config.settings.writing_validation_mode
        pydicom.config.settings.writing_validation_mode = pydicom.config.IGNORE
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                for key, value in values.items():
                    if key in texts and isinstance(value, str):  # the file says the kind of a value itself
                        kind = dictionary_VR(key)
                        kind = "LO" if kind in ("IS", "DS") or not value.isascii() else kind
                        dataset.add_new(key, kind, value)
                    else:
                        setattr(dataset, key, value)
                dataset.save_as(folder / name.format(index), enforce_file_format=True)
        finally:
            pydicom.config.settings.writing_validation_mode = before


def write_mri(path: Path, inside: str, trajectory: str = "cartesian") -> None:
    """A valid ISMRMRD scan with more elements in its header, or another word for its trajectory."""
    path.parent.mkdir(parents=True, exist_ok=True)
    kspace = grid(16, 16, POINTS)
    xml = header(16, 16, trajectory=trajectory).replace("<encoding>", f"{inside}<encoding>", 1)
    with Writer(path, xml, np.eye(3), np.zeros(3)) as writer:
        for line in range(16):
            readout = np.stack([np.linspace(-0.5, 0.47, 32), np.full(32, line / 16 - 0.5)], axis=1)
            path_of_it = None if trajectory == "cartesian" else readout
            writer.line(kspace[..., line], kspace_encode_step_1=line, trajectory=path_of_it)
