"""Files that crash the HDF5 library do not crash the run, and the helper process that finds out is replaced."""

import os
import signal
import subprocess
import sys
from types import SimpleNamespace

import h5py
import pytest

from disinr_monai.data.readers.hdf5_trial import Probe
from tests.conftest import ROOT
from tests.fuzz.crashing import crashing_hdf5
from tests.fuzz.readers import READERS


def test_a_file_that_crashes_the_library_is_refused_in_one_line(tmp_path):
    path = tmp_path / "damaged.h5"
    path.write_bytes(crashing_hdf5())
    code = (
        "import sys; from disinr_monai.data import list_cases; from disinr_monai.errors import InputError\n"
        "try: list_cases(sys.argv[1], 'pet')\n"
        "except InputError as error: print(error)\n"
    )
    done = subprocess.run([sys.executable, "-c", code, path], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("\n") == 1
    assert "damaged.h5" in done.stdout


def test_a_file_that_makes_the_library_take_memory_is_refused_and_the_others_are_not(tmp_path):
    good, path, probe = tmp_path / "good.h5", tmp_path / "greedy.h5", Probe()
    READERS["pet"][1](good)
    content = bytearray(good.read_bytes())
    content[4707] = 0x25  # fuzzing found it: the size of a text in the file's heap, 606 MB
    path.write_bytes(content)
    assert probe.problem(good) == ""
    assert "far more memory" in probe.problem(path)
    good.touch()  # asked again, with the bound of the file before gone
    assert probe.problem(good) == ""
    probe.close()


def test_a_file_that_keeps_the_library_busy_is_given_up():
    """Work without end ends the helper, in C too, where Python sees no signal."""
    code = (
        "import itertools, disinr_monai.data.readers.hdf5_trial as probe\n"
        "probe._CPU_SECONDS = 0.5\n"
        "with probe.limited('any'): sum(itertools.repeat(0))\n"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, timeout=120, check=False)
    assert done.returncode == -signal.SIGPROF


def test_an_interrupted_question_is_not_answered_later(tmp_path, monkeypatch):
    """An answer that comes late would be taken for one about the next file."""
    path, probe = tmp_path / "a.h5", Probe()
    with h5py.File(path, "w") as file:
        file["values"] = [1.0]
    assert probe.problem(path) == ""
    first = probe._process

    def interrupt(**_):
        raise KeyboardInterrupt

    monkeypatch.setattr(probe, "_answers", SimpleNamespace(get=interrupt))
    path.touch()
    with pytest.raises(KeyboardInterrupt):
        probe.problem(path)
    assert first.poll() is not None
    assert probe.problem(path) == ""
    probe.close()


def test_a_helper_that_dies_names_the_file_and_the_next_is_asked_of_another(tmp_path):
    probe, paths = Probe(), [tmp_path / f"{i}.h5" for i in range(3)]
    for path in paths:
        with h5py.File(path, "w") as file:
            file["values"] = [1.0, 2.0]
            file.attrs["name"] = "value"
    assert probe.problem(paths[0]) == ""
    first = probe._process
    first.kill()
    first.wait()
    assert "crashes or hangs" in probe.problem(paths[1])
    assert probe.problem(paths[2]) == ""
    assert probe._process not in (None, first)
    probe.close()


def test_without_a_helper_files_are_read_untried(tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "executable", str(tmp_path / "no python"))
    (tmp_path / "file.h5").write_bytes(b"anything")
    assert Probe().problem(tmp_path / "file.h5") == ""


def test_a_fork_does_not_share_the_helper_of_its_parent(tmp_path, monkeypatch):
    path = tmp_path / "a.h5"
    with h5py.File(path, "w") as file:
        file["values"] = [1.0]
    probe = Probe()
    assert probe.problem(path) == ""
    first = probe._process
    monkeypatch.setattr(os, "getpid", lambda: -1)
    path.write_bytes(b"another file")
    assert probe.problem(path) == ""
    assert probe._process is not first
    probe.close()
    assert first.poll() is None, "a child must not end its parent's helper"
    first.kill()
    first.wait()
