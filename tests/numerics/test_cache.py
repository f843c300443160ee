import os
import subprocess
import sys

import numpy as np
import pytest
import torch

from disinr_monai.data.coils.espirit import espirit_maps
from disinr_monai.errors import InputError
from disinr_monai.numerics import cache
from disinr_monai.numerics.cache import DiskCache, cache_key, clear_cache, default_cache_dir, use_cache
from tests.conftest import ROOT

A, B, C = (cache_key(name=name) for name in "abc")
ARRAYS = DiskCache("arrays", lambda value: {"value": value}, lambda arrays: arrays["value"])


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.setenv("DISINR_CACHE", str(tmp_path))
    return tmp_path / "arrays"


def _never() -> np.ndarray:
    raise AssertionError("computed again")


def test_a_home_folder_is_expanded_for_all_that_is_stored(tmp_path, monkeypatch):
    """A folder named `~` is never made in the working folder."""
    home, here = tmp_path / "home", tmp_path / "here"
    home.mkdir()
    here.mkdir()
    monkeypatch.chdir(here)
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.setenv("USERPROFILE", str(home))
    monkeypatch.setenv("DISINR_CACHE", "~/cache")
    assert default_cache_dir() == home / "cache"
    espirit_maps(torch.randn(2, 24, 24, dtype=torch.complex64), 12)
    ARRAYS.get(A, lambda: np.ones(1))
    assert not list(here.iterdir())
    assert {path.parent.name for path in (home / "cache").rglob("*.npz")} == {"espirit", "arrays"}


def test_what_is_stored_is_not_computed_again(folder):
    first = ARRAYS.get(A, lambda: np.arange(3))
    np.testing.assert_array_equal(ARRAYS.get(A, _never), first)
    assert [path.name for path in folder.iterdir()] == [f"{A}.npz"]


@pytest.mark.parametrize("content", [b"", b"no archive"])
def test_a_damaged_file_is_replaced(folder, content):
    ARRAYS.get(A, lambda: np.ones(3))
    (folder / f"{A}.npz").write_bytes(content)
    np.testing.assert_array_equal(ARRAYS.get(A, lambda: np.ones(3)), np.ones(3))
    np.testing.assert_array_equal(ARRAYS.get(A, _never), np.ones(3))


def test_a_file_of_another_key_is_replaced(folder):
    ARRAYS.get(A, lambda: np.ones(3))
    (folder / f"{A}.npz").replace(folder / f"{B}.npz")
    np.testing.assert_array_equal(ARRAYS.get(B, lambda: np.zeros(3)), np.zeros(3))


def test_the_least_recently_used_go_first(folder, monkeypatch):
    monkeypatch.setattr(cache._SETTINGS, "max_bytes", 2800)
    for number, key in enumerate((A, B)):
        ARRAYS.get(key, lambda: np.ones(60))
        os.utime(folder / f"{key}.npz", (number, number))
    ARRAYS.get(A, _never)
    ARRAYS.get(C, lambda: np.ones(60))
    assert sorted(path.stem for path in folder.iterdir()) == sorted([A, C])


def test_a_folder_that_cannot_be_written_is_no_cache(tmp_path):
    (tmp_path / "file").write_text("in the way")
    np.testing.assert_array_equal(ARRAYS.get(A, lambda: np.ones(2), tmp_path / "file" / "below"), np.ones(2))


@pytest.fixture
def settings(monkeypatch):
    """Those of this process come back."""
    monkeypatch.setattr(cache, "_SETTINGS", cache._Settings())


def test_the_bound_is_of_all_caches_together(folder, settings):
    use_cache(max_bytes=2800)
    others = DiskCache("others", ARRAYS.pack, ARRAYS.unpack)
    for number, (one, key) in enumerate([(ARRAYS, A), (others, B), (ARRAYS, C)]):
        one.get(key, lambda: np.ones(60))
        for file in folder.parent.rglob(f"{key}.npz"):
            os.utime(file, (number, number))
    assert {file.stem for file in folder.parent.rglob("*.npz")} == {B, C}
    assert sum(file.stat().st_size for file in folder.parent.rglob("*.npz")) <= 2800


def test_a_bound_of_0_stores_nothing(folder, settings):
    use_cache(max_bytes=0)
    np.testing.assert_array_equal(ARRAYS.get(A, lambda: np.ones(3)), np.ones(3))
    assert not folder.exists()


@pytest.mark.parametrize("wrong", [-1, 1.5, "2 GB"])
def test_a_bound_that_is_no_number_of_bytes_is_refused(settings, wrong):
    with pytest.raises(InputError, match="cache_bytes: expected a whole number of at least 0"):
        use_cache(max_bytes=wrong)


def test_a_given_folder_comes_before_the_environment(tmp_path, folder, settings):
    use_cache(tmp_path / "given")
    ARRAYS.get(A, lambda: np.ones(3))
    assert [path.parent.parent for path in tmp_path.rglob("*.npz")] == [tmp_path / "given"]
    use_cache(None)
    assert default_cache_dir() == tmp_path


def test_only_what_is_the_caches_is_cleared(folder):
    ARRAYS.get(A, lambda: np.ones(3))
    ARRAYS.get(B, lambda: np.ones(3))
    (folder / "mine.npz").write_bytes(b"12")
    (folder.parent / "notes.txt").write_text("mine")
    (folder.parent / "mlflow-3.1.4.db").write_bytes(b"1234")
    size = sum(path.stat().st_size for path in folder.parent.rglob("*") if path.is_file()) - 6
    done = subprocess.run(
        [sys.executable, "scripts/cache.py", "info", "--cache_dir", str(folder.parent)],
        cwd=ROOT, capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert done.stdout.splitlines()[-1] == f"{folder.parent}: 3 files, {size / 1e6:.1f} MB in all"
    assert clear_cache(folder.parent) == (3, size)
    assert {path.name for path in folder.parent.rglob("*") if path.is_file()} == {"mine.npz", "notes.txt"}
