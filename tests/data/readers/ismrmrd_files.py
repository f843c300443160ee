"""ISMRMRD files written with ISMRMRD's own library, of an object whose place in the patient is known."""

from collections.abc import Iterable
from pathlib import Path
from typing import Self

import ismrmrd
import numpy as np
from numpy.typing import NDArray

FOV = (96.0, 80.0)  # mm, reconstructed
NX, NY = 48, 40
# Asymmetric: nothing but the right order and signs of the axes puts both sources where they belong.
POINTS = np.array([[18.0, 10.0], [-12.0, 24.0]])
POSITION = np.array([11.0, -7.0, 42.0])
HEADER = """<?xml version="1.0"?>
<ismrmrdHeader xmlns="http://www.ismrm.org/ISMRMRD">
 <experimentalConditions><H1resonanceFrequency_Hz>63500000</H1resonanceFrequency_Hz></experimentalConditions>
 <encoding>
  <encodedSpace><matrixSize><x>{ex}</x><y>{ny}</y><z>{nz}</z></matrixSize>
   <fieldOfView_mm><x>{efx}</x><y>{efy}</y><z>{efz}</z></fieldOfView_mm></encodedSpace>
  <reconSpace><matrixSize><x>{rx}</x><y>{ry}</y><z>{rz}</z></matrixSize>
   <fieldOfView_mm><x>{rfx}</x><y>{rfy}</y><z>{rfz}</z></fieldOfView_mm></reconSpace>
  <encodingLimits>{limits}</encodingLimits>
  <trajectory>{trajectory}</trajectory>{parallel}
 </encoding>
</ismrmrdHeader>"""


def header(
    nx: int,
    ny: int,
    nz: int = 1,
    *,
    oversampling: float = 2,
    trajectory: str = "cartesian",
    centre: int | None = None,
    thickness: float = 5.0,
    calibration: str = "",
    phase_fov: float = FOV[1],
    recon_phase_fov: float = FOV[1],
    kept_partitions: int | None = None,
) -> str:
    kept = nz if kept_partitions is None else kept_partitions
    limits = (
        ""
        if centre is None
        else (
            f"<kspace_encoding_step_1><minimum>0</minimum><maximum>{ny - 1}</maximum><center>{centre}</center>"
            "</kspace_encoding_step_1>"
        )
    )
    parallel = (
        ""
        if not calibration
        else (
            "<parallelImaging><accelerationFactor><kspace_encoding_step_1>2</kspace_encoding_step_1>"
            "<kspace_encoding_step_2>1</kspace_encoding_step_2></accelerationFactor>"
            f"<calibrationMode>{calibration}</calibrationMode></parallelImaging>"
        )
    )
    return HEADER.format(
        ex=round(oversampling * nx),
        ny=ny,
        nz=nz,
        efx=oversampling * FOV[0],
        efy=phase_fov,
        efz=thickness * nz,
        rx=nx,
        ry=round(ny * recon_phase_fov / phase_fov),
        rz=kept,
        rfx=FOV[0],
        rfy=recon_phase_fov,
        rfz=thickness * kept,
        limits=limits,
        trajectory=trajectory,
        parallel=parallel,
    )


def kspace_at(k: NDArray, points: NDArray, n_coils: int = 3) -> NDArray:
    """Samples ``(coil, ...)`` at ``k`` ``(..., D)`` (cycles/mm) of point sources ``(n, D)`` (mm from the centre).

    Each coil sees the sources with other weights; they are Gaussians of 2 mm, known in both spaces.
    """
    size = 2.0
    phases = np.exp(-2j * np.pi * np.tensordot(k, points, axes=(-1, -1)))
    envelope = np.exp(-2 * (np.pi * size) ** 2 * (k**2).sum(-1))
    strength = np.linspace(1, 2, len(points))
    weights = np.stack([strength * np.exp(0.3j * c) * (1 + 0.2 * c) for c in range(n_coils)])
    return np.moveaxis((phases * envelope[..., None]) @ weights.T, -1, 0)


