"""Damaged and arbitrary files: a reader returns, or raises InputError with one line; nothing else, and soon."""

import itertools
import warnings

import h5py
import numpy as np
import pytest

pytest.importorskip("hypothesis")
from hypothesis import strategies as st

from disinr_monai.errors import InputError
from tests.fuzz.examples import FEW, MANY, memory_mb, run
from tests.fuzz.readers import READERS

_MEMORY_MB = 600
_counter = itertools.count()
_HDF5 = ["fastmri", "ismrmrd", "trajectory", "sinogram", "pet", "nexus"]

# Offsets lean to the front, where headers are; several bytes change together, as in a damaged number.
_damage = st.tuples(st.floats(0, 1), st.binary(min_size=1, max_size=8))
_damages = st.tuples(st.lists(_damage, max_size=6), st.one_of(st.none(), st.floats(0, 1)), st.integers(1, 4))


@pytest.fixture(scope="module")
def valid(tmp_path_factory):
    folder = tmp_path_factory.mktemp("valid")
    found = {}
    for name, (ending, write, read) in READERS.items():
        path = folder / f"{name}{ending}"
        write(path)
        read(path)  # what is damaged below is readable to begin with
        found[name] = path.read_bytes()
    return found


def check(folder, name, write):
    ending, _, read = READERS[name]
    path = folder / f"{next(_counter)}{ending}"  # never the same twice: series are cached by their paths
    write(path)
    said = str(path)
    before = memory_mb(reset=True)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            read(path)
    except InputError as error:
        said = str(error)
    finally:
        path.unlink()
    assert "\n" not in said
    assert str(path) in said or str(folder) in said
    assert memory_mb() - before < _MEMORY_MB


def _changed(content, damages):
    changes, end, power = damages
    data = bytearray(content)
    for where, new in changes:
        at = int(where**power * (len(data) - 1))
        data[at : at + len(new)] = new[: len(data) - at]
    return bytes(data if end is None else data[: int(end * len(data))])


def _fuzz_bytes(valid, folder, name, n_examples):
    def body(damages):
        check(folder, name, lambda path: path.write_bytes(_changed(valid[name], damages)))

    run(_damages, body, n_examples, f"{name}: changed bytes")


@pytest.mark.parametrize("name", READERS)
def test_changed_bytes_and_truncation(valid, tmp_path, name):
    _fuzz_bytes(valid, tmp_path, name, FEW)


@pytest.mark.slow
@pytest.mark.parametrize("name", READERS)
def test_changed_bytes_and_truncation_many(valid, tmp_path, name):
    _fuzz_bytes(valid, tmp_path, name, MANY)


_dtypes = st.sampled_from(["f4", ">f8", "c8", "c16", "i2", ">u4", "?", "S5", "f2", "u8"])
_shapes = st.lists(st.sampled_from([0, 1, 2, 3, 10, 12]), max_size=5).map(tuple)
_values = st.sampled_from([0.0, 1.0, -1.0, 1e30, 1e308, float("nan"), float("inf"), 0.5, 4.0])


@st.composite
def _contents(draw, keys):
    """HDF5 members by name: an array of any type, shape and value, a group, text, or nothing of that name."""
    found = {}
    for key in draw(st.lists(st.sampled_from(keys), unique=True, max_size=len(keys))):
        kind = draw(st.sampled_from(["array", "array", "array", "group", "text", "empty"]))
        found[key] = kind if kind != "array" else (draw(_dtypes), draw(_shapes), draw(_values), draw(st.booleans()))
    return found


_KEYS = {
    "fastmri": ["kspace", "mask", "sensitivity_maps", "noise", "ismrmrd_header", "reconstruction_rss"],
    "trajectory": ["kspace", "trajectory", "image_shape", "mask"],
    "sinogram": ["sinogram", "angles", "image_shape", "affine", "pixel_spacing", "water_attenuation"],
    "pet": ["sinogram", "transmission", "blank", "attenuation_factors", "attenuation", "background", "angles", "axes"],
    "nexus": [
        "entry1/tomo_entry/data/data",
        "entry1/tomo_entry/config/angles",
        "entry1/tomo_entry/config/ray/direction",
        "entry1/tomo_entry/config/rotation_axis/position",
        "entry1/tomo_entry/config",
        "NeXus_version",
        "creator",
    ],
    "ismrmrd": ["dataset/xml", "dataset/data", "dataset", "kspace"],
}


def _put(file, key, value):
    file.pop(key, None)
    if value == "group":
        file.create_group(key)
    elif value == "text":
        file[key] = "<a>& text"
    elif value == "empty":
        file[key] = h5py.Empty("f4")
    else:
        dtype, shape, number, as_attribute = value
        array = np.random.default_rng(0).random(shape).astype(np.float64)
        array.reshape(-1)[:1] = number
        array = array.astype(dtype)
        if as_attribute:
            file.attrs[key] = array
        else:
            file[key] = array


def _fuzz_contents(valid, folder, name, n_examples):
    def body(contents):
        def write(path):
            path.write_bytes(valid[name])
            with h5py.File(path, "a") as file:
                for key, value in contents.items():
                    try:
                        _put(file, key, value)
                    except (ValueError, TypeError, OSError):  # the members contradict each other
                        continue

        check(folder, name, write)

    with np.errstate(all="ignore"):
        run(_contents(_KEYS[name]), body, n_examples, f"{name}: arbitrary members")


@pytest.mark.parametrize("name", _HDF5)
def test_arbitrary_members(valid, tmp_path, name):
    _fuzz_contents(valid, tmp_path, name, FEW)


@pytest.mark.slow
@pytest.mark.parametrize("name", _HDF5)
def test_arbitrary_members_many(valid, tmp_path, name):
    _fuzz_contents(valid, tmp_path, name, MANY)


@pytest.mark.parametrize("name", READERS)
def test_nothing_inside(tmp_path, name):
    with pytest.raises(InputError):
        READERS[name][2](_empty(tmp_path / f"empty{READERS[name][0]}"))


def _empty(path):
    path.touch()
    return path


@pytest.mark.parametrize(("name", "key", "shape"), [
    ("fastmri", "kspace", (4, 30, 20000, 20000)), ("sinogram", "sinogram", (60000, 60000)),
    ("fastmri", "mask", (10**9,)),
])  # fmt: skip
def test_announced_sizes_are_checked_before_memory_is_asked_for(valid, tmp_path, name, key, shape):
    def write(path):
        path.write_bytes(valid[name])
        with h5py.File(path, "a") as file:
            del file[key]
            dtype = "c8" if key == "kspace" else "f4"
            file.create_dataset(key, shape, dtype, chunks=tuple(min(n, 100) for n in shape))

    path = tmp_path / f"bomb{READERS[name][0]}"
    write(path)
    with pytest.raises(InputError, match=f"`{key}` announces"):
        READERS[name][2](path)
