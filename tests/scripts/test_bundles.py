"""The built Model Zoo bundles: whole, valid, and driven the way that tools do."""

import hashlib
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import build_bundle
import numpy as np
import pytest
import torch
from monai.bundle import ConfigParser, ConfigWorkflow, ckpt_export, load, verify_metadata, verify_net_in_out

from disinr_monai.checkpoints.released import load_shared, read_checkpoint
from disinr_monai.data import list_cases
from disinr_monai.data.simulate.phantoms import write_phantoms
from disinr_monai.errors import InputError
from tests.conftest import ROOT

SCHEMA = Path(os.environ.get("DISINR_SCHEMA", ROOT.parent / "shared" / "reference" / "meta_schema_20240725.json"))
NAMES = build_bundle.bundle_names()
CT = "sparse_view_ct_disinr_reconstruction"
WITH_WEIGHTS = [name for name in NAMES if build_bundle.read_recipe(name)["weights"]]


@pytest.fixture(scope="module")
def built(tmp_path_factory) -> Path:
    """The CT bundle: its modality is merged into every phase."""
    folder = tmp_path_factory.mktemp("bundles")
    build_bundle.build(CT, folder)
    return folder / CT


@pytest.mark.parametrize("name", NAMES)
def test_model_cards_are_up_to_date(name):
    stale = f"run `python scripts/build_bundle.py --update {name}`"
    assert (build_bundle.SOURCES / name / "docs" / "README.md").read_text() == build_bundle.model_card(name), stale


@pytest.mark.parametrize("name", NAMES)
def test_metadata_fits_the_schema(name, tmp_path):
    if not SCHEMA.is_file():
        pytest.skip("no copy of the metadata schema; set DISINR_SCHEMA")
    shutil.copy(SCHEMA, tmp_path / "schema.json")
    build_bundle.write_json(tmp_path / "metadata.json", build_bundle.metadata_of(name))
    verify_metadata(meta_file=str(tmp_path / "metadata.json"), filepath=str(tmp_path / "schema.json"))


@pytest.mark.parametrize("name", NAMES)
def test_metadata_says_what_the_zoo_asks_for(name):
    metadata = build_bundle.metadata_of(name)
    assert metadata["version"] in metadata["changelog"]
    assert not {"tinycudann", "cil"} & metadata["required_packages_version"].keys(), "not on PyPI"
    data = metadata["network_data_format"]
    assert next(iter(data["inputs"])) == "image"
    assert next(iter(data["outputs"])) == "pred"
    channels = data["outputs"]["pred"]
    assert len(channels["channel_def"]) == channels["num_channels"]
    for values in metadata["eval_metrics"].values():
        assert values["n_subjects"] >= 1
        assert values["psnr_std"] >= 0


def test_metadata_is_what_is_installed():
    metadata = json.loads((ROOT / "configs" / "metadata.json").read_text())
    pins = dict(line.split("==") for line in (ROOT / "constraints.txt").read_text().splitlines() if "==" in line)
    wanted = {"torch": metadata["pytorch_version"], "monai": metadata["monai_version"]}
    wanted |= {"numpy": metadata["numpy_version"], **metadata["required_packages_version"]}
    assert {name: pins[name] for name in wanted} == wanted


@pytest.mark.parametrize("name", NAMES)
def test_files_of_a_bundle(name):
    folder = build_bundle.SOURCES / name
    assert (folder / "docs" / "data_license.txt").is_file()
    text = (folder / "docs" / "README.md").read_text()
    assert text.startswith("# Model Overview")
    for heading in ("Intended use", "Data", "Results", "Limits", "Privacy", "Hardware", "License"):
        assert f"## {heading}" in text
    assert "Not for clinical use" in text


@pytest.mark.parametrize("name", NAMES)
def test_a_phase_alone_is_the_phase_with_its_overlay(name):
    recipe = build_bundle.read_recipe(name)
    merged = build_bundle.merged_configs(recipe)
    for phase, parts in build_bundle.PHASES.items():
        alone = dict(merged[phase])
        for key, value in alone.pop("displayable_configs", {}).items():
            assert alone[key] == f"@displayable_configs#{key}"
            alone[key] = value
        files = [str(ROOT / "configs" / f"{part}.json") for part in (*parts, *recipe["overlays"])]
        assert alone == ConfigParser.load_config_files(files)
        assert alone["modality"] == recipe["modality"]
    modalities = {c["modality"] for c in merged.values() if "modality" in c}
    assert modalities == {recipe["modality"]}
    assert recipe["modality"] in merged, "the words of the repository name the overlay"


