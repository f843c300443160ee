"""Checkpoints whose archive is sound and whose content is not: refused in one line, and nothing of them is executed."""

import io
import pickle
import zipfile

import pytest
import torch

pytest.importorskip("hypothesis")
from hypothesis import strategies as st

from disinr_monai.errors import InputError
from tests.fuzz.examples import FEW, MANY, run
from tests.fuzz.readers import READERS
from tests.fuzz.test_readers import check

KINDS = ["checkpoint", "resume"]


@pytest.fixture(scope="module")
def valid(tmp_path_factory):
    folder = tmp_path_factory.mktemp("valid")
    found = {}
    for kind in KINDS:
        READERS[kind][1](folder / f"{kind}.pt")
        found[kind] = torch.load(folder / f"{kind}.pt", weights_only=True)
    return found


_plain = st.recursive(
    st.one_of(
        st.none(), st.booleans(), st.integers(-3, 3), st.integers(), st.floats(), st.text(max_size=6),
        st.sampled_from(["mri", "ct", "{}", "[]", '{"prior": 3}', '{"network": "DisINR"}', "../../etc/passwd"]),
    ),
    lambda inner: st.one_of(
        st.lists(inner, max_size=3), st.dictionaries(st.text(max_size=4), inner, max_size=3)
    ),
    max_leaves=5,
)  # fmt: skip


@st.composite
def _tensor(draw):
    """What no training writes: other shapes, kinds, layouts and values, or far more than the file holds."""
    kind = draw(st.sampled_from(["shape", "nan", "huge", "sparse", "complex", "integer", "meta", "empty"]))
    if kind == "shape":
        return torch.zeros(draw(st.lists(st.integers(0, 5), max_size=4)))
    if kind == "integer":
        return torch.zeros(3, dtype=draw(st.sampled_from([torch.int8, torch.int64, torch.bool])))
    return {
        "nan": torch.tensor([1.0, float("nan")]),
        "huge": torch.zeros(1).expand(10**9, 10**3),
        "sparse": torch.eye(3).to_sparse(),
        "complex": torch.zeros(2, dtype=torch.complex64),
        "meta": torch.zeros(2, device="meta"),
        "empty": torch.empty(0),
    }[kind]


_values = st.one_of(_plain, _tensor())
# Where (a path of numbers through the nested dictionaries and lists), and what stands there afterwards.
_where = st.lists(st.integers(0, 10**6), min_size=1, max_size=4)
_changes = st.lists(st.tuples(_where, st.sampled_from(["set", "drop", "add"]), _values), min_size=1, max_size=3)


def _changed(node, path, action, value):
    """A copy of nested containers with one place changed."""
    if isinstance(node, dict) and node:
        keys = list(node)
        key = keys[path[0] % len(keys)]
        if len(path) > 1 and isinstance(node[key], (dict, list)) and len(node[key]):
            return {**node, key: _changed(node[key], path[1:], action, value)}
        if action == "drop":
            return {k: v for k, v in node.items() if k != key}
        return {**node, key if action == "set" else f"{key}.x": value}
    if isinstance(node, list) and node:
        at = path[0] % len(node)
        return [*node[:at], value, *node[at + 1 :]]
    return value


def _fuzz(valid, folder, kind, n_examples):
    def body(changes):
        content = dict(valid[kind])
        for path, action, value in changes:
            content = _changed(content, path, action, value)
        check(folder, kind, lambda file: torch.save(content, file))

    run(_changes, body, n_examples, f"{kind}: changed content")


@pytest.mark.parametrize("kind", KINDS)
def test_changed_content(valid, tmp_path, kind):
    _fuzz(valid, tmp_path, kind, FEW)


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_changed_content_many(valid, tmp_path, kind):
    _fuzz(valid, tmp_path, kind, MANY)


class _Code:
    def __init__(self, flag):
        self.flag = flag

    def __reduce__(self):
        return (open, (str(self.flag), "w"))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("way", ["archive", "inside", "old format", "plain", "metadata"])
def test_code_in_a_checkpoint_is_not_executed(valid, tmp_path, kind, way):
    flag, path = tmp_path / "executed", tmp_path / "model.pt"
    if way == "plain":
        path.write_bytes(pickle.dumps(_Code(flag)))
    elif way == "metadata":
        state = torch.nn.Linear(2, 2).state_dict()
        state._metadata["disinr_monai"] = _Code(flag)
        torch.save(state, path)
    elif way == "inside":
        torch.save({**valid[kind], "info": _Code(flag), "settings": _Code(flag)}, path)
    else:
        torch.save(_Code(flag), path, _use_new_zipfile_serialization=way == "archive")
    flag.unlink(missing_ok=True)
    with pytest.raises(InputError, match=r"model\.pt"):
        READERS[kind][2](path)
    assert not flag.exists()
    pickle.loads(pickle.dumps(_Code(flag))).close()  # the code does what the check above would see
    assert flag.exists()


@pytest.mark.parametrize("kind", KINDS)
def test_one_flipped_bit_of_a_weight_is_found(valid, tmp_path, kind):
    path = tmp_path / "model.pt"
    torch.save(valid[kind], path)
    content = bytearray(path.read_bytes())
    with zipfile.ZipFile(path) as archive:
        largest = max((m for m in archive.infolist() if "/data/" in m.filename), key=lambda m: m.file_size)
    content[largest.header_offset + 200] ^= 1
    path.write_bytes(content)
    torch.load(path, weights_only=True)  # PyTorch does not notice
    with pytest.raises(InputError, match="does not fit its checksum"):
        READERS[kind][2](path)


@pytest.mark.parametrize("kind", KINDS)
def test_an_archive_that_announces_more_than_it_holds(valid, tmp_path, kind):
    file = io.BytesIO()
    torch.save({**valid[kind], "zeros": torch.zeros(5_000_000)}, file)
    path = tmp_path / "bomb.pt"
    with zipfile.ZipFile(file) as plain, zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as packed:
        for member in plain.infolist():
            packed.writestr(member.filename, plain.read(member))
    assert path.stat().st_size < 1e6
    with pytest.raises(InputError, match="is compressed"):
        READERS[kind][2](path)


@pytest.mark.parametrize("key", ["random", "lr_scheduler", "optimizer"])
def test_a_tensor_that_announces_more_than_the_file_holds(valid, tmp_path, key):
    torch.save({**valid["resume"], key: {"x": [torch.zeros(1).expand(10**9, 10**3)]}}, tmp_path / "model.pt")
    with pytest.raises(InputError, match=rf"\['{key}'\]\['x'\]\[0\] announces shape .*more than the file holds"):
        READERS["resume"][2](tmp_path / "model.pt")


@pytest.mark.parametrize("folder", ["../other.pt", "/etc/other.pt", "sub/other.pt"])
def test_parts_of_a_resume_checkpoint_lie_in_its_folder(valid, tmp_path, folder):
    torch.save({**valid["resume"], "parts": [folder]}, tmp_path / "model.pt")
    with pytest.raises(InputError, match="names of parts with a folder"):
        READERS["resume"][2](tmp_path / "model.pt")
