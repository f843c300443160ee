import os

import numpy as np
import pytest
import torch

from disinr_monai.data.coils.espirit import espirit_maps
from disinr_monai.numerics import cache
from disinr_monai.numerics.cache import DiskCache, default_cache_dir

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
    ARRAYS.get("a", lambda: np.ones(1))
    assert not list(here.iterdir())
    assert {path.parent.name for path in (home / "cache").rglob("*.npz")} == {"espirit", "arrays"}


def test_what_is_stored_is_not_computed_again(folder):
    first = ARRAYS.get("a", lambda: np.arange(3))
    np.testing.assert_array_equal(ARRAYS.get("a", _never), first)
    assert [path.name for path in folder.iterdir()] == ["a.npz"]


@pytest.mark.parametrize("content", [b"", b"no archive"])
def test_a_damaged_file_is_replaced(folder, content):
    ARRAYS.get("a", lambda: np.ones(3))
    (folder / "a.npz").write_bytes(content)
    np.testing.assert_array_equal(ARRAYS.get("a", lambda: np.ones(3)), np.ones(3))
    np.testing.assert_array_equal(ARRAYS.get("a", _never), np.ones(3))


def test_a_file_of_another_key_is_replaced(folder):
    ARRAYS.get("a", lambda: np.ones(3))
    (folder / "a.npz").replace(folder / "b.npz")
    np.testing.assert_array_equal(ARRAYS.get("b", lambda: np.zeros(3)), np.zeros(3))


def test_the_least_recently_used_go_first(folder, monkeypatch):
    monkeypatch.setattr(cache, "_MAX_BYTES", 2000)
    for number, key in enumerate("ab"):
        ARRAYS.get(key, lambda: np.ones(60))
        os.utime(folder / f"{key}.npz", (number, number))
    ARRAYS.get("a", _never)
    ARRAYS.get("c", lambda: np.ones(60))
    assert sorted(path.stem for path in folder.iterdir()) == ["a", "c"]


def test_a_folder_that_cannot_be_written_is_no_cache(tmp_path):
    (tmp_path / "file").write_text("in the way")
    np.testing.assert_array_equal(ARRAYS.get("a", lambda: np.ones(2), tmp_path / "file" / "below"), np.ones(2))