def test_the_same_content_gives_the_same_zip(built, tmp_path):
    zips = (build_bundle.build(CT, tmp_path), *built.parent.glob("*.zip"))
    assert len({hashlib.sha256(path.read_bytes()).hexdigest() for path in zips}) == 1


def test_unknown_bundle(capsys):
    assert build_bundle.main(["nothing"]) == 1
    assert "nothing: no such bundle; there are" in capsys.readouterr().err


def test_a_stale_card_is_found(tmp_path, monkeypatch, capsys):
    shutil.copytree(build_bundle.SOURCES / CT, tmp_path / CT)
    monkeypatch.setattr(build_bundle, "SOURCES", tmp_path)
    assert build_bundle.main(["--check"]) == 0
    card = tmp_path / CT / "docs" / "README.md"
    card.write_text(card.read_text().replace("| disinr |", "| disinr 99 dB |"))
    assert build_bundle.main(["--check"]) == 1
    assert "stale" in capsys.readouterr().err
    assert build_bundle.main(["--update"]) == 0
    assert build_bundle.main(["--check"]) == 0


def test_bundled_weights_are_the_released_ones(built):
    weights, released = built / "models" / "model.pt", ROOT / "models" / "ct.pt"
    assert weights.stat().st_size < 25e6
    one, two = read_checkpoint(weights), read_checkpoint(released)
    assert one.keys() == two.keys()
    assert one["info"] == two["info"]
    assert one["model"].keys() == two["model"].keys()
    assert all(torch.equal(value, two["model"][name]) for name, value in one["model"].items())


def test_network_fits_the_metadata_and_exports(built, tmp_path, monkeypatch):
    """`verify_net_in_out` and `ckpt_export` as the zoo calls them, from another working directory."""
    monkeypatch.chdir(tmp_path)
    config, meta = str(built / "configs" / "inference.json"), str(built / "configs" / "metadata.json")
    verify_net_in_out("network_def", meta_file=meta, config_file=config, device="cpu", bundle_root=str(built))
    weights = built / "models" / "model.pt"
    ckpt_export("network_def", "field.ts", str(weights), meta, config, bundle_root=str(built))
    parser = ConfigParser()
    parser.read_config(config)
    parser["bundle_root"] = str(built)
    network = parser.get_parsed_content("network_def")
    assert "prior" in network.shared
    load_shared(weights, network, "ct")
    points = torch.rand(1, 2, 9, 7) * 2 - 1
    with torch.no_grad():
        expected = network(points)
        torch.testing.assert_close(torch.jit.load("field.ts")(points), expected, rtol=1e-4, atol=1e-5)
    assert expected.std() > 0.05, "the released field shows something, so that the comparison says something"


def test_load_gives_the_network_with_its_weights(built, tmp_path, monkeypatch):
    """`monai.bundle.load` copies what fits and says nothing of the rest: everything must fit."""
    monkeypatch.chdir(tmp_path)
    network = load(CT, bundle_dir=str(built.parent), workflow_type="inference", device="cpu")
    state, released = network.state_dict(), torch.load(built / "models" / "model.pt", weights_only=True)
    assert state.keys() == released.keys()
    assert all(torch.equal(state[name], value.to(state[name].dtype)) for name, value in released.items())


def test_a_workflow_whose_properties_are_set_from_python(built, tmp_path):
    """As NVFlare, Auto3DSeg and the Deploy SDK drive bundles: properties, `initialize`, `run`."""
    write_phantoms(tmp_path / "scans", "ct", n_subjects=2, size=32)
    workflow = ConfigWorkflow(
        str(built / "configs" / "inference.json"), workflow_type="inference", logging_file=False, quiet=True
    )
    workflow.bundle_root, workflow.device = str(built), "cpu"
    workflow.parser["output_dir"], workflow.parser["image_size"] = str(tmp_path / "out"), 32
    workflow.dataset_dir = str(tmp_path / "scans")
    workflow.dataset_data = list_cases(tmp_path / "scans", "ct")[1:]
    workflow.initialize()
    assert workflow.check_properties() == []
    workflow.run()
    workflow.finalize()
    assert [path.parent.name for path in (tmp_path / "out").glob("*/*_recon.nii.gz")] == ["phantom-001"]


