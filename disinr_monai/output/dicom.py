"""Reconstructions as DICOM: derived CT and MR images with the geometry and, where there is one, the patient of the
source. See ``docs/decisions/0011-outputs.md`` for the choice of objects."""

from __future__ import annotations

import datetime
import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

import disinr_monai
from disinr_monai.data.case import is_simulated
from disinr_monai.data.readers.dicom import read_dicom_header
from disinr_monai.errors import InputError
from disinr_monai.output.orientation import radiological
from disinr_monai.runtime.files import atomic_path

logger = logging.getLogger(__name__)

CT_IMAGE, MR_IMAGE, SECONDARY_CAPTURE = (
    "1.2.840.10008.5.1.4.1.1.2", "1.2.840.10008.5.1.4.1.1.4", "1.2.840.10008.5.1.4.1.1.7",
)  # fmt: skip
DISCLAIMER = "RESEARCH ONLY, NOT FOR CLINICAL USE"
# Of the source, where it is DICOM. Without the person, the second group stays out.
_ACQUISITION = {
    "CT": ("BodyPartExamined", "Laterality", "PatientPosition", "KVP"),
    "MR": (
        "BodyPartExamined", "Laterality", "PatientPosition", "ScanningSequence", "SequenceVariant", "ScanOptions",
        "MRAcquisitionType", "RepetitionTime", "EchoTime", "EchoTrainLength", "InversionTime", "MagneticFieldStrength",
    ),
}  # fmt: skip
_PERSON = (
    "PatientName", "PatientID", "IssuerOfPatientID", "PatientBirthDate", "PatientSex", "PatientAge",
    "StudyInstanceUID", "StudyDate", "StudyTime", "StudyID", "StudyDescription", "AccessionNumber",
    "ReferringPhysicianName", "FrameOfReferenceUID", "PositionReferenceIndicator",
)  # fmt: skip

# Must be there, may be empty.
_EMPTY = (
    "PatientName", "PatientBirthDate", "PatientSex", "StudyID", "AccessionNumber", "ReferringPhysicianName",
    "PositionReferenceIndicator", "PatientPosition", "Laterality",
)  # fmt: skip


