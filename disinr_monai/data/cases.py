from __future__ import annotations

import hashlib
import logging
from collections import Counter, defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from disinr_monai.data.case import safe_name, subjects_of, unique_names
from disinr_monai.data.readers.cil import count_nexus_scans, is_nexus
from disinr_monai.data.readers.dicom import DicomFile, describe_file, is_dicom, read_dicom_header, sort_series
from disinr_monai.data.readers.fastmri import kspace_summary
from disinr_monai.data.readers.hdf5 import open_hdf5
from disinr_monai.data.readers.image import canonical_slice_axis, nifti_slices
from disinr_monai.data.readers.ismrmrd_acquisitions import find_ismrmrd
from disinr_monai.data.readers.pet import pet_planes
from disinr_monai.data.readers.sinogram import count_scans
from disinr_monai.errors import InputError
from disinr_monai.modality import MODALITIES, modality_of

logger = logging.getLogger(__name__)

_HDF5 = (".h5", ".hdf5", ".nxs", ".nex")
_NIFTI = (".nii", ".nii.gz")


def list_cases(
    dataset_dir: str | Path,
    modality: str,
    slices_per_subject: int = 4,
    sinogram_axes: str | Sequence[str] | None = None,
) -> list[dict[str, Any]]:
    """Every case of one modality in a file or, recursively, in a folder, in a fixed order.

    A case has ``name`` (unique, safe as a folder name), ``subject``, ``index`` (its
    place in the list), ``path`` (a string; for a DICOM series the list of
    its files), ``slice`` (None if the file holds one) and ``kind``: ``"kspace"``, ``"sinogram"`` or ``"image"``.
    Volumes and fully sampled k-space give ``slices_per_subject`` slices, evenly spaced over the middle half; raw scans
    give every slice. Hidden files are ignored, and so are measurements and DICOM series of another modality. A file in
    a folder that cannot be read still gives a case, whose reading then fails: a batch goes on past it and reports it.

    The subject is read off the file name (:func:`disinr_monai.data.case.subjects_of`), the folder where file names
    repeat, or, for DICOM, a hash of the patient's number (which itself must not end up in a table).

    Args:
        dataset_dir: file or folder.
        modality: a key of :data:`disinr_monai.modality.MODALITIES`.
        slices_per_subject: slices of a volume.
        sinogram_axes: order of the axes of PET sinograms, for files that do not say it, e.g. ``"view,plane,bin"``.

    Raises:
        InputError: no such path, nothing in it, nothing of that modality, or nothing that can be read.
    """
    facts = modality_of(modality)
    if slices_per_subject < 1:
        raise InputError(f"slices_per_subject: expected at least 1, found {slices_per_subject}")
    root = Path(dataset_dir)
    files = _find_files(root)
    cases: list[dict[str, Any]] = []
    failures: list[InputError] = []
    dicom = [file for file in files if _may_be_dicom(file)]
    plain = [f for f in files if _extension(f) in (*_HDF5, *_NIFTI) and not _is_companion(f, facts.companion)]
    for file, label, subject in _labels(plain, root):
        try:
            kind, slices = _inspect(file, modality, slices_per_subject, sinogram_axes)
        except InputError as error:
            failures.append(error)
            kind, slices = (facts.measurement if _extension(file) in _HDF5 else "image") or "image", [None]
        cases += [_case(label, subject, str(file), index, kind) for index in slices]
    series_cases, series_failures = _dicom_cases(dicom, modality, slices_per_subject)
    cases += series_cases
    failures += series_failures
    if len(failures) > 0 and len(failures) >= len(cases):
        raise failures[0]
    if not cases:
        found = sorted({_extension(f) or f.name for f in files})
        raise InputError(
            f"{root}: expected {facts.expected} files, found "
            f"{len(files)} others ({', '.join(found[:8])}{' ...' if len(found) > 8 else ''})"
        )
    for index, name in enumerate(unique_names([case["name"] for case in cases])):
        cases[index] |= {"name": name, "index": index}
    return cases


def spread_slices(n_slices: int, n_wanted: int) -> list[int]:
    """``n_wanted`` slice numbers evenly spaced over the middle half of ``n_slices`` (fewer if there are fewer)."""
    low, high = (n_slices - 1) / 4, 3 * (n_slices - 1) / 4
    positions = np.linspace(low, high, n_wanted) if n_wanted > 1 else np.array([(low + high) / 2])
    return sorted({int(position + 0.5) for position in positions})


def _find_files(root: Path) -> list[Path]:
    if root.is_file():
        return [root]
    if not root.is_dir():
        raise InputError(f"{root}: expected a file or folder with scans (dataset_dir), found nothing there")
    files = sorted(
        file
        for file in root.rglob("*")
        if file.is_file() and not any(part.startswith(".") for part in file.relative_to(root).parts)
    )
    if not files:
        raise InputError(f"{root}: expected scans in the folder (dataset_dir), found it empty")
    return files


