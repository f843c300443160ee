"""Places and lengths that a damaged or hostile HDF5 file announces, before the library asks for the memory."""

import time

import h5py
import numpy as np
import pytest

from disinr_monai.data.readers.hdf5_trial import PROBE
from disinr_monai.errors import InputError
from tests.fuzz.examples import memory_mb
from tests.fuzz.readers import READERS

READ = READERS["ismrmrd"][2]


@pytest.fixture
def scan(tmp_path):
    path = tmp_path / "scan.h5"
    READERS["ismrmrd"][1](path)
    READ(path)  # the process that tries files out runs before anything is timed
    return path


def _refused(path, said):
    before, began = memory_mb(reset=True), time.monotonic()
    with pytest.raises(InputError, match=said):
        READ(path)
    assert memory_mb() - before < 100
    assert time.monotonic() - began < 5


def _element(path, number):
    """Where an acquisition begins in the file, and what follows its header there."""
    with h5py.File(path) as file:
        data, chunks = file["dataset/data"], []
        data.id.chunk_iter(lambda chunk: chunks.append(chunk.byte_offset))
        return chunks[number], data.id.get_type().get_member_offset(2)


def test_a_row_that_announces_gigabytes(scan):
    """HDF5 itself asks for the memory first: 2.1 GB and 5 s for this file of 18 kB."""
    content = bytearray(scan.read_bytes())
    start, data = _element(scan, 3)
    content[start + data : start + data + 4] = (540_000_000).to_bytes(4, "little")
    scan.write_bytes(content)
    _refused(scan, r"`dataset/data` announces 2,160,\d\d\d,\d\d\d bytes in rows of variable length")


def test_a_text_that_announces_gigabytes(scan):
    content = bytearray(scan.read_bytes())
    with h5py.File(scan) as file:
        place = file["dataset/xml"].id
        chunks = []
        place.chunk_iter(lambda chunk: chunks.append(chunk.byte_offset)) if file["dataset/xml"].chunks else None
        start = chunks[0] if chunks else place.get_offset()
    content[start : start + 4] = (2**31).to_bytes(4, "little")
    scan.write_bytes(content)
    assert "announces 2,147,483,648 bytes" in PROBE.problem(scan, "/dataset/xml")
    _refused(scan, "announces 2,147,483,648 bytes|far more memory")


def test_a_matrix_that_no_samples_fill(scan):
    """Without its check the mask of this matrix is 3.6 GB and takes seconds to look at."""
    content = scan.read_bytes()
    for tag in (b"x", b"y"):
        old = content.index(b"<encodedSpace><matrixSize>")
        at = content.index(b"<" + tag + b">", old) + 3
        content = content[:at] + b"60" + content[at + 2 :]
    scan.write_bytes(content)  # 60 x 60 is read, more digits need a header of another length
    with h5py.File(scan, "a") as file:
        xml = file["dataset/xml"][0].decode().replace("<x>60<", "<x>60000<", 1).replace("<y>60<", "<y>60000<", 1)
        file["dataset/xml"][0] = xml
    _refused(scan, "expected an encoded matrix that the .* samples can fill, found 60000 x 60000 x 1")


@pytest.mark.parametrize("way", ["link", "raw", "virtual"])
def test_values_in_another_file_are_not_followed(tmp_path, way):
    other, path = tmp_path / "other.h5", tmp_path / "scan.h5"
    READERS["fastmri"][1](other)
    READERS["fastmri"][1](path)
    with h5py.File(path, "a") as file:
        shape = file["kspace"].shape
        del file["kspace"]
        if way == "link":
            file["kspace"] = h5py.ExternalLink(str(other), "kspace")
        elif way == "raw":
            size = 8 * int(np.prod(shape))
            file.create_dataset("kspace", shape, "c8", external=[(str(other), 0, size)])
        else:
            layout = h5py.VirtualLayout(shape, "c8")
            layout[:] = h5py.VirtualSource(str(other), "kspace", shape)
            file.create_virtual_dataset("kspace", layout)
    with pytest.raises(InputError, match="`kspace` keeps its values in other files"):
        READERS["fastmri"][2](path)