class DicomWriter:
    """Write images as DICOM files of one new series for each source.

    Slices of one source that are cases of their own share series, study and frame of reference. A source that is not
    DICOM gets a new study for each subject, without a patient's name.

    Args:
        modality: ``"CT"``: values must be HU; ``"MR"``: magnitude; anything else is written as a secondary capture.
        method: how the image was made, for the descriptions.
        anonymize: take no patient, study, date or identifier from the source.
    """

    def __init__(self, modality: str | None, method: str, anonymize: bool = False) -> None:
        self.modality = modality if modality in ("CT", "MR") else "OT"
        self.method, self.anonymize = method, anonymize
        self._uids: dict[tuple[str, str], str] = {}
        self._now = datetime.datetime.now()

    def write(self, folder: Path, case: Mapping[str, Any], image: NDArray) -> list[Path]:
        """Write one case into ``folder``, one file a slice.

        Args:
            folder: must exist.
            case: with ``name``, ``subject``, ``affine`` (RAS mm), ``info`` and, for the patient, ``path``.
            image: ``(H, W)`` or ``(H, W, D)``, in physical units.

        Raises:
            InputError: the axes are not perpendicular, the values do not fit, or the source has vanished.
        """
        from pydicom.dataset import Dataset

        volume = np.asarray(image, dtype=np.float64)
        volume = volume[..., None] if volume.ndim == 2 else volume
        volume, affine = radiological(volume, np.asarray(case["affine"], dtype=float), n_axes=2)  # as viewers show it
        orientation, spacing = _plane_geometry(affine, case["name"])
        stored, slope, intercept = _quantise(volume, self.modality, case["name"])
        path = case.get("path", "")
        source = None if isinstance(path, (str, Path)) else list(path)
        first = int(case["info"].get("slice") or 0)
        header = read_dicom_header(source[min(first, len(source) - 1)]) if source else None
        files = []
        for index in range(volume.shape[2]):
            dataset = self._common(case, str(source[0] if source else path), header)
            self._describe(dataset, header, is_simulated(case))
            if "unknown" in str(case["info"].get("geometry", "")):
                dataset.ImageComments += " The position in the patient is not known."
            dataset.InstanceNumber = first + index + 1
            dataset.ImageOrientationPatient = [_decimal(v) for v in orientation]
            position = affine @ [0, 0, index, 1]
            dataset.ImagePositionPatient = [_decimal(v) for v in (-position[0], -position[1], position[2])]
            dataset.PixelSpacing = [_decimal(v) for v in spacing]
            thickness = _decimal(np.linalg.norm(affine[:3, 2]))
            dataset.SliceThickness = thickness
            if volume.shape[2] > 1:
                dataset.SpacingBetweenSlices = thickness
            if header is not None and not self.anonymize and _same_plane(dataset, header):
                reference = Dataset()
                reference.ReferencedSOPClassUID = header.SOPClassUID
                reference.ReferencedSOPInstanceUID = header.SOPInstanceUID
                dataset.SourceImageSequence = [reference]
            _set_pixels(dataset, stored[..., index], slope, intercept, "HU" if self.modality == "CT" else "US")
            name = case["name"] if volume.shape[2] == 1 else f"{case['name']}_{index + 1:04d}"
            with atomic_path(folder / f"{name}.dcm") as temporary:
                dataset.save_as(temporary, enforce_file_format=True)
            files.append(folder / f"{name}.dcm")
        return files

    def _uid(self, kind: str, key: str) -> str:
        from pydicom.uid import generate_uid

        return self._uids.setdefault((kind, key), generate_uid(prefix=None))

    def _common(self, case: Mapping[str, Any], source: str, header: Any) -> Any:
        """Make a dataset with patient, study, series, equipment and frame of reference."""
        from pydicom.dataset import Dataset
        from pydicom.uid import generate_uid

        dataset = Dataset()
        dataset.SOPClassUID = {"CT": CT_IMAGE, "MR": MR_IMAGE}.get(self.modality, SECONDARY_CAPTURE)
        dataset.SOPInstanceUID = generate_uid(prefix=None)
        dataset.SpecificCharacterSet = "ISO_IR 192"
        for key in _EMPTY:
            setattr(dataset, key, "")
        dataset.StudyDate, dataset.StudyTime = self._now.strftime("%Y%m%d"), self._now.strftime("%H%M%S")
        dataset.PatientID = str(case["subject"])[:64]
        dataset.StudyInstanceUID = self._uid("study", str(case["subject"]))
        dataset.FrameOfReferenceUID = self._uid("frame", source)
        dataset.SeriesInstanceUID = self._uid("series", source)
        dataset.Modality = self.modality
        dataset.SeriesNumber = 1000 + _number(header, "SeriesNumber") % 1000
        if header is not None:
            _copy(header, dataset, _ACQUISITION.get(self.modality, ("PatientPosition",)))
            if not self.anonymize:
                # A study without a date stays without: ours would be a wrong one.
                dataset.PatientID = dataset.StudyDate = dataset.StudyTime = ""
                _copy(header, dataset, _PERSON)
        if dataset.get("BodyPartExamined") and not dataset.Laterality:
            del dataset.Laterality  # empty is for "unknown which side"; of one body part it says that there are two
        if self.anonymize:
            dataset.PatientIdentityRemoved = "YES"
            dataset.DeidentificationMethod = "No attribute of the source's patient or study is copied"
        dataset.Manufacturer, dataset.ManufacturerModelName = "disinr_monai", "disinr_monai"
        dataset.SoftwareVersions = disinr_monai.__version__
        return dataset

    def _describe(self, dataset: Any, header: Any, simulated: bool) -> None:
        """Set the type of the image and its derivation."""
        dataset.ImageType = ["DERIVED", "SECONDARY", "AXIAL" if self.modality == "CT" else "OTHER"]
        mark = "SIMULATED, " if simulated else ""
        dataset.SeriesDescription = f"{mark}{DISCLAIMER}: {self.method}"[:64]
        source = "a SIMULATED measurement of an image, not from a scan" if simulated else "undersampled data"
        dataset.ImageComments = f"{DISCLAIMER}. Reconstructed from {source}; no claim of diagnostic quality."
        of = " of a SIMULATED measurement" if simulated else ""
        dataset.DerivationDescription = f"Reconstruction{of} by {self.method}, disinr_monai {disinr_monai.__version__}"
        dataset.BurnedInAnnotation = "NO"
        dataset.LossyImageCompression = str(getattr(header, "LossyImageCompression", "") or "00")
        if dataset.LossyImageCompression == "01":
            _copy(header, dataset, ("LossyImageCompressionRatio", "LossyImageCompressionMethod"))
        dataset.ContentDate = dataset.InstanceCreationDate = self._now.strftime("%Y%m%d")
        dataset.ContentTime = dataset.InstanceCreationTime = self._now.strftime("%H%M%S")
        dataset.AcquisitionNumber = None
        for key, value in _TYPE_1[self.modality].items():
            if not dataset.get(key):
                setattr(dataset, key, value)


