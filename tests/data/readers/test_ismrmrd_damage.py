import shutil

import h5py
import ismrmrd
import numpy as np
import pytest

from disinr_monai.data.readers.ismrmrd import read_ismrmrd
from disinr_monai.errors import InputError
from tests.data.readers.ismrmrd_files import NX, NY, POINTS, grid, header, write_scan


def _change(path, change):
    with h5py.File(path, "a") as file:
        data = file["dataset/data"][...]
        change(data)
        file["dataset/data"][...] = data


def _huge(data):
    data["head"]["number_of_samples"][3] = 65000


def _outside(data):
    data["head"]["idx"]["kspace_encode_step_1"][3] = 65000


def _coils(data):
    data["head"]["active_channels"][3] = 0


def _nan(data):
    data["data"][3][0] = np.nan


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    return write_scan(tmp_path_factory.mktemp("ismrmrd") / "scan.h5", grid(NX, NY, POINTS))


@pytest.fixture
def copied(whole, tmp_path):
    return shutil.copy(whole, tmp_path / "scan.h5")


DAMAGE = {
    "size": (_huge, "acquisition 3: expected 390000 numbers"),
    "outside": (_outside, "expected kspace_encode_step_1 within the encoded matrix of 40"),
    "coils": (_coils, "expected one number of coils"),
    "nan": (_nan, "samples must be finite"),
}


@pytest.mark.parametrize("problem", DAMAGE)
def test_damaged_acquisitions(copied, problem):
    change, message = DAMAGE[problem]
    path = copied
    _change(path, change)
    with pytest.raises(InputError, match=message):
        read_ismrmrd(path)


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("<x>48</x>", "<x>minus</x>", "reconSpace/matrixSize/x, a whole number, from 1 to 65535.*found 'minus'"),
        ("<x>48</x>", "<x>35.9996</x>", "expected reconSpace/matrixSize/x, a whole number, .*found '35.9996'"),
        ("<y>40</y>", "<y>-40</y>", "expected encodedSpace/matrixSize/y, a whole number, from 1"),
        ("<y>40</y>", "<y>60000</y>", "encoded matrix that the 3840 samples can fill"),
        ("<fieldOfView_mm>", "<fieldOfView>", "found damaged XML"),
        ("<encodedSpace>", "<!-- --><encodedSpace><nothing/>", ""),
        ('<?xml version="1.0"?>', '<!DOCTYPE a [<!ENTITY b "c">]>', "with a document type"),
        ("<trajectory>cartesian", "<trajectory>spiral", "expected spiral readouts of one size with a 2-D trajectory"),
    ],
)
def test_damaged_headers(copied, old, new, message):
    path = copied
    with ismrmrd.Dataset(str(path)) as file:
        file.write_xml_header(header(NX, NY).replace(old, new).encode())
    if not message:
        assert read_ismrmrd(path).is_full
        return
    with pytest.raises(InputError, match=message) as error:
        read_ismrmrd(path)
    assert str(path) in str(error.value)
