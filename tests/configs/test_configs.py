"""Every overlay × phase really runs, and the standard MONAI ids are there."""

import csv
import json
import logging
from pathlib import Path

import nibabel
import numpy as np
import pytest
import torch

from disinr_monai.data.simulate.phantoms import write_phantoms
from disinr_monai.errors import InputError
from disinr_monai.fitting.adaptation import AdaptationInferer
from disinr_monai.prior import LearnedReconstruction
from tests.workflows import CONFIGS, PHASES, run, workflow

MODALITIES = ("mri", "ct", "pet")
WITH_PRIOR = ("mri", "ct")  # the learned prior has no likelihood of counts
BACKBONES = ("siren", "nerf")
SCRATCH = {"mri": ("ngp", "imjense"), "ct": ("ngp",), "pet": ("ngp",)}
PRETRAINED = ("strainer", "meta")
METHODS = ("ngp", "imjense", "disinr_paper", *PRETRAINED)
OTHER = ("prior", "transmission", "quick", "multi_gpu_train", "multi_gpu_evaluate", "federated", "federated_filters")
OTHER += ("metadata", "volume")  # volume: tests/configs/test_volume.py
# Sections of a config: what lies where, the scan and its measurement, network, method, output, engine.
ORDER = """_desc_ imports bundle_root dataset_dir output_dir modality cases acquire dataset out_channels encoder
network_def network prior_start loss optimizer adaptation inferer classical names report results handlers
train evaluator initialize run""".split()


def test_every_config_is_known_here():
    found = {path.stem for path in CONFIGS.rglob("*.json")}
    assert found == {*PHASES, *MODALITIES, *BACKBONES, *METHODS, *OTHER}


@pytest.mark.parametrize("path", sorted(CONFIGS.glob("*.json")), ids=lambda path: path.stem)
def test_keys_are_unique_and_in_order(path):
    pairs = json.loads(path.read_text(), object_pairs_hook=list)
    keys = [key for key, _ in pairs]
    assert len(keys) == len(set(keys))
    if path.stem != "metadata":
        assert keys[0] == "_desc_"
    sections = [ORDER.index(key) for key in keys if key in ORDER]
    assert sections == sorted(sections)


@pytest.fixture(scope="module")
def phantoms(tmp_path_factory):
    folder = tmp_path_factory.mktemp("phantoms")
    for modality in MODALITIES:
        write_phantoms(folder / modality, modality, n_subjects=2, size=32, seed=1)
    return folder


@pytest.fixture(scope="module")
def trained(phantoms, tmp_path_factory):
    """One pre-training run for every modality and backbone."""
    folders = {}
    for modality in MODALITIES:
        for backbone in (None, *BACKBONES):
            out = tmp_path_factory.mktemp(f"{modality}-{backbone}")
            run("train", [backbone] if backbone else [], modality, phantoms, out, max_epochs=1)
            folders[modality, backbone] = out
    return folders


@pytest.mark.parametrize("backbone", [None, *BACKBONES])
@pytest.mark.parametrize("modality", MODALITIES)
def test_training_writes_the_pair_and_the_run(trained, modality, backbone):
    out = trained[modality, backbone]
    content = torch.load(out / "model.pt", weights_only=True)
    assert content["modality"] == modality
    assert (out / "private_resume_checkpoint.pt").is_file()
    assert (out / "mlruns.db").is_file()


@pytest.mark.parametrize(("phase", "backbone"), [("evaluate", None), *(("inference", b) for b in BACKBONES)])
@pytest.mark.parametrize("modality", MODALITIES)
def test_reconstruction_writes_what_it_promises(trained, phantoms, tmp_path, modality, backbone, phase):
    checkpoint = str(trained[modality, backbone] / "model.pt")
    run(phase, [backbone] if backbone else [], modality, phantoms, tmp_path, checkpoint=checkpoint)
    check_outputs(tmp_path, phantoms, modality, phase, "disinr")


@pytest.fixture(scope="module")
def with_prior(trained, phantoms, tmp_path_factory):
    """The pairs of `trained` with a learned prior beside them."""
    folders = {}
    for modality in WITH_PRIOR:
        out = tmp_path_factory.mktemp(f"{modality}-prior")
        options = {"checkpoint": str(trained[modality, None] / "model.pt"), "n_splits": 1, "max_epochs": 1}
        if modality == "ct":
            options["variations"] = {"n_views": [24]}
        run("train", ["prior"], modality, phantoms, out, **options)
        folders[modality] = out
    return folders


@pytest.mark.parametrize("modality", WITH_PRIOR)
def test_prior_is_trained_beside_the_pair_it_was_given(trained, with_prior, modality):
    pair, both = (
        torch.load(folder / "model.pt", weights_only=True)["model"]
        for folder in (trained[modality, None], with_prior[modality])
    )
    assert all(torch.equal(both[name], value) for name, value in pair.items())
    assert any(name.startswith("shared.prior.") for name in both)
    assert (with_prior[modality] / "model.pt").stat().st_size < 25e6


