"""Volumes through the bundle: pre-training, a new volume, and any voxel size with the right affine."""

import csv
import json
from pathlib import Path

import nibabel
import numpy as np
import pytest
import torch
from monai.bundle import ConfigWorkflow

from disinr_monai.data.simulate.phantoms import write_phantoms
from tests.conftest import ROOT
from tests.workflows import CONFIGS, PHASES

# A small field: 24³ voxels need no more, and each run takes seconds.
SMALL = {"encoder#log2_hashmap_size": 12, "encoder#n_levels": 5, "encoder#hidden_dim": 32, "encoder#out_dim": 32}
AFFINE = np.array([[-1.0, 0.0, 0.0, 30.0], [0.0, 1.5, 0.0, -20.0], [0.0, 0.0, 3.0, 5.0], [0.0, 0.0, 0.0, 1.0]])
SHAPE = (24, 20, 16)
FEATURE = np.array([0.3, -0.2, 0.25])
SLOW = pytest.mark.slow


def volume(shape=SHAPE, shift=0.0) -> np.ndarray:
    """HU: air and one smooth dense blob off centre, at ``FEATURE`` in [-1, 1]."""
    x, y, z = np.meshgrid(*((2 * np.arange(n) + 1) / n - 1 for n in shape), indexing="ij")
    distance = sum(((a - b - shift) / 0.35) ** 2 for a, b in zip((x, y, z), FEATURE, strict=True))
    return (1100 * np.exp(-distance) - 1000).astype(np.float32)


@pytest.fixture(scope="module")
def scans(tmp_path_factory):
    folder = tmp_path_factory.mktemp("volumes")
    for number, shift in enumerate((0.0, 0.1, -0.1)):
        part = folder / ("new" if number == 0 else "pretraining")
        part.mkdir(exist_ok=True)
        nibabel.save(nibabel.Nifti1Image(volume(shift=shift), AFFINE), part / f"scan-{number}.nii.gz")
    return folder


def run(phase: str, overlays: list[str], data: Path, out: Path, modality: str = "volume", **options) -> None:
    names = [*PHASES[phase], modality, *overlays]
    fixed = {"dataset_dir": str(data), "output_dir": str(out), "quiet": True, "bundle_root": str(ROOT), "device": "cpu"}
    if not any(name in ("siren", "nerf") for name in overlays) and modality == "volume":
        fixed |= SMALL
    if modality == "volume":
        fixed |= {"points_per_step": 1000, **({"max_epochs": 2} if phase == "train" else {"n_iterations": 3})}
    work = ConfigWorkflow(
        [str(CONFIGS / f"{name}.json") for name in names],
        workflow_type="train" if phase == "train" else "infer",
        logging_file=False,
        **{**fixed, **options},
    )
    work.initialize()
    work.run()
    work.finalize()


def rows_of(out: Path) -> dict[str, dict[str, str]]:
    return {row["method"]: row for row in csv.DictReader((out / "metrics.csv").open())}


def place(file: Path) -> np.ndarray:
    """World coordinates (mm) of the blob in a NIfTI file."""
    image = nibabel.load(file)
    values = image.get_fdata()
    weights = np.clip(values - values.max() * 0.6 - values.min() * 0.4, 0, None)
    index = [(weights * i).sum() / weights.sum() for i in np.indices(values.shape)]
    return image.affine[:3, :3] @ index + image.affine[:3, 3]


@pytest.fixture(scope="module")
def pair(scans, tmp_path_factory):
    out = tmp_path_factory.mktemp("pair")
    run("train", [], scans / "pretraining", out, max_epochs=20, lr=0.01)
    return out / "model.pt"


def test_pre_training_on_other_volumes_leaves_no_subject(pair):
    content = torch.load(pair, weights_only=True)
    assert content["modality"] == "volume"
    assert not any(name.startswith("subjects.1") for name in content["model"])


def test_a_new_volume_is_fitted_beside_the_frozen_pair(pair, scans, tmp_path):
    run("evaluate", [], scans / "new", tmp_path, checkpoint=str(pair), n_iterations=40, lr=0.01)
    rows = rows_of(tmp_path)
    assert set(rows) == {"disinr", "nearest", "tv"}
    assert float(rows["disinr"]["psnr"]) > 30
    source, image = (nibabel.load(f) for f in (scans / "new/scan-0.nii.gz", tmp_path / "scan-0/scan-0_recon.nii.gz"))
    np.testing.assert_allclose(np.abs(image.affine), np.abs(AFFINE) + [[0, 0, 0, -23], *np.zeros((3, 4))])
    expected = np.clip(source.get_fdata()[::-1], -800, 400)
    assert np.abs(image.get_fdata() - expected).mean() < 40
    assert image.shape == SHAPE
    assert image.get_data_dtype() == np.float32
    assert (tmp_path / "scan-0/scan-0_recon.png").stat().st_size > 1000


@pytest.mark.parametrize(
    ("overlays", "method"),
    [
        (["strainer"], "strainer"),
        pytest.param(["siren"], "disinr", marks=SLOW),
        pytest.param(["meta"], "meta", marks=SLOW),
    ],
)
def test_other_backbones_and_methods_are_pre_trained_and_fitted(scans, tmp_path, overlays, method):
    run("train", overlays, scans / "pretraining", tmp_path / "pair", max_epochs=1)
    checkpoint = str(tmp_path / "pair/model.pt")
    run("inference", overlays, scans / "new", tmp_path / "out", checkpoint=checkpoint, early_stop=True)
    assert set(rows_of(tmp_path / "out")) == {method}