# Required by the standard, but known to the scanner only; RM stands for research mode.
_TYPE_1 = {
    "CT": {"KVP": None},
    "MR": {
        "ScanningSequence": "RM", "SequenceVariant": "NONE", "ScanOptions": "", "MRAcquisitionType": "2D",
        "RepetitionTime": None, "EchoTime": None, "EchoTrainLength": None,
    },
    "OT": {"ConversionType": "WSD", "PatientOrientation": ""},
}  # fmt: skip


def _number(header: Any, key: str) -> int:
    """A whole number of the source; 0 where there is none or it is damaged."""
    try:
        return int(getattr(header, key, 0) or 0)
    except (TypeError, ValueError, OverflowError):
        return 0


def _copy(source: Any, target: Any, keys: Sequence[str]) -> None:
    """Copy attributes; one whose value breaks the standard is left out and named in the log."""
    from pydicom import DataElement
    from pydicom.config import RAISE

    for key in keys:
        if key not in source:
            continue
        try:
            element = source[key]
            target.add(DataElement(element.tag, element.VR, element.value, validation_mode=RAISE))
        except Exception as error:
            # A hostile or damaged value fails in whatever pydicom makes of it.
            logger.warning("DICOM: %s of the source is not valid (%s) and is left out", key, type(error).__name__)


def _same_plane(dataset: Any, source: Any) -> bool:
    """Tell whether the source's slice is the reconstructed one (not one across a reformatted volume)."""
    rows, columns = np.split(np.asarray(dataset.ImageOrientationPatient, dtype=float), 2)
    normal = np.cross(rows, columns)
    tilt = np.asarray(source.ImageOrientationPatient, dtype=float).reshape(2, 3) @ normal
    step = np.subtract(dataset.ImagePositionPatient, source.ImagePositionPatient).astype(float) @ normal
    return bool(np.abs(tilt).max() < 1e-3 and abs(step) < 0.1 * float(dataset.SliceThickness))


def _plane_geometry(affine: NDArray, name: str) -> tuple[NDArray, NDArray]:
    """ImageOrientationPatient and PixelSpacing of an array ``(row, column)`` with an affine in RAS mm."""
    spacing = np.linalg.norm(affine[:3, :2], axis=0)
    unit = affine[:3, :2] / spacing * np.array([-1.0, -1.0, 1.0])[:, None]
    if abs(unit[:, 0] @ unit[:, 1]) > 1e-3:
        raise InputError(f"{name}: expected perpendicular axes for DICOM, found a sheared affine; leave --dicom out")
    along_row = unit[:, 1]  # towards the next column, named first
    along_column = unit[:, 0] - (unit[:, 0] @ along_row) * along_row
    return np.concatenate([along_row, along_column / np.linalg.norm(along_column)]), spacing


def _quantise(volume: NDArray, modality: str, name: str) -> tuple[NDArray, float, float]:
    """16-bit values with ``value = slope * stored + intercept``: whole HU for CT, else the full unsigned range."""
    if modality == "CT":
        stored = np.rint(volume)
        if stored.min() < -(2**15) or stored.max() >= 2**15:
            raise InputError(f"{name}: expected HU within 16 bits for DICOM, found {stored.min()} to {stored.max()}")
        return stored.astype(np.int16), 1.0, 0.0
    low, high = min(float(volume.min()), 0.0), float(volume.max())
    intercept = float(_decimal(low))
    # The next larger number that DICOM's 16 characters can hold, so that the maximum fits.
    slope = float(_decimal((high - intercept) / (2**16 - 1) * (1 + 1e-9))) if high > intercept else 1.0
    return np.clip(np.rint((volume - intercept) / slope), 0, 2**16 - 1).astype(np.uint16), slope, intercept


def _set_pixels(dataset: Any, stored: NDArray, slope: float, intercept: float, kind: str) -> None:
    dataset.set_pixel_data(stored, "MONOCHROME2", 16, generate_instance_uid=False)
    dataset.RescaleIntercept, dataset.RescaleSlope, dataset.RescaleType = _decimal(intercept), _decimal(slope), kind
    # -200 +- 600 HU is the window of the metrics. A window below 1 unit is not allowed.
    high = float(np.percentile(stored, 99.9)) * slope + intercept
    centre, width = (-200.0, 1200.0) if kind == "HU" else ((high + intercept) / 2, high - intercept)
    if width >= 1:
        dataset.WindowCenter, dataset.WindowWidth = _decimal(centre), _decimal(width)


def _decimal(value: float) -> str:
    """A decimal string of at most 16 characters, as exact as they allow."""
    from pydicom.valuerep import format_number_as_ds

    return format_number_as_ds(float(value) + 0.0)
