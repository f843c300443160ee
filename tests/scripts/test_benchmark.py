"""`scripts/benchmark.py quality` with methods that need a pre-training of their own."""

import json
import sys

import benchmark
import pytest

from disinr_monai.data import list_cases, split_subjects
from disinr_monai.data.simulate.phantoms import write_phantoms
from disinr_monai.errors import InputError

TINY = "--image_size 32 --n_views 12 --n_detectors 64 --detector_spacing 12 --pixel_spacing 8 --slices_per_subject 1"


@pytest.fixture(scope="module")
def scans(tmp_path_factory):
    folder = tmp_path_factory.mktemp("scans")
    write_phantoms(folder, "ct", n_subjects=4, size=32, seed=1)
    return folder


def quality(monkeypatch, folder, options: str) -> None:
    words = ["quality", "--task", "ct", "--dataset_dir", str(folder), "--quiet", *options.split()]
    monkeypatch.setattr(sys, "argv", ["benchmark.py", *words])
    benchmark.main()


def refused(monkeypatch, folder, options: str) -> str:
    with pytest.raises(SystemExit) as caught:
        quality(monkeypatch, folder, options)
    assert str(caught.value).startswith("error: ")
    assert "\n" not in str(caught.value)
    return str(caught.value)


def subjects(folder) -> set[str]:
    return {case["subject"] for case in list_cases(folder, "ct", 1)}


def test_without_checkpoints_the_scans_are_split_and_nobody_is_in_both_parts(scans, monkeypatch, tmp_path, capsys):
    options = f"--methods ngp,strainer,meta,fbp --max_epochs 1 --n_iterations 2 --output {tmp_path}/r.json"
    quality(monkeypatch, scans, f"{options} --output_dir {tmp_path} {TINY}")
    rows = json.loads((tmp_path / "r.json").read_text())["rows"]
    assert {row["method"] for row in rows} == {"ngp", "strainer", "meta", "fbp"}
    pretraining, test = (subjects(tmp_path / "split" / part) for part in ("pretraining", "test"))
    assert (len(pretraining), len(test)) == (2, 2)
    assert pretraining | test == subjects(scans)
    for method in ("ngp", "strainer", "meta", "fbp"):
        assert {row["subject"] for row in rows if row["method"] == method} == test
    assert "is split by subject, 2 for pre-training, 2 for the evaluation of all methods" in capsys.readouterr().out
    # The checkpoints it leaves can be given the next time; then all scans are evaluated.
    given = ",".join(f"{m}={tmp_path}/ct-{m}-pretraining/model.pt" for m in ("strainer", "meta"))
    options = f"--methods strainer,meta --checkpoints {given} --n_iterations 2 --freeze_depth all"
    quality(monkeypatch, scans, f"{options} --output {tmp_path}/again.json {TINY}")
    rows = json.loads((tmp_path / "again.json").read_text())["rows"]
    assert {row["subject"] for row in rows} == subjects(scans)


def test_one_subject_is_not_enough(monkeypatch, tmp_path):
    write_phantoms(tmp_path, "ct", n_subjects=1, size=32)
    message = refused(monkeypatch, tmp_path, f"--methods ngp,meta {TINY}")
    assert "expected scans of at least two subjects to split, found 1" in message
    assert "meta needs a checkpoint: --checkpoints meta=PATH or --pretraining_dir DIR" in message


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ("--methods ngp,imjense", "methods: 'imjense' is unknown for ct"),
        ("--methods ngp --freeze_depth 2", "freeze_depth: no such key in the configs of these methods"),
        ("--methods ngp --checkpoints ngp=model.pt", "checkpoints: expected METHOD=PATH,..., found 'ngp=model.pt'"),
    ],
)
def test_what_is_refused(scans, monkeypatch, options, expected):
    assert expected in refused(monkeypatch, scans, options)


def test_pre_training_on_the_test_subjects_is_refused(scans, monkeypatch):
    message = refused(monkeypatch, scans, f"--methods meta --pretraining_dir {scans}")
    assert "pretraining_dir: expected other subjects than in dataset_dir" in message


def test_split_keeps_the_subjects_asked_for_apart(scans, tmp_path):
    name = sorted(subjects(scans))[1]
    parts = split_subjects(scans, "ct", tmp_path, n_pretraining=2, test=[name])
    assert parts["test"] == [name]
    assert len(parts["pretraining"]) == 2
    assert name not in parts["pretraining"]
    with pytest.raises(InputError, match="n_pretraining: expected 1 to 3, found 4: no test subject is left"):
        split_subjects(scans, "ct", tmp_path / "all", n_pretraining=4)
