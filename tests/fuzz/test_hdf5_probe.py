"""Files that crash the HDF5 library do not crash the run, and the helper process that finds out is replaced."""

from __future__ import annotations

import os
import subprocess
import sys

import h5py

from disinr_monai.data.hdf5_probe import Probe
from tests.conftest import ROOT
from tests.fuzz.crashing import crashing_hdf5


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
    first.communicate()
