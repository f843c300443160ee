"""Nothing of a person is in what is released: weights, bundles, artifacts of a training run."""

import json
import re
import sqlite3
import zipfile
from pathlib import Path

import build_bundle
import pytest
import torch
from monai.bundle import ConfigParser

from disinr_monai.checkpoints.released import MIN_PERSONS_FOR_MEAN, read_checkpoint
from disinr_monai.data.simulate.phantoms import write_phantoms
from tests.conftest import ROOT
from tests.workflows import run

RELEASED = sorted((ROOT / "models").glob("*.pt"))
# What may be recorded with released weights: how they were made, nothing of whom.
INFO = {"seed", "n_images", "n_subjects", "prior", "epochs", "iterations", "versions", "part"}
PRIOR_INFO = INFO | {"n_splits", "variations", "start", "passes", "domain"}
# Names of the public collections' subjects, and whatever looks like a path to a scan.
PERSONAL = re.compile(
    rb"TCGA-\d|LIDC-IDRI-\d|C3L-\d|KiTS-\d|ACRIN-FLT-Breast_\d|CTC-\d{4}|StageII-Colorectal-CT-\d|sub-\d\d|ARC_M\d|"
    rb"PatientName|\.nii|\.dcm|\.h5\b|/(?:home|Users|work)/|[A-Z]:\\\\Users"
)


def texts(path: Path) -> bytes:
    """All of a file but the numbers of its tensors."""
    if not zipfile.is_zipfile(path):
        return path.read_bytes()
    with zipfile.ZipFile(path) as archive:
        return b"\n".join(archive.read(name) for name in archive.namelist() if "/data/" not in name)


def untrained_subject(content: dict) -> dict[str, torch.Tensor]:
    """A new subject encoder at its seeded start, as the configs of that modality make it."""
    parser = ConfigParser()
    parser.read_config([str(ROOT / "configs" / f"{name}.json") for name in ("train", content["modality"])])
    parser["n_subjects"], parser["seed"] = 1, json.loads(content["info"])["seed"]
    return parser.get_parsed_content("network_def").subjects[0].state_dict()


@pytest.mark.parametrize("path", RELEASED, ids=lambda path: path.stem)
def test_released_weights_hold_the_shared_part_and_one_start(path):
    content = read_checkpoint(path)
    state, info = content["model"], json.loads(content["info"])
    own = {name.removeprefix("subjects.0."): v for name, v in state.items() if name.startswith("subjects.0.")}
    assert all(name.startswith(("shared.", "subjects.0.")) for name in state)
    # Every tensor is one of the architecture: no measurement, no image, no list of anything beside them.
    architecture = json.loads(content["architecture"])
    shared = {name.removeprefix("shared."): v for name, v in state.items() if name.startswith("shared.")}
    assert {name: list(v.shape) for name, v in shared.items()} == architecture["shared"]
    assert {name: list(v.shape) for name, v in own.items()} == architecture["subject"]
    if info["n_subjects"] < MIN_PERSONS_FOR_MEAN:
        for name, value in untrained_subject(content).items():
            torch.testing.assert_close(own[name].float(), value, rtol=1e-3, atol=1e-7)  # tables in half precision


@pytest.mark.parametrize("path", RELEASED, ids=lambda path: path.stem)
def test_released_weights_name_nobody(path):
    info = json.loads(read_checkpoint(path)["info"])
    assert info.keys() <= INFO | PRIOR_INFO
    assert info.get("prior", {}).keys() <= PRIOR_INFO | {"prior"}
    assert not PERSONAL.findall(texts(path))
    assert torch.load(path, weights_only=True), "no code to unpickle"


def test_built_bundles_name_nobody(tmp_path):
    for name in build_bundle.bundle_names():
        files = sorted(p for p in build_bundle.assemble(name, tmp_path).rglob("*") if p.is_file())
        assert not {p.suffix for p in files} & {".nii", ".gz", ".h5", ".dcm", ".npy", ".npz", ".csv", ".db"}
        assert not [p.name for p in files if p.name.startswith("private_")]
        weights = [p for p in files if p.suffix == ".pt"]
        assert [p.name for p in weights] == ["model.pt"] * bool(build_bundle.read_recipe(name)["weights"])
        for path in files:
            if path.suffix not in (".py", ".png"):  # code names file endings; pictures are looked at by people
                found = set(PERSONAL.findall(texts(path))) - {b".nii", b".h5", b".dcm"}
                assert not found, f"{path}: {found}"
        for path in weights:
            assert not PERSONAL.findall(texts(path))


@pytest.fixture(scope="module")
def training(tmp_path_factory):
    """A small training on scans with telling names; returns its output folder."""
    folder = tmp_path_factory.mktemp("training")
    write_phantoms(folder / "mri", "mri", n_subjects=2, size=32, seed=4)
    for i, path in enumerate(sorted((folder / "mri").glob("*.nii.gz"))):
        path.rename(path.with_name(f"Doe-Jane-19{i}0.nii.gz"))
    options = {"image_size": 32, "acs": 12, "acceleration": 2, "max_epochs": 3, "device": "cpu"}
    run("train", [], "mri", folder, folder / "out", **options)
    return folder / "out"


def test_a_training_leaves_persons_in_its_private_file_only(training):
    private = training / "private_resume_checkpoint.pt"
    released = [p for p in training.rglob("*") if p.is_file() and p not in (private, training / "mlruns.db")]
    assert training / "model.pt" in released
    for path in released:
        assert b"Doe-Jane" not in texts(path), path
        assert path.suffix not in (".nii", ".gz", ".h5", ".npy", ".npz"), f"{path}: a measurement or an image"
    assert {p.name for p in released if p.suffix == ".pt"} == {"model.pt"}
    # The check itself sees such names where they are.
    assert b"Doe-Jane" in texts(private)


def test_the_tracked_run_has_no_subject(training):
    with sqlite3.connect(training / "mlruns.db") as database:
        tables = [row[0] for row in database.execute("SELECT name FROM sqlite_master WHERE type = 'table'")]
        content = "\n".join(str(row) for table in tables for row in database.execute(f'SELECT * FROM "{table}"'))
    assert "loss" in content
    assert "Doe-Jane" not in content


def test_released_pair_of_a_training_is_not_its_subjects(training):
    """The encoders that the training fitted are not in the file, under no name."""
    released = read_checkpoint(training / "model.pt")["model"]
    trained = subjects_of(torch.load(training / "private_resume_checkpoint.pt", weights_only=True))
    assert trained
    for value in released.values():
        for other in trained:
            if value.shape == other.shape:
                assert not torch.allclose(value.float(), other.float(), rtol=1e-2, atol=1e-6)


def subjects_of(node, prefix: str = "") -> list[torch.Tensor]:
    """The trained subject encoders of a resume checkpoint, wherever it keeps them."""
    if isinstance(node, dict):
        return [value for key, part in node.items() for value in subjects_of(part, f"{prefix}/{key}")]
    return [node] if isinstance(node, torch.Tensor) and re.search(r"subjects\.\d+\.", prefix) else []
