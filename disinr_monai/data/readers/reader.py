"""File formats: :data:`READERS` has one entry each, and a listed case carries the key of the one that recognised it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from disinr_monai.data.readers import cil, dicom, fastmri, ismrmrd, nifti, pet, sinogram
from disinr_monai.data.readers.hdf5 import open_hdf5
from disinr_monai.data.readers.ismrmrd_acquisitions import has_ismrmrd
from disinr_monai.errors import InputError

_HDF5, _NEXUS = (".h5", ".hdf5"), (".nxs", ".nex")
_SIGNATURE, _STARTS = b"\x89HDF\r\n\x1a\n", (0, 512, 1024, 2048)  # of an HDF5 file, behind a block of the user's
_ALL = ("mri", "ct", "pet", "volume")


@dataclass(frozen=True)
class Wanted:
    """Which slices of a file become cases.

    Attributes:
        slices_per_subject: of a volume or fully sampled scan, evenly spaced over the middle half.
        whole: a volume is one case.
        axes: order of the axes of a PET sinogram, where the file does not say it.
        ct_geometry: what the user says of a CT sinogram, stronger than the file.
        scan: of a PET sinogram, ``"emission"`` or ``"transmission"``.
    """

    slices_per_subject: int = 4
    whole: bool = False
    axes: str | Sequence[str] | None = None
    ct_geometry: Mapping[str, Any] | None = None
    scan: str = "emission"

    def of(self, n_slices: int, is_raw: bool = False) -> list[int | None]:
        """Slice numbers: a few of an image or a full scan, all of a raw scan, ``[None]`` of a single slice."""
        if n_slices == 1 or self.whole:
            return [None]
        return list(range(n_slices)) if is_raw else list(spread_slices(n_slices, self.slices_per_subject))


def spread_slices(n_slices: int, n_wanted: int) -> list[int]:
    """``n_wanted`` slice numbers evenly spaced over the middle half of ``n_slices`` (fewer if there are fewer)."""
    low, high = (n_slices - 1) / 4, 3 * (n_slices - 1) / 4
    positions = np.linspace(low, high, n_wanted) if n_wanted > 1 else np.array([(low + high) / 2])
    return sorted({int(position + 0.5) for position in positions})


@dataclass(frozen=True)
class Reader:
    """One file format.

    Attributes:
        name: shown to people.
        kind: what it holds and how :attr:`read` is called, with the path and then

            * ``"image"``: the modality; returns a :class:`~disinr_monai.data.readers.voxels.Image`;
            * ``"kspace"``: slice number and ``select``; returns a :class:`~disinr_monai.data.readers.kspace.RawScan`;
            * ``"sinogram"``: as :func:`~disinr_monai.data.readers.sinogram.read_sinogram`;
            * ``"counts"``: as :func:`~disinr_monai.data.readers.pet.read_pet_sinogram`.

        modalities: that it can hold.
        endings: of file names, lower case. Those of HDF5 share their readers: contents decide.
        open: path to the file's contents, as a context manager; the same for all formats of one ending.
        recognises: whether contents are of this format.
        slices: contents, path and :class:`Wanted` to the slice numbers of the cases.
        read: see ``kind``; :class:`~disinr_monai.errors.InputError` for a file that cannot be read.
    """

    name: str
    kind: str
    modalities: tuple[str, ...]
    endings: tuple[str, ...]
    open: Callable[[Any], AbstractContextManager[Any]]
    recognises: Callable[[Any], bool]
    slices: Callable[[Any, Any, Wanted], list[int | None]]
    read: Callable[..., Any]


def _kspace(summary: Callable[[Any, Any], tuple[int, bool]]) -> Callable[[Any, Any, Wanted], list[int | None]]:
    def slices(file: Any, path: Any, wanted: Wanted) -> list[int | None]:
        n_slices, is_full = summary(file, path)
        return wanted.of(n_slices, is_raw=not is_full)

    return slices


READERS: dict[str, Reader] = {
    "fastmri_hdf5": Reader(
        "fastMRI HDF5", "kspace", ("mri",), _HDF5, open_hdf5,
        lambda file: "kspace" in file, _kspace(fastmri.fastmri_summary), fastmri.read_fastmri,
    ),
    "ismrmrd_hdf5": Reader(
        "ISMRMRD HDF5", "kspace", ("mri",), _HDF5, open_hdf5,
        has_ismrmrd, _kspace(ismrmrd.ismrmrd_summary), ismrmrd.read_ismrmrd,
    ),
    "hdf5_sinogram": Reader(
        "sinogram HDF5", "sinogram", ("ct",), _HDF5, open_hdf5, lambda file: "sinogram" in file,
        lambda file, path, wanted: wanted.of(sinogram.count_scans(file, path, wanted.ct_geometry), is_raw=True),
        sinogram.read_sinogram,
    ),
    "cil_nexus": Reader(
        "CIL NeXus", "sinogram", ("ct",), _NEXUS, open_hdf5, cil.has_nexus,
        lambda file, path, wanted: wanted.of(cil.count_nexus_scans(file, path, wanted.ct_geometry), is_raw=True),
        cil.read_nexus,
    ),
    "hdf5_pet_sinogram": Reader(
        "PET sinogram HDF5", "counts", ("pet",), _HDF5, open_hdf5,
        lambda file: "sinogram" in file or "transmission" in file,
        lambda file, path, wanted: pet.pet_planes(file, path, wanted.axes, wanted.scan), pet.read_pet_sinogram,
    ),
    "nifti": Reader(
        "NIfTI", "image", _ALL, (".nii", ".nii.gz"), nifti.open_nifti, lambda image: True,
        lambda image, path, wanted: wanted.of(nifti.nifti_slices(image)), nifti.read_nifti,
    ),
    "dicom": Reader(
        "DICOM", "image", _ALL, (), dicom.open_series, lambda n_slices: True,
        lambda n_slices, paths, wanted: wanted.of(n_slices), dicom.read_dicom,
    ),
}  # fmt: skip
"""Formats by key, which is also a case's ``info["format"]``; of two that recognise a file the first is taken."""