def _inspect(
    file: Path, modality: str, n_wanted: int, axes: str | Sequence[str] | None
) -> tuple[str, list[int | None]]:
    """Kind and slices of one file; no slices if it holds a measurement of another modality."""
    if _extension(file) in _NIFTI:
        return "image", _slices(nifti_slices(file), modality, n_wanted)
    kind = MODALITIES[modality].measurement
    with open_hdf5(file) as content:
        keys = {"sinogram"} if is_nexus(file) else set(content)
        keys |= {"kspace"} if find_ismrmrd(content) is not None else set()
    if kind is None:  # no raw measurement of this modality
        return "image", []
    measured = {key for facts in MODALITIES.values() for key in (facts.measurement, *facts.also)}
    if not keys & {kind, *MODALITIES[modality].also} and keys & measured:
        return kind, []
    if modality == "pet":
        return kind, pet_planes(file, axes)
    if kind == "sinogram":
        n_scans = count_nexus_scans(file) if is_nexus(file) else count_scans(file)
        return kind, [None] if n_scans == 1 else list(range(n_scans))
    if kind != "kspace":
        return kind, [None]
    n_slices, is_full = kspace_summary(file)
    if n_slices == 1:
        return kind, [None]
    return kind, list(spread_slices(n_slices, n_wanted)) if is_full else list(range(n_slices))


def _slices(n_slices: int, modality: str, n_wanted: int) -> list[int | None]:
    """Slice numbers of the cases of an image volume."""
    return [None] if n_slices == 1 or MODALITIES[modality].whole else list(spread_slices(n_slices, n_wanted))


def _dicom_cases(files: list[Path], modality: str, n_wanted: int) -> tuple[list[dict[str, Any]], list[InputError]]:
    cases, failures = [], []
    ignored: Counter[str] = Counter()
    series: dict[str, list[tuple[str, DicomFile]]] = defaultdict(list)
    wanted = MODALITIES[modality].dicom_names
    for file in files:
        try:
            found = describe_file(file, read_dicom_header(file))
        except InputError as error:
            failures.append(error)
            cases.append(_case(file.stem, file.stem, [str(file)], None, "image"))
            continue
        if MODALITIES[modality].takes_dicom(found.modality) and not found.ignored:
            series[found.series].append((str(file), found))
        else:
            ignored[found.modality + (f" ({found.ignored})" if found.ignored else "")] += 1
    contents = ", ".join(f"{count} x {what}" for what, count in ignored.items())
    if ignored:
        logger.info("DICOM files that are no %s images are left out: %s", wanted, contents)
    folders = [{str(Path(path).parent) for path, _ in members} for members in series.values()]
    for members, own in zip(series.values(), folders, strict=True):
        paths, folder = [path for path, _ in members], Path(members[0][0]).parent
        shared = sum(str(folder) in other for other in folders) > 1 or len(own) > 1
        label = Path(paths[0]).stem if shared and len(paths) == 1 else folder.resolve().name
        if shared and len(paths) > 1:
            label += f"_series{members[0][1].number}"
        patient = members[0][1].patient
        subject = "patient-" + hashlib.sha256(patient.encode()).hexdigest()[:10] if patient else label
        try:
            paths, affine, shape = sort_series(paths)
            slices = _slices(canonical_slice_axis(shape, affine)[1], modality, n_wanted)
            logger.info("DICOM series of %d files, %d images", len(paths), shape[2])
        except InputError as error:
            failures.append(error)
            slices = [None]
        cases += [_case(label, subject, paths, index, "image") for index in slices]
    if not cases and ignored:
        failures.append(
            InputError(f"{files[0].parent}: expected DICOM images of modality {wanted}, found none but {contents}")
        )
    return cases, failures


def _labels(files: list[Path], root: Path) -> list[tuple[Path, str, str]]:
    stems = [_stem(file) for file in files]
    subjects = subjects_of(stems)
    result = []
    for file, stem, subject in zip(files, stems, subjects, strict=True):
        folder = "-".join(file.parent.relative_to(root).parts) if root.is_dir() else ""
        if stems.count(stem) > 1 and folder:
            # The same file name in several folders: the folder says whose it is.
            result.append((file, f"{folder}-{stem}", folder))
        else:
            result.append((file, stem, subject))
    return result


def _case(label: str, subject: str, path: str | list[str], index: int | None, kind: str) -> dict[str, Any]:
    name = safe_name(label if index is None else f"{label}_s{index:03d}")
    return {"name": name, "subject": safe_name(subject), "path": path, "slice": index, "kind": kind}


def _is_companion(file: Path, ending: str | None) -> bool:
    return ending is not None and _extension(file) in _NIFTI and _stem(file).endswith(ending)


def _may_be_dicom(file: Path) -> bool:
    # Scanners export files without an extension, or with the end of the instance number as one.
    bare = file.suffix == "" or file.suffix[1:].isdigit()
    return file.suffix.lower() == ".dcm" or (bare and is_dicom(file))


def _extension(file: Path) -> str:
    return ".nii.gz" if file.name.lower().endswith(".nii.gz") else file.suffix.lower()


def _stem(file: Path) -> str:
    return file.name[: len(file.name) - len(_extension(file))]
