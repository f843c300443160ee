from __future__ import annotations

import gzip
import logging
import zlib
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from disinr_monai.data.case import safe_name, subjects_of, unique_names
from disinr_monai.data.readers.dicom import group_series, may_be_dicom
from disinr_monai.data.readers.dicom_kinds import advice
from disinr_monai.data.readers.reader import READERS, Wanted, file_ending, name_ending, recognise
from disinr_monai.data.readers.sinogram import known_settings
from disinr_monai.errors import InputError, at_least
from disinr_monai.modality import MODALITIES, modality_of

logger = logging.getLogger(__name__)

_NAME = "disinr_monai"
_DESCRIP = slice(148, 228)  # of a NIfTI-1 header
_WITHIN = 4096  # Manufacturer, (0008,0070), comes early, before anything long
_MANUFACTURER = b"\x08\x00\x70\x00LO"


def list_cases(
    dataset_dir: str | Path,
    modality: str,
    slices_per_subject: int = 4,
    sinogram_axes: str | Sequence[str] | None = None,
    *,
    ct_geometry: Mapping[str, Any] | None = None,
    scan: str = "emission",
) -> list[dict[str, Any]]:
    """List every case of one modality in a file or, recursively, in a folder, in a fixed order.

    A case has ``name`` (unique, safe as a folder name), ``subject``, ``index`` (its place in the list), ``path`` (a
    string; for a DICOM series the list of its files), ``slice`` (None if the file holds one) and ``reader``, the key in
    :data:`~disinr_monai.data.readers.reader.READERS` of the format that recognised it.
    Volumes and fully sampled k-space give ``slices_per_subject`` slices, evenly spaced over the middle half; raw scans
    give every slice. Hidden files are ignored. What else is no scan of this modality is left out, and the log counts it
    by kind; whether a file is DICOM is decided by its contents, not by its ending. A file in a folder that cannot be
    read still gives a case, whose reading then fails: a batch goes on past it and reports it. Results of this
    package in a folder are recognised by content and left out too; one that is named
    itself is read.

    The subject is read off the file name (:func:`disinr_monai.data.case.subjects_of`), the folder where file names
    repeat, or, for DICOM, a hash of the patient's number (which itself must not end up in a table).

    Args:
        dataset_dir: file or folder.
        modality: a key of :data:`disinr_monai.modality.MODALITIES`.
        slices_per_subject: slices of a volume.
        sinogram_axes: order of the axes of PET sinograms, for files that do not say it, e.g. ``"view,plane,bin"``.
        ct_geometry: what the user says of CT sinograms, stronger than the files; the same as for reading.
        scan: of PET sinograms, ``"emission"`` or ``"transmission"``; the same as for reading.

    Raises:
        InputError: no such path, nothing in it, nothing of that modality, nothing that can be read, or an unknown
            key of ``ct_geometry``.
    """
    facts = modality_of(modality)
    at_least("slices_per_subject", slices_per_subject, 1, whole=True)
    root = Path(dataset_dir)
    files = _find_files(root)
    dicom = [file for file in files if may_be_dicom(file)]
    own = set() if root.is_file() else {file for file in files if _is_own_result(file)}
    others = [file for file in files if file not in own.union(dicom)]
    known = {ending for reader in READERS.values() for ending in reader.endings}
    companions = [file for file in others if _is_companion(file, facts.companion)]
    plain = [file for file in others if file_ending(file) in known and file not in companions]
    series, no_image = group_series([file for file in dicom if file not in own], modality)
    left_out = Counter({f"DICOM {kind}": count for kind, count in no_image.items()})
    left_out.update(f"result of disinr_monai ({file_ending(file) or 'DICOM'})" for file in sorted(own))
    left_out.update(file_ending(file) or "without ending" for file in others if file_ending(file) not in known)
    sources: list[tuple[Any, str | list[str], str, str]] = []
    sources += [(file, str(file), label, subject) for file, label, subject in _labels(plain, root)]
    sources += [(found, found.paths, found.label, found.subject) for found in series]
    wanted = Wanted(int(slices_per_subject), facts.whole, sinogram_axes, known_settings(ct_geometry), scan)
    cases: list[dict[str, Any]] = []
    failures: list[InputError] = []
    for source, path, label, subject in sources:
        reader, slices, failure = recognise(source, path, modality, wanted)
        failures += [] if failure is None else [failure]
        if not slices:
            left_out[f"{file_ending(source)} of another modality"] += 1
        for index in slices:
            name = safe_name(label if index is None else f"{label}_s{index:03d}")
            cases.append({"name": name, "subject": safe_name(subject), "path": path, "slice": index, "reader": reader})
    what = ", ".join(f"{count} x {kind}" for kind, count in left_out.items())
    if what:
        logger.info("%s: left out, as they are no %s scans: %s", root, modality, what)
    if failures and len(failures) >= len(cases):
        raise failures[0]
    if not cases and no_image:
        raise InputError(
            f"{root}: expected DICOM images of modality {facts.dicom_names}, found none but "
            f"{what.replace('DICOM ', '')}{advice(list(no_image))}"
        )
    if not cases:
        raise InputError(f"{root}: expected {_expected(modality)} files, found {len(files)} others ({what or 'none'})")
    for index, name in enumerate(unique_names([case["name"] for case in cases])):
        cases[index] |= {"name": name, "index": index}
    return cases


def _expected(modality: str) -> str:
    """The formats that a modality can be read from, for messages."""
    readers = [reader for reader in READERS.values() if modality in reader.modalities]
    names = [f"{r.name} ({', '.join(r.endings) or MODALITIES[modality].dicom_names})" for r in readers]
    return f"{', '.join(names[:-1])} or {names[-1]}"


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


def _is_companion(file: Path, ending: str | None) -> bool:
    return ending is not None and file_ending(file) in READERS["nifti"].endings and _stem(file).endswith(ending)


def _stem(file: Path) -> str:
    return file.name[: len(file.name) - len(name_ending(file))]


def _is_own_result(file: Path) -> bool:
    """Tell whether a file is a result of this package, not a scan to reconstruct.

    A NIfTI file says so in its ``descrip``, a DICOM file in its Manufacturer. One without is a result if it lies where
    a run puts it: ``NAME/NAME_recon*`` beside the ``metrics.csv`` and ``report.html`` of the run.
    """
    folder = file.parent
    if file.name.startswith(f"{folder.name}_recon") and all(
        (folder.parent / name).is_file() for name in ("metrics.csv", "report.html")
    ):
        return True
    name = file.name.lower()
    try:
        if name.endswith((".nii", ".nii.gz")):
            with gzip.open(file) if name.endswith(".gz") else file.open("rb") as opened:
                return _NAME.encode() in opened.read(_DESCRIP.stop)[_DESCRIP]
        with file.open("rb") as opened:
            start = opened.read(_WITHIN)
    except (OSError, EOFError, ValueError, zlib.error):  # damaged: its reader says so
        return False
    if start[128:132] != b"DICM":
        return False
    place = start.find(_MANUFACTURER)
    return place >= 0 and start[place + 8 : place + 8 + len(_NAME)] == _NAME.encode()