def reader_of(case: Mapping[str, Any]) -> Reader:
    """The reader that recognised a listed case."""
    return READERS[case["reader"]]


def recognise(
    source: Any, path: str | list[str], modality: str, wanted: Wanted
) -> tuple[str, list[int | None], InputError | None]:
    """Find the reader of a file.

    Args:
        source: what the readers open: a path, or a series of DICOM files.
        path: for messages.
        modality: a key of :data:`disinr_monai.modality.MODALITIES`.
        wanted: which slices.

    Returns:
        Its key, the slices that become cases (none of a measurement of another modality), and why the file cannot be
        read, if it cannot; the key is then of the reader that says so too.
    """
    ending = file_ending(source) if isinstance(source, Path) else ""
    endings = _HDF5 + _NEXUS if ending in _HDF5 + _NEXUS else (ending,)
    readers = {key: reader for key, reader in READERS.items() if set(endings) & {*(reader.endings or ("",))}}
    own = {key: reader for key, reader in readers.items() if modality in reader.modalities}
    if not own:
        return "", [], None
    # The reader that says what is wrong with contents that none recognises.
    named = name_ending(source) if isinstance(source, Path) else ""
    by_name = [key for key, reader in own.items() if named in (reader.endings or ("",))]
    found = (by_name or [*own])[0]
    try:
        with own[found].open(source) as contents:
            of_own = [key for key, reader in own.items() if reader.recognises(contents)]
            if not of_own and (not by_name or any(reader.recognises(contents) for reader in readers.values())):
                return found, [], None
            found = (of_own or [found])[0]
            return found, own[found].slices(contents, path, wanted), None
    except InputError as error:
        return found, [None], error


def file_ending(path: Path) -> str:
    """The ending by which readers are chosen: of the name, or ``.h5`` for HDF5 under any other name (``.mrd``)."""
    ending = name_ending(path)
    known = any(ending in reader.endings for reader in READERS.values())
    return ending if known or not _is_hdf5(path) else ".h5"


def _is_hdf5(path: Path) -> bool:
    try:
        with path.open("rb") as file:
            head = file.read(_STARTS[-1] + len(_SIGNATURE))
    except OSError:
        return False
    return any(head[start : start + len(_SIGNATURE)] == _SIGNATURE for start in _STARTS)


def name_ending(path: Path) -> str:
    """The ending of a file's name, lower case; ``.nii.gz`` is one."""
    return ".nii.gz" if path.name.lower().endswith(".nii.gz") else path.suffix.lower()
