from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from xml.etree import ElementTree

from disinr_monai.errors import InputError

_LARGEST_MATRIX = 65535  # of a 16-bit encoding counter


@dataclass(frozen=True)
class Space:
    """Matrix size and field of view (mm) along readout, phase encoding and partition."""

    matrix: tuple[int, int, int]
    fov: tuple[float, float, float]


@dataclass(frozen=True)
class Encoding:
    """One ``<encoding>`` of an ISMRMRD header.

    Attributes:
        trajectory: ``cartesian``, ``radial``, ``spiral``, ...
        encoded: what was measured.
        recon: what is to come out.
        centres: counter of the central line and partition; None where the header does not say.
        calibration: ``embedded``, ``separate``, ... or empty.
        channels: receiver channels of the scanner; None where the header does not say.
        n_slices: from the limits of the slice counter; None where the header does not say.
    """

    trajectory: str
    encoded: Space
    recon: Space
    centres: tuple[int | None, int | None]
    calibration: str
    channels: int | None = None
    n_slices: int | None = None


def parse_ismrmrd_header(text: bytes | str, path: str | Path) -> list[Encoding]:
    """The encodings of an ISMRMRD XML header (schema http://www.ismrm.org/ISMRMRD), whatever namespace prefix it has.

    Raises:
        InputError: no XML, a document type of its own, no encoding, or a size or field of view that is missing or
            impossible.
    """
    raw = text.encode() if isinstance(text, str) else bytes(text)
    if b"<!DOCTYPE" in raw or b"<!ENTITY" in raw:
        raise InputError(f"{path}: expected a plain ISMRMRD XML header, found one with a document type; remove it")
    try:
        root = ElementTree.fromstring(raw)
    except (ElementTree.ParseError, ValueError, LookupError) as error:
        raise InputError(f"{path}: expected an ISMRMRD XML header, found damaged XML ({error})") from error
    for element in root.iter():
        element.tag = str(element.tag).rpartition("}")[2]
    channels = _count(root.find("acquisitionSystemInformation/receiverChannels"), 1)
    encodings = [replace(_encoding(element, path), channels=channels) for element in root.iter("encoding")]
    if not encodings:
        raise InputError(f"{path}: expected an <encoding> in the ISMRMRD header, found none")
    return encodings


def _encoding(element: ElementTree.Element, path: str | Path) -> Encoding:
    centres = []
    for name in ("kspace_encoding_step_1", "kspace_encoding_step_2"):
        limit = element.find(f"encodingLimits/{name}/center")
        key = f"encodingLimits/{name}/center"
        centres.append(None if limit is None else int(_number(limit, key, path, 0, whole=True)))
    last = _count(element.find("encodingLimits/slice/maximum"), 0)
    return Encoding(
        (element.findtext("trajectory") or "").strip().lower(),
        _space(element, "encodedSpace", path),
        _space(element, "reconSpace", path),
        (centres[0], centres[1]),
        (element.findtext("parallelImaging/calibrationMode") or "").strip().lower(),
        n_slices=None if last is None else last + 1,
    )


def _space(element: ElementTree.Element, name: str, path: str | Path) -> Space:
    def three(part: str, lowest: float, whole: bool = False) -> list[float]:
        return [_number(element.find(f"{name}/{part}/{x}"), f"{name}/{part}/{x}", path, lowest, whole) for x in "xyz"]

    matrix = [int(n) for n in three("matrixSize", 1, whole=True)]
    fov = three("fieldOfView_mm", 1e-6)
    return Space((matrix[0], matrix[1], matrix[2]), (fov[0], fov[1], fov[2]))


def _number(
    element: ElementTree.Element | None, name: str, path: str | Path, lowest: float, whole: bool = False
) -> float:
    text = "nothing" if element is None else (element.text or "").strip()
    try:
        value = float(text)
    except ValueError:
        value = float("nan")
    if not lowest <= value <= _LARGEST_MATRIX or (whole and value % 1):
        kind = ", a whole number," if whole else ""
        raise InputError(
            f"{path}: expected {name}{kind} from {lowest:g} to {_LARGEST_MATRIX} in the ISMRMRD header, found "
            f"{text[:40]!r}"
        )
    return value


def _count(element: ElementTree.Element | None, lowest: int) -> int | None:
    """A whole number that the header may leave out; None also for what is no number."""
    text = "" if element is None else (element.text or "").strip()
    return int(text) if text.isdecimal() and lowest <= int(text) <= _LARGEST_MATRIX else None