class Writer:
    """Append acquisitions to a file, with the geometry of one scan.

    Args:
        path: the file.
        xml: header.
        directions: 3x3, columns read, phase, slice (patient coordinates, LPS).
        position: middle of the slice or slab, LPS mm.
    """

    def __init__(self, path: Path, xml: str, directions: NDArray, position: NDArray) -> None:
        self.dataset = ismrmrd.Dataset(str(path), "dataset", create_if_needed=True)
        self.dataset.write_xml_header(xml.encode())
        self.directions, self.position = directions, position

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.dataset.close()

    def line(
        self,
        data: NDArray,
        *,
        centre: int | None = None,
        flags: tuple[int, ...] = (),
        trajectory: NDArray | None = None,
        shift: float = 0.0,
        discard: tuple[int, int] = (0, 0),
        encoding: int = 0,
        **counters: int,
    ) -> None:
        acquisition = ismrmrd.Acquisition.from_array(
            np.ascontiguousarray(data, dtype=np.complex64),
            None if trajectory is None else np.ascontiguousarray(trajectory, dtype=np.float32),
            center_sample=data.shape[1] // 2 if centre is None else centre,
            discard_pre=discard[0],
            discard_post=discard[1],
            encoding_space_ref=encoding,
        )
        for name, value in counters.items():
            setattr(acquisition.idx, name, value)
        for flag in flags:
            acquisition.set_flag(flag)
        acquisition.read_dir[:], acquisition.phase_dir[:], acquisition.slice_dir[:] = self.directions.T
        acquisition.position[:] = self.position + shift * self.directions[:, 2]
        self.dataset.append_acquisition(acquisition)


def oblique() -> NDArray:
    """Directions of an oblique slice, right-handed."""
    a, b = np.deg2rad((25.0, -15.0))
    first = np.array([[np.cos(a), -np.sin(a), 0], [np.sin(a), np.cos(a), 0], [0, 0, 1]])
    second = np.array([[1, 0, 0], [0, np.cos(b), -np.sin(b)], [0, np.sin(b), np.cos(b)]])
    return first @ second


def frequencies(n: int, fov: float) -> NDArray:
    return (np.arange(n) - n // 2) / fov


def grid(nx: int, ny: int, points: NDArray, oversampling: float = 2, phase_fov: float = FOV[1]) -> NDArray:
    """Cartesian k-space ``(coil, readout, line)`` of point sources (mm from the middle)."""
    kx, ky = frequencies(round(oversampling * nx), oversampling * FOV[0]), frequencies(ny, phase_fov)
    return kspace_at(np.stack(np.meshgrid(kx, ky, indexing="ij"), axis=-1), points)


def write_scan(path: Path, kspace: NDArray, directions: NDArray | None = None, xml: str | None = None) -> Path:
    """Write all lines of a Cartesian slice."""
    with Writer(path, xml or header(NX, NY), oblique() if directions is None else directions, POSITION) as writer:
        for w in range(kspace.shape[-1]):
            writer.line(kspace[..., w], kspace_encode_step_1=w)
    return path


def write_slab(path: Path, points: NDArray, lines: Iterable[int]) -> None:
    """Write some lines of a 3-D scan of eight partitions, six of which are kept."""
    n, thickness = 8, 4.0
    axes = frequencies(2 * NX, 2 * FOV[0]), frequencies(NY, FOV[1]), frequencies(n, n * thickness)
    kspace = kspace_at(np.stack(np.meshgrid(*axes, indexing="ij"), axis=-1), points)
    xml = header(NX, NY, n, thickness=thickness, kept_partitions=6)
    with Writer(path, xml, oblique(), POSITION) as writer:
        for p in range(n):
            for w in lines:
                writer.line(kspace[:, :, w, p], kspace_encode_step_1=w, kspace_encode_step_2=p)
