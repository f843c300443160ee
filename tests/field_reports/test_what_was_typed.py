"""Paths and names of the command line are used letter by letter, whatever Fire, MONAI, SQLAlchemy and MLflow read."""

from __future__ import annotations

import os
import sqlite3
import subprocess
import sys
import warnings
from pathlib import Path

import fire
import h5py
import nibabel
import numpy as np
import pytest
from monai.bundle import ConfigParser, ConfigWorkflow, create_workflow
from monai.bundle import run as monai_run

from disinr_monai.bundle import literal
from disinr_monai.errors import InputError
from disinr_monai.runtime.command_line import typed_words
from disinr_monai.runtime.run import RUN
from disinr_monai.runtime.shown_errors import one_line
from disinr_monai.tracking.mlflow_client import Client
from tests.conftest import ROOT
from tests.runs import OF, SMALL, _own_logging
from tests.workflows import config_files

HOSTILE = ["data#2", "50% dose?x=1", "Größe münchen", 'it\'s "q"', "a::b", "$home", "@scans", "2024", "'quoted'", "[1]"]


def write_scan(folder: Path, scale: float, n: int = 16) -> None:
    """Multi-coil k-space of a disc of brightness ``scale``."""
    folder.mkdir(parents=True)
    y, x = np.mgrid[:n, :n] - n // 2
    disc = scale * (x**2 + y**2 < 25)
    maps = np.stack([np.exp(-((x - a) ** 2 + y**2) / 200) for a in (5, -5)])
    with h5py.File(folder / "scan.h5", "w") as file:
        file["kspace"] = np.fft.fftshift(np.fft.fft2(np.fft.ifftshift(maps * disc, axes=(1, 2)), norm="ortho"), (1, 2))[
            None
        ].astype(np.complex64)


def command(*words: str) -> None:
    """The words of a command line, by way of Fire as `python -m monai.bundle run` reads them."""
    files = [str(ROOT / "configs" / f"{name}.json") for name in ("inference", "mri", "ngp", "quick")]
    options = [f"--{key}={value}" for key, value in {**SMALL, **OF["mri"]}.items()]
    with _own_logging(), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        fire.Fire(monai_run, command=["inference", "--config_file", str(files), *options, "--quiet", "true", *words])


@pytest.mark.parametrize("name", HOSTILE)
def test_every_text_option_is_taken_as_typed(tmp_path, monkeypatch, name):
    """As bare relative names; a run up to its first scan."""
    monkeypatch.chdir(tmp_path)
    files = str(config_files("inference", "mri", "ngp"))
    words = ["--config_file", files, "--logging_file", "False", "--dataset_dir", name, f"--output_dir=out {name}"]
    words += ["--run_name", name, "--experiment_name", f"{name}!", "--pattern", "uniform#1"]
    made = []
    with _own_logging(), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        fire.Fire(lambda **options: made.append(create_workflow(**options)), command=words)
    content = made[0].parser.get_parsed_content
    assert (content("dataset_dir"), content("output_dir")) == (name, f"out {name}")
    assert (content("run_name"), content("experiment_name"), content("pattern")) == (name, f"{name}!", "uniform#1")
    assert (RUN.config["dataset_dir"], RUN.config["run_name"]) == (name, name)
    assert [path.name for path in tmp_path.iterdir()] == [f"out {name}"]