@pytest.mark.slow
@pytest.mark.parametrize("overlays", [["siren", "ngp"], ["nerf", "ngp"]])
def test_from_scratch(scans, tmp_path, overlays):
    run("inference", overlays, scans / "new", tmp_path)
    assert np.isfinite(float(rows_of(tmp_path)["ngp"]["psnr"]))


def test_the_published_number_of_levels_follows_the_method():
    for overlays, levels in (([], 10), (["disinr_paper"], 10), (["ngp"], 16), (["strainer"], 16)):
        files = [str(CONFIGS / f"{name}.json") for name in ("inference", "volume", *overlays)]
        work = ConfigWorkflow(files, workflow_type="infer", logging_file=False, bundle_root=str(ROOT))
        assert work.parser.get_parsed_content("n_levels") == levels
        assert json.loads((CONFIGS / "volume.json").read_text())["encoder"]["in_dim"] == "@in_dim"


def test_missing_voxels_and_noise(scans, tmp_path):
    options = {"sampled_fraction": 0.3, "noise_std": 0.05, "n_iterations": 40, "lr": 0.01, "early_stop": True}
    run("evaluate", ["ngp"], scans / "new", tmp_path, **options)
    rows = rows_of(tmp_path)
    assert float(rows["tv"]["psnr"]) > float(rows["nearest"]["psnr"]) + 2
    assert float(rows["ngp"]["psnr"]) > 20


@pytest.mark.parametrize(
    ("spacing", "shape"),
    [
        (0.5, (48, 60, 96)),
        pytest.param([2.0, 1.5, 1.0], (12, 20, 48), marks=SLOW),
        pytest.param(0.85, (28, 35, 56), marks=SLOW),
    ],
)
def test_any_voxel_size_leaves_the_world_where_it_is(scans, tmp_path, spacing, shape):
    run("inference", ["ngp"], scans / "new", tmp_path, output_spacing=spacing, n_iterations=40, lr=0.01)
    file = tmp_path / "scan-0/scan-0_recon.nii.gz"
    image = nibabel.load(file)
    assert image.shape == shape
    np.testing.assert_allclose(image.header.get_zooms(), np.broadcast_to(spacing, 3), rtol=1e-5)
    assert np.abs(place(file) - place(scans / "new/scan-0.nii.gz")).max() < 0.5


def test_streamed_points_have_no_total_variation(scans, tmp_path):
    with pytest.raises(RuntimeError) as caught:
        run("inference", ["ngp"], scans / "new", tmp_path, tv_weight=0.1)
    assert "tv_weight: total variation needs whole images" in str(caught.value.__cause__)


def test_a_wrong_spacing_is_refused_at_once(scans, tmp_path):
    with pytest.raises(RuntimeError) as caught:
        run("inference", ["ngp"], scans / "new", tmp_path, output_spacing=-1)
    messages = str(caught.value) + str(caught.value.__cause__) + str(caught.value.__cause__.__cause__)
    assert "output_spacing: expected one positive number" in messages
    assert not list(tmp_path.rglob("*.nii.gz"))


@pytest.mark.parametrize("modality", ["mri", pytest.param("ct", marks=SLOW)])
def test_slices_too(tmp_path, modality, caplog):
    """A field fitted to a slice is evaluated at the new pixels; the classical image is interpolated, with a warning."""
    write_phantoms(tmp_path / "scans", modality, n_subjects=1, size=32, seed=1)
    source = nibabel.load(tmp_path / "scans/phantom-000.nii.gz")
    half = float(source.header.get_zooms()[0]) / 2
    options = {"image_size": 32, "n_iterations": 40, "output_spacing": half}
    if modality == "ct":
        options |= {"n_views": 12, "n_detectors": 64, "detector_spacing": 2.0}
    else:
        options |= {"acs": 12, "acceleration": 2}
    for name, more in (("field", {}), ("image", {"inferer": "@classical#tv", "method": "tv"})):
        out = tmp_path / name
        with caplog.at_level("WARNING"):
            run("inference", ["ngp"], tmp_path / "scans", out, modality, **options, **more)
        assert ("interpolated linearly" in caplog.text) == (name == "image")
        image = nibabel.load(out / "phantom-000/phantom-000_recon.nii.gz")
        assert image.shape == (64, 64, 1)
        np.testing.assert_allclose(
            image.header.get_zooms()[:2], source.header.get_zooms()[:2] / np.float32(2), rtol=1e-4
        )
        # The blocks of 2 x 2 new pixels lie on the old ones.
        low = image.get_fdata()[..., 0].reshape(32, 2, 32, 2).mean((1, 3))
        truth = source.get_fdata()[..., 0]
        assert np.corrcoef(low.ravel(), truth.ravel())[0, 1] > 0.8
        first = image.affine @ [-0.5, -0.5, 0, 1]
        np.testing.assert_allclose(first, source.affine @ [-0.5, -0.5, 0, 1], atol=1e-3)