def test_a_panel_of_settings_reaches_the_run(built):
    """MONAI Label shows `displayable_configs` and writes what the user chose back into it."""
    parser = ConfigParser()
    parser.read_config(str(built / "configs" / "inference.json"))
    parser["bundle_root"] = str(built)
    shown = parser.get_parsed_content("displayable_configs", instantiate=True)
    assert shown["n_views"] == 60
    parser["displayable_configs"].update({**shown, "n_views": 30, "guard": False})
    parser.parse()
    assert parser.get_parsed_content("acquire").n_views == 30
    assert parser.get_parsed_content("inferer").guard is False


def test_a_bundle_without_weights_says_so(built, tmp_path, monkeypatch):
    shutil.copytree(built / "configs", tmp_path / "configs")
    write_phantoms(tmp_path / "scans", "ct", n_subjects=1, size=32)
    workflow = ConfigWorkflow(
        str(tmp_path / "configs" / "inference.json"),
        workflow_type="inference",
        logging_file=False,
        bundle_root=str(tmp_path),
        dataset_dir=str(tmp_path / "scans"),
        output_dir=str(tmp_path / "out"),
    )
    with pytest.raises(RuntimeError) as caught:
        workflow.initialize()
    assert isinstance(caught.value.__cause__, InputError)
    assert "none is shipped for DisINR on 'ct'; pre-train one with `run training`" in str(caught.value.__cause__)


def command(folder: Path, *options: str) -> None:
    """A bundle command in a folder, with nothing of the repository on the path."""
    environment = {k: v for k, v in os.environ.items() if k != "PYTHONPATH"} | {"OMP_NUM_THREADS": "1"}
    words = [sys.executable, "-m", "monai.bundle", "run", "inference", *options]
    done = subprocess.run(words, cwd=folder, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]


@pytest.mark.slow
@pytest.mark.parametrize("name", WITH_WEIGHTS)
def test_a_moved_zip_gives_the_image_of_the_repository(name, data_dir, tmp_path):
    import nibabel

    modality = build_bundle.read_recipe(name)["modality"]
    scan = {"ct": "ct2d/TCGA-17-Z034_000.nii.gz", "mri": "mri3d/ARC_M2208_T2w_1mm_brain.nii.gz"}.get(modality)
    if scan is None:
        pytest.skip(f"no scan of {modality} named here")
    shutil.unpack_archive(build_bundle.build(name, tmp_path / "build"), tmp_path / "moved")
    shutil.rmtree(tmp_path / "build")
    both = f"['configs/inference.json','configs/{modality}.json']"
    rest = ["--dataset_dir", str(data_dir / scan), "--slices_per_subject", "1", "--device", "cpu", "--output_dir"]
    command(ROOT, "--config_file", both, *rest, str(tmp_path / "repository"))
    command(tmp_path / "moved" / name, "--config_file", "configs/inference.json", *rest, str(tmp_path / "alone"))
    command(tmp_path / "moved" / name, "--config_file", both, *rest, str(tmp_path / "overlay"))
    images = {}
    for way in ("repository", "alone", "overlay"):
        (path,) = (tmp_path / way).glob("*/*_recon.nii.gz")
        images[way] = np.asanyarray(nibabel.load(path).dataobj)
    scale = np.abs(images["repository"]).max()
    for way in ("alone", "overlay"):
        np.testing.assert_allclose(images[way] / scale, images["repository"] / scale, atol=1e-5)


@pytest.mark.slow
def test_every_bundle_passes_the_checks(tmp_path):
    assert build_bundle.main(["--output_dir", str(tmp_path)]) == 0
    folders = [str(tmp_path / name) for name in NAMES]
    script = str(ROOT / "scripts" / "verify_bundles.py")
    environment = {k: v for k, v in os.environ.items() if k != "PYTHONPATH"}
    done = subprocess.run(
        [sys.executable, script, *folders], capture_output=True, text=True, check=False, env=environment, cwd=tmp_path
    )
    assert done.returncode == 0, done.stderr[-2000:]
    assert f"{len(NAMES)} bundles verified" in done.stdout


def test_recipes_name_what_exists():
    for name in NAMES:
        recipe = build_bundle.read_recipe(name)
        for _, _, rows in build_bundle.results_of(name):
            assert "disinr" in {row["method"] for row in rows}
        assert recipe["weights"] is None or (ROOT / recipe["weights"]).is_file()
        assert all((ROOT / "configs" / f"{o}.json").is_file() for o in (*recipe["overlays"], *recipe["without"]))