def test_the_scan_of_the_typed_folder_is_reconstructed_and_tracked(tmp_path, monkeypatch):
    """Zero-filled, so that the maximum is the object's; with another scan where a mangled name would lead."""
    monkeypatch.chdir(tmp_path)
    names = {"data": "out", "data#2": "out#50% dose?x=1"}
    found = {}
    for name, scale in zip(names, (1.0, 10.0), strict=True):
        write_scan(tmp_path / name, scale)
    for name, out in names.items():
        options = ("--inferer", "@classical#zero_filled", "--method", "zero_filled", "--run_name", "100%#a")
        command("--dataset_dir", name, "--output_dir", out, *options)
        found[name] = nibabel.load(tmp_path / out / "scan" / "scan_recon.nii.gz").get_fdata().max()
        with sqlite3.connect(tmp_path / out / "mlruns.db") as database:
            runs = [row[0] for row in database.execute("SELECT name FROM runs WHERE status = 'FINISHED'")]
            settings = dict(database.execute("SELECT key, value FROM params"))
        database.close()
        assert any(run.startswith("100%#a-2") for run in runs)
        assert settings["dataset_dir"] == name
        assert list((tmp_path / out / "mlruns").rglob("scan_recon.png"))
    assert found["data#2"] == pytest.approx(10 * found["data"], rel=1e-3)
    assert {path.name for path in tmp_path.iterdir()} == {*names, *names.values()}


@pytest.mark.parametrize("text", [*HOSTILE, "#", "%macro", "x@#1", "$None", "back\\slash", "a#b::c"])
def test_a_literal_text_comes_back_from_the_config_language(text):
    parser = ConfigParser({"text": literal(text), "group": {"inner": "@text"}})
    assert parser.get_parsed_content("text") == text
    assert parser.get_parsed_content("group")["inner"] == text


def test_words_by_key():
    words = ["run", "inference", "--a", "x#y", "--b=c=d", "--quiet", "--dry-run", "-1", "--a", "last", "-z", "q"]
    assert typed_words(words) == {"a": "last", "b": "c=d", "dry_run": "-1", "z": "q"}


def test_texts_from_python_are_literal_where_they_are_no_config_language(tmp_path):
    write_scan(tmp_path / "data#2", scale=1.0)
    options = {"dataset_dir": str(tmp_path / "data#2"), "output_dir": "$'" + str(tmp_path / "out") + "'"}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        work = create_workflow(
            config_file=config_files("inference", "mri", "ngp"), logging_file=False, quiet=True, **OF["mri"], **options
        )
    assert work.parser.get_parsed_content("dataset_dir") == options["dataset_dir"]
    assert work.parser.get_parsed_content("output_dir") == str(tmp_path / "out")


def test_a_workflow_that_cannot_tell_refuses(tmp_path):
    files = config_files("inference", "mri", "ngp")
    options = {"workflow_type": "infer", "logging_file": False, "output_dir": str(tmp_path / "out")}
    with pytest.raises(RuntimeError) as caught:
        ConfigWorkflow(files, dataset_dir=str(tmp_path / "data#2"), **options).initialize()
    assert one_line(caught.value).startswith("dataset_dir: expected a text without # and ::")
    work = ConfigWorkflow(files, dataset_dir=literal(str(tmp_path / "data#2")), **options)
    work.initialize()
    assert work.parser.get_parsed_content("dataset_dir") == str(tmp_path / "data#2")


def test_a_database_path_may_have_any_character(tmp_path):
    path = tmp_path / "a#b?x=1 50% ü" / "runs#1%20.db"
    client = Client(f"sqlite:///{path}")
    client.find_or_make({"experiment": "e", "name": "n-1", "stamp": "1", "when": 1e9})
    assert path.is_file()
    assert {p.name for p in tmp_path.iterdir()} == {path.parent.name}


def test_options_of_a_database_are_refused(tmp_path):
    from disinr_monai.tracking import Tracking

    with pytest.raises(InputError, match="tracking_uri: expected the path of a database file"):
        Tracking(str(tmp_path), tracking_uri=f"sqlite:///{tmp_path}/runs.db?timeout=5")


def test_a_wrong_config_path_is_one_line(tmp_path):
    words = ["run", "inference", "--config_file", "['configs/inference.json','configs/mry.json']"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [sys.executable, "-m", "disinr_monai", *words], cwd=ROOT, env=environment, capture_output=True, text=True
    )
    assert done.returncode == 1
    assert "Traceback" not in done.stderr
    last = done.stderr.strip().splitlines()[-1]
    assert last.startswith(
        "error: config_file: configs/mry.json: expected a config file, found no such file; beside it"
    )