def _counted(method, made):
    def init(self, *args, **keywords):
        made.append(self)
        method(self, *args, **keywords)

    return init


@pytest.mark.parametrize(("has_prior", "kind"), [(False, "AdaptationInferer"), (True, "LearnedReconstruction")])
def test_the_pair_alone_adapts_and_the_prior_reconstructs(
    trained, with_prior, phantoms, tmp_path, monkeypatch, caplog, has_prior, kind
):
    """One inferer is made, not both, and the precision is chosen and logged once."""
    folder = with_prior["mri"] if has_prior else trained["mri", None]
    made = []
    for one in (AdaptationInferer, LearnedReconstruction):
        monkeypatch.setattr(one, "__init__", _counted(one.__init__, made))
    caplog.set_level(logging.INFO, "disinr_monai.runtime.device")
    work = workflow("inference", [], "mri", phantoms, tmp_path, checkpoint=str(folder / "model.pt"))
    work.initialize()
    work.parser.get_parsed_content("evaluator")
    assert [type(inferer).__name__ for inferer in made] == [kind]
    assert made == [work.parser.get_parsed_content("inferer")]
    assert len([record for record in caplog.records if record.message.startswith("amp: ")]) == 1


def test_prior_is_not_used_with_another_start(with_prior, phantoms, tmp_path):
    checkpoint = str(with_prior["mri"] / "model.pt")
    with pytest.raises(RuntimeError) as caught:
        run("inference", [], "mri", phantoms, tmp_path, checkpoint=checkpoint, **{"prior_start#tv_weight": 0.01})
    message = str(caught.value.__cause__)
    assert "trained with start.tv_weight = None, found 0.01" in message


@pytest.mark.parametrize("overlays", [[], ["disinr_paper"]])
@pytest.mark.parametrize("modality", WITH_PRIOR)
def test_inference_uses_the_prior_where_there_is_one(with_prior, phantoms, tmp_path, modality, overlays):
    run("inference", overlays, modality, phantoms, tmp_path, checkpoint=str(with_prior[modality] / "model.pt"))
    check_outputs(tmp_path, phantoms, modality, "inference", overlays[0] if overlays else "disinr")
    rows = list(csv.DictReader((tmp_path / "metrics.csv").open()))
    assert all((row["classical_share"] == "") if overlays else 0 <= float(row["classical_share"]) <= 1 for row in rows)


@pytest.mark.parametrize("pattern", ["random", "poisson", "radial"])
def test_sampling_patterns_run_with_every_method(with_prior, phantoms, tmp_path, pattern):
    checkpoint = str(with_prior["mri"] / "model.pt")
    run("evaluate", [], "mri", phantoms, tmp_path, checkpoint=checkpoint, pattern=pattern)
    check_outputs(tmp_path, phantoms, "mri", "evaluate", "disinr")


def test_adaptation_and_prior_training_along_spokes(phantoms, tmp_path):
    run("inference", ["ngp"], "mri", phantoms, tmp_path / "ngp", pattern="radial", early_stop=True)
    check_outputs(tmp_path / "ngp", phantoms, "mri", "inference", "ngp")
    options = {"n_splits": 1, "max_epochs": 1, "variations": {"pattern": ["radial", "poisson"]}}
    run("train", ["prior"], "mri", phantoms, tmp_path / "prior", **options)
    assert (tmp_path / "prior" / "model.pt").is_file()


@pytest.mark.parametrize(("modality", "method"), [(m, method) for m in MODALITIES for method in SCRATCH[m]])
def test_from_scratch_needs_no_checkpoint(phantoms, tmp_path, modality, method):
    run("inference", [method], modality, phantoms, tmp_path)
    check_outputs(tmp_path, phantoms, modality, "inference", method)


def test_imjense_is_for_mri_only(phantoms, tmp_path):
    with pytest.raises(RuntimeError) as caught:
        run("inference", ["imjense"], "ct", phantoms, tmp_path)
    assert "modality: imjense is for 'mri' only, found 'ct'" in str(caught.value.__cause__)


@pytest.fixture(scope="module")
def others_trained(phantoms, tmp_path_factory):
    """One pre-training run for every other method that is pre-trained; SIREN with CT, the hash grid with MRI."""
    folders = {}
    for method in PRETRAINED:
        for modality, backbone in (("mri", []), ("ct", ["siren"]), ("pet", [])):
            out = tmp_path_factory.mktemp(f"{modality}-{method}")
            run("train", [*backbone, method], modality, phantoms, out, max_epochs=1)
            folders[method, modality] = out, [*backbone, method]
    return folders


@pytest.mark.parametrize("modality", MODALITIES)
@pytest.mark.parametrize("method", PRETRAINED)
def test_pretrained_methods_reconstruct(others_trained, phantoms, tmp_path, method, modality):
    folder, overlays = others_trained[method, modality]
    run("evaluate", overlays, modality, phantoms, tmp_path, checkpoint=str(folder / "model.pt"))
    check_outputs(tmp_path, phantoms, modality, "evaluate", method)


