"""`scripts/tune.py`, `study.py`, `features.py` and `self_check.py` on tiny phantoms."""

import importlib
import json
import sys

import pytest
import torch
from mismatches import mismatches_of

from disinr_monai.data.simulate.phantoms import write_phantoms
from tests.problems import transmission_case

TINY = "--image_size 32 --n_views 12 --n_detectors 64 --detector_spacing 12 --pixel_spacing 8 --slices_per_subject 1"


@pytest.fixture(scope="module")
def scans(tmp_path_factory):
    folder = tmp_path_factory.mktemp("scans")
    write_phantoms(folder / "a", "ct", n_subjects=2, size=32, seed=1)
    write_phantoms(folder / "b", "ct", n_subjects=1, size=32, seed=7)
    return folder


@pytest.fixture
def script(monkeypatch):
    def run(name: str, words: str) -> None:
        monkeypatch.setattr(sys, "argv", [f"{name}.py", *words.split()])
        importlib.import_module(name).main()

    return run


def test_tuning_finds_a_better_weight_and_keeps_every_trial(script, scans, tmp_path):
    pytest.importorskip("optuna")
    script("tune", f"--task ct --dataset_dir {scans}/a --methods tv --n_trials 4 --output {tmp_path}/t.json {TINY}")
    (found,) = json.loads((tmp_path / "t.json").read_text())["tuned"]
    psnr = [trial["psnr"] for trial in found["trials"]]
    assert len(psnr) == 4
    assert found["psnr"] == max(psnr) > min(psnr)
    assert found["best"]["classical#tv#tv_weight"] == pytest.approx(found["trials"][0]["classical#tv#tv_weight"])
    assert found["setting"]["n_views"] == 12


def test_study_names_its_variants(script, scans, tmp_path, capsys):
    folders = f"--pretraining_dir {scans}/a --dataset_dir {scans}/b --output {tmp_path}/s.json"
    script("study", f"frozen --task ct {folders} --max_epochs 1 --n_iterations 2 --quiet {TINY}")
    result = json.loads((tmp_path / "s.json").read_text())
    variants = [row["method"] for row in result["rows"]]
    assert variants == ["frozen pair", "unfrozen pair", "strainer, fine-tuned", "strainer, frozen", "from scratch"]
    assert "photons 0" in result["rows"][0]["setting"]
    assert "frozen pair" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("masks --task ct", "the study of sampling masks is for mri"),
        ("frozen --task ct --n_view 3", "n_view: no such key"),
    ],
)
def test_study_refuses(script, scans, tmp_path, words, message):
    with pytest.raises(SystemExit, match=message):
        script("study", f"{words} --pretraining_dir {scans}/a --dataset_dir {scans}/b --output {tmp_path}/s.json")
    assert not (tmp_path / "s.json").exists()


def test_features_are_drawn(script, scans, tmp_path):
    script("study", f"subjects --task ct --pretraining_dir {scans}/a --dataset_dir {scans}/b --max_epochs 1 "
           f"--n_iterations 2 --quiet --output {tmp_path}/s.json --output_dir {tmp_path}/keep {TINY}")  # fmt: skip
    checkpoint = tmp_path / "keep" / "pretraining-0" / "model.pt"
    words = f"--task ct --dataset_dir {scans}/b --checkpoint {checkpoint} --n_iterations 2 --output {tmp_path}/f.png"
    script("features", f"{words} {TINY}")
    assert (tmp_path / "f.png").stat().st_size > 5000


SMALL_MRI = "--image_size 32 --acs 8 --acceleration 2 --n_coils 4"
SCANS = {
    "mri": (f"--task mri {SMALL_MRI}", "coils in another order", "k-space", 16),
    "radial": (f"--task mri --pattern radial {SMALL_MRI}", "readouts reversed", "k-space", 9),
    "ct": (f"--task ct {TINY}", "air calibration 20 % too high", "integrals", 15),
    "pet": ("--task pet --image_size 64 --n_views 48 --counts 2e5", "background left out", "counts", 9),
}


@pytest.mark.parametrize("name", SCANS)
def test_the_self_check_is_tried_on_scans(script, tmp_path, capsys, name):
    words, mismatch, kind, n_rows = SCANS[name]
    write_phantoms(tmp_path / "scans", words.split()[1], n_subjects=2, size=64)
    script("self_check", f"--dataset_dir {tmp_path}/scans --n_scans 1 --output {tmp_path}/c.json {words}")
    rows = {row["mismatch"]: row for row in json.loads((tmp_path / "c.json").read_text())["rows"]}
    assert len(rows) == n_rows
    assert {row["kind"] for row in rows.values()} == {kind}
    assert not rows["as it is"]["marked"]
    assert rows[mismatch]["marked"]
    assert f"| {mismatch} | 1 of 1 | " in capsys.readouterr().out


def test_every_mismatch_of_a_transmission_scan_changes_it():
    case, changes = transmission_case(), mismatches_of(transmission_case())
    assert "blank scan 20 % too low" in changes
    for change in changes.values():
        changed = change(case)
        is_measurement = not torch.equal(changed["scan"].measurement, case["scan"].measurement)
        assert is_measurement != (not torch.equal(changed["scan"].counts.blank, case["scan"].counts.blank))


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("--method fbp", "one-step inverse"),
        ("--method mlem", "expected one of fbp, sirt, tv, found 'mlem'"),
        ("--accelleration 2", "accelleration: no such key in the configs of ct"),
        ("--n_views 0", "n_views"),
    ],
)
def test_the_trial_of_the_self_check_refuses(script, scans, tmp_path, words, message):
    with pytest.raises(Exception, match=message):
        script("self_check", f"--task ct --dataset_dir {scans}/b --output {tmp_path}/c.json {words}")
    assert not (tmp_path / "c.json").exists()
