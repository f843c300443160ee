import os
from collections.abc import Callable
from pathlib import Path

import h5py
import nibabel as nib
import numpy as np
import pytest

_DATA = Path(os.environ.get("DISINR_DATA", Path(__file__).parents[2] / ".." / "shared" / "data"))


@pytest.fixture(autouse=True)
def _own_cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DISINR_CACHE", str(tmp_path_factory.getbasetemp() / "cache"))


@pytest.fixture
def real_data() -> Callable[[str], Path]:
    """Path of a real data set; skips the test where it is absent."""

    def find(name: str) -> Path:
        path = _DATA / name
        if not path.exists():
            pytest.skip(f"{path} is absent (set DISINR_DATA)")
        return path

    return find


@pytest.fixture
def write_hdf5(tmp_path: Path) -> Callable[..., Path]:
    def write(name: str = "scan.h5", attributes: dict | None = None, **datasets) -> Path:
        path = tmp_path / name
        with h5py.File(path, "w") as file:
            file.attrs.update(attributes or {})
            for key, value in datasets.items():
                file[key] = value
        return path

    return write


@pytest.fixture
def write_nifti(tmp_path: Path) -> Callable[..., Path]:
    def write(array: np.ndarray, affine: np.ndarray | None = None, name: str = "image.nii.gz") -> Path:
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        nib.save(nib.Nifti1Image(array, np.eye(4) if affine is None else affine), path)
        return path

    return write


@pytest.fixture
def write_dicom(tmp_path: Path) -> Callable[..., Path]:
    """Write one valid axial CT slice; keywords replace DICOM attributes."""

    def write(name: str = "1.dcm", pixels: np.ndarray | None = None, **attributes) -> Path:
        import pydicom
        from pydicom.dataset import FileMetaDataset
        from pydicom.encaps import encapsulate
        from pydicom.uid import UID, CTImageStorage, ExplicitVRLittleEndian, generate_uid

        pixels = np.arange(35, dtype=np.int16).reshape(5, 7) if pixels is None else pixels
        meta = FileMetaDataset()
        meta.MediaStorageSOPClassUID = CTImageStorage
        meta.MediaStorageSOPInstanceUID = generate_uid()
        meta.TransferSyntaxUID = attributes.pop("syntax", ExplicitVRLittleEndian)
        dataset = pydicom.Dataset()
        dataset.file_meta = meta
        dataset.SOPClassUID, dataset.SOPInstanceUID = CTImageStorage, meta.MediaStorageSOPInstanceUID
        dataset.Modality, dataset.SeriesInstanceUID, dataset.PatientID = "CT", "1.2.3", "SECRET-NAME"
        dataset.Rows, dataset.Columns = pixels.shape
        dataset.PixelSpacing, dataset.SliceThickness = [2.0, 3.0], 4.0
        dataset.ImageOrientationPatient, dataset.ImagePositionPatient = [1, 0, 0, 0, 1, 0], [-9.0, -4.0, 10.0]
        dataset.SamplesPerPixel, dataset.PhotometricInterpretation = 1, "MONOCHROME2"
        dataset.BitsAllocated, dataset.BitsStored, dataset.HighBit, dataset.PixelRepresentation = 16, 16, 15, 1
        dataset.RescaleSlope, dataset.RescaleIntercept = 10, -1000
        for key, value in attributes.items():
            if value is None:
                delattr(dataset, key)
            else:
                setattr(dataset, key, value)
        data = pixels.astype(np.int16).tobytes()
        dataset.PixelData = encapsulate([data]) if UID(meta.TransferSyntaxUID).is_compressed else data
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        dataset.save_as(path, enforce_file_format=True)
        return path

    return write