@pytest.mark.parametrize("depth", [2, "all"])
def test_strainer_freezes_from_the_command_line(others_trained, phantoms, tmp_path, depth):
    folder, overlays = others_trained["strainer", "mri"]
    options = {"checkpoint": str(folder / "model.pt"), "freeze_depth": depth}
    run("inference", overlays, "mri", phantoms, tmp_path, **options)
    check_outputs(tmp_path, phantoms, "mri", "inference", "strainer")


@pytest.mark.parametrize("algorithm", ["fomaml", "maml"])
def test_meta_learns_by_other_algorithms(phantoms, tmp_path, algorithm):
    options = {"algorithm": algorithm, "n_inner": 1, "outer_lr": 1e-3}
    run("train", ["meta"], "mri", phantoms, tmp_path, max_epochs=1, **options)
    content = torch.load(tmp_path / "model.pt", weights_only=True)
    assert json.loads(content["architecture"])["network"] == "MetaINR"


def test_pretrained_methods_need_their_own_checkpoint(trained, phantoms, tmp_path):
    for checkpoint, message in ((None, "none is shipped for Strainer"), ("model.pt", "network is DisINR, expected")):
        path = checkpoint and str(trained["mri", None] / checkpoint)
        with pytest.raises(RuntimeError) as caught:
            run("inference", ["strainer"], "mri", phantoms, tmp_path, checkpoint=path)
        assert message in str(caught.value.__cause__)


def check_outputs(out: Path, phantoms: Path, modality: str, phase: str, method: str) -> None:
    rows = list(csv.DictReader((out / "metrics.csv").open()))
    baselines = {
        "mri": {"zero_filled", "sense", "l1_wavelet", "tv"},
        "ct": {"fbp", "sirt", "tv"},
        "pet": {"fbp", "mlem", "osem", "tv"},
    }[modality]
    assert {row["method"] for row in rows} == ({method} | baselines if phase == "evaluate" else {method})
    assert all(np.isfinite(float(row["psnr"])) for row in rows)
    sources = sorted((phantoms / modality).glob("*.nii.gz"))
    assert len(sources) == 2
    for source in sources:
        name = source.name.removesuffix(".nii.gz")
        image = nibabel.load(out / name / f"{name}_recon.nii.gz")
        assert image.get_data_dtype() == np.float32
        assert image.shape == (32, 32, 1)
        np.testing.assert_allclose(image.affine, nibabel.load(source).affine, atol=1e-4)
        assert (out / name / f"{name}_recon.png").stat().st_size > 1000
    page = (out / "report.html").read_text()
    assert page.count("<article") == len(sources)
    n_panels = 3 if phase == "inference" else len(baselines) + 2
    assert page.count('data-pixels="') == len(sources) * n_panels
    assert not [p for p in out.rglob("*") if p.name.startswith(".")], "half-written files are left"


@pytest.mark.parametrize("modality", MODALITIES)
def test_training_leaves_a_report_of_the_loss(trained, modality):
    text = (trained[modality, None] / "report.html").read_text()
    assert f"Pre-training: {modality}" in text
    assert "<polyline" in text


def test_scratch_method_cannot_be_pre_trained(phantoms, tmp_path):
    with pytest.raises(RuntimeError) as caught:
        run("train", ["ngp"], "mri", phantoms, tmp_path)
    assert isinstance(caught.value.__cause__, InputError)
    assert "nothing to pre-train" in str(caught.value.__cause__)


@pytest.mark.parametrize("modality", MODALITIES)
@pytest.mark.parametrize("phase", PHASES)
def test_standard_ids(trained, phase, modality, phantoms, tmp_path):
    options = {} if phase == "train" else {"checkpoint": str(trained[modality, None] / "model.pt")}
    work = workflow(phase, [], modality, phantoms, tmp_path, **options)
    work.initialize()
    assert work.check_properties() == []


@pytest.mark.parametrize("phase", PHASES)
def test_run_and_its_alias_are_the_same(phase):
    alias = {"train": "training"}.get(phase, phase)
    assert json.loads((CONFIGS / f"{phase}.json").read_text())[alias] == "%run"


@pytest.mark.parametrize("text", ["true", "True", "false", "False"])
def test_booleans_from_the_command_line(text, phantoms, tmp_path, trained):
    checkpoint = str(trained["mri", None] / "model.pt")
    work = workflow("inference", [], "mri", phantoms, tmp_path, checkpoint=checkpoint, early_stop=text)
    work.initialize()
    assert work.parser.get_parsed_content("inferer").early_stop is (text.lower() == "true")


def test_checkpoint_of_the_other_modality_is_named(trained, phantoms, tmp_path):
    with pytest.raises(RuntimeError) as caught:
        run("inference", [], "ct", phantoms, tmp_path, checkpoint=str(trained["mri", None] / "model.pt"))
    assert "pre-trained on 'mri', this run is 'ct'" in str(caught.value.__cause__)
