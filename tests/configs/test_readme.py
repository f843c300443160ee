"""What README and docs tell a user to type and to write is true."""

from __future__ import annotations

import ast
import importlib
import json
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path
from unittest import mock

import numpy as np
import pytest
import torch
from monai.bundle import ConfigParser, ConfigWorkflow

from disinr_monai.data import AcquireCT, AcquireMRI, AcquirePET, list_cases
from disinr_monai.data.readers.reader import READERS
from disinr_monai.data.simulate.mri import simulate_kspace
from disinr_monai.data.simulate.phantoms import brain_phantom, write_phantoms
from disinr_monai.errors import InputError
from disinr_monai.methods import MLEM
from disinr_monai.networks import DisINR
from disinr_monai.runtime.overrides import check_config, read_files
from tests import runs
from tests.conftest import ROOT
from tests.networks import test_contract as encoder_contract
from tests.operators import helpers
from tests.operators import test_contract as operator_contract

PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
ADDED_LATER: set[str] = set()
MONAI_OPTIONS = {"config_file", "meta_file", "logging_file", "args_file", "run_id", "init_id", "final_id", "tracking"}
PHASES = {"train": "training", "inference": "inference", "evaluate": "evaluate"}
CONFIGS = ROOT / "configs"
FENCE = re.compile(r"^```(\w+)(?: title=\"([^\"]+)\")?\n(.*?)^```", re.MULTILINE | re.DOTALL)


def blocks(page: Path, language: str) -> list[tuple[str, str]]:
    """Title and text of every fenced block of one language."""
    return [(title, text) for kind, title, text in FENCE.findall(page.read_text()) if kind == language]


def block(page: str, title: str, language: str = "python") -> str:
    (text,) = (text for name, text in blocks(ROOT / "docs" / page, language) if name == title)
    return text


def bundle_commands() -> list[tuple[str, Path, list[str]]]:
    found = []
    for page in PAGES:
        for _, text in blocks(page, "bash"):
            for line in text.replace("\\\n", " ").splitlines():
                if "-m monai.bundle run" in line:
                    words = shlex.split(re.sub(r"\s#.*", "", line))  # not the # of `--encoder#seed`
                    run_id = words[words.index("run") + 1]
                    found.append((f"{page.stem}-{run_id}-{len(found)}", page, words[words.index("run") + 1 :]))
    return found


def described_commands() -> list[tuple[str, Path, list[str]]]:
    """The command in the `_desc_` of every config."""
    found = []
    for path in sorted(CONFIGS.glob("*.json")):
        text = json.loads(path.read_text()).get("_desc_", "")
        if "-m monai.bundle run" in text:
            words = shlex.split(text.partition("-m monai.bundle ")[2])
            found.append((f"{path.name}-{words[1]}", path, words[1:]))
    return found


DESCRIBED = described_commands()
COMMANDS = bundle_commands() + DESCRIBED


def test_readme_shows_every_phase():
    assert {words[0] for _, page, words in COMMANDS if page.name == "README.md"} == set(PHASES.values())


@pytest.mark.parametrize(("page", "words"), [c[1:] for c in COMMANDS], ids=[c[0] for c in COMMANDS])
def test_bundle_command_is_valid(page, words, tmp_path):
    run_id, options = words[0], words[1:]
    names, values = options[::2], options[1::2]
    assert len(names) == len(values)
    assert all(name.startswith("--") for name in names)
    given = dict(zip([name.removeprefix("--") for name in names], values, strict=True))
    # Overlays that a page tells the reader to write count as files.
    written = dict(blocks(page, "json"))
    files = []
    for name in ast.literal_eval(given["config_file"]):
        assert name in written or (ROOT / name).is_file(), f"{page.name}: {name} does not exist"
        files.append(str(ROOT / name))
        if name in written:
            files[-1] = str(tmp_path / Path(name).name)
            Path(files[-1]).write_text(written[name])
    parser = ConfigParser()
    parser.read_config(files)
    assert run_id in parser.config, f"{page.name}: no file of {files} defines {run_id}"
    parser.update({key: runs.value(text) for key, text in given.items() if key not in MONAI_OPTIONS})
    parser.parse()
    check_config(parser.config, read_files(files))


def test_every_config_shows_its_own_command():
    """But for those that MONAI's federated client reads, which has no command line."""
    without = {"metadata.json", "federated.json", "federated_filters.json"}
    assert {path.name for _, path, _ in DESCRIBED} == {path.name for path in CONFIGS.glob("*.json")} - without
    for name, path, words in DESCRIBED:
        assert f"'configs/{path.name}'" in words[words.index("--config_file") + 1], name


def test_links_of_the_readme_exist():
    targets = re.findall(r"\]\(([^)\s]+)\)", (ROOT / "README.md").read_text())
    relative = {t.split("#")[0] for t in targets if "://" not in t}
    assert relative
    missing = {t for t in relative if not (ROOT / t).exists()} - ADDED_LATER
    assert not missing


def test_readme_keeps_the_markers_of_the_generated_table():
    text = (ROOT / "README.md").read_text()
    assert text.count("<!-- results:start -->") == text.count("<!-- results:end -->") == 1
    assert text.index("<!-- results:start -->") < text.index("<!-- results:end -->")


def documented_keys() -> dict[str, dict[str, str]]:
    """Key to default by section, from the tables of docs/configs.md that have a default column."""
    found, section, has_default = {}, "", False
    for line in (ROOT / "docs" / "configs.md").read_text().splitlines():
        if line.startswith("## "):
            section, has_default = line, False
        elif line.startswith("| key | default |"):
            has_default = True
        elif has_default and line.startswith("| `"):
            key, default = (cell.strip() for cell in line.split("|")[1:3])
            found.setdefault(key.strip("`"), {})[section] = default
    return found


@pytest.mark.parametrize("name", [*PHASES, "mri", "ct", "pet", "volume"])
def test_config_page_has_every_simple_key_with_its_default(name):
    config = json.loads((ROOT / "configs" / f"{name}.json").read_text())
    documented = documented_keys()
    for key, value in config.items():
        is_open = isinstance(value, (dict, list)) or (isinstance(value, str) and value[:1] in ("$", "@", "%"))
        if is_open or key == "_desc_" or "#" in key:
            continue
        assert key in documented, f"docs/configs.md: {key} of configs/{name}.json is missing"
        titles = {"mri": "## MRI", "ct": "## CT", "pet": "## PET", "volume": "## Volumes"}
        own = [text for section, text in documented[key].items() if section.startswith(titles.get(name, "-"))]
        general = [
            text for section, text in documented[key].items() if not section.startswith(("## Volumes", "## PET"))
        ]
        for default in own if name in titles else general[:1]:
            assert f"`{json.dumps(value)}`" in default, f"docs/configs.md: default of {key}"


def test_sinogram_example(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    exec(block("bring-your-own-data.md", ""), {"__name__": "example"})
    (case,) = list_cases(tmp_path / "disc.h5", "ct")
    measured = AcquireCT()(case)
    image = measured["scan"].operator.direct_inverse(measured["scan"].measurement)[0]
    # Pixels of 2 mm, centre at 39.5: the insert is 25 mm to the right and 10 mm up.
    water, insert, air = image[38:42, 28:32].mean(), image[33:37, 51:54].mean(), image[2:6, 2:6].mean()
    np.testing.assert_allclose([1200 * float(v) - 1000 for v in (water, insert, air)], [0, 200, -1000], atol=60)


def test_pet_example(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    exec(block("bring-your-own-data.md", "pet.py"), {"__name__": "example"})
    (case,) = list_cases(tmp_path / "pet.h5", "pet")
    image = MLEM(n_iterations=2, n_subsets=8)(None, None, case=AcquirePET()(case))[0, 0]
    # Pixels of 4 mm, centre at 47.5: the hot disc is 50 mm to the right and 30 mm up.
    warm, hot, air = image[46:50, 30:34].mean(), image[38:42, 58:62].mean(), image[2:6, 2:6].mean()
    np.testing.assert_allclose([float(hot / warm), float(air / warm)], [5, 0], atol=1.0)


def test_radial_example(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    exec(block("bring-your-own-data.md", "radial.py"), {"__name__": "example"})
    (case,) = list_cases(tmp_path / "radial.h5", "mri")
    measured = AcquireMRI()(case)
    image = torch.linalg.vector_norm(measured["scan"].operator.direct_inverse(measured["scan"].measurement), dim=0)
    assert divmod(int(image.argmax()), 128) == (64, 64)


def test_ismrmrd_example(tmp_path, monkeypatch):
    pytest.importorskip("ismrmrd")
    monkeypatch.chdir(tmp_path)
    exec(block("bring-your-own-data.md", "ismrmrd_scan.py"), {"__name__": "example"})
    (case,) = list_cases(tmp_path / "scan.h5", "mri")
    measured = AcquireMRI()(case)
    assert measured["info"]["maps"] == "espirit"
    # The middle of the slice: 40 mm up, at the pixel where the transform has its centre.
    np.testing.assert_allclose(measured["affine"].numpy() @ [48, 48, 0, 1], [0, 0, 40, 1], atol=1e-4)


@pytest.fixture
def own_code(tmp_path, monkeypatch):
    """A folder with the configs and, importable, the files that a page tells the reader to write."""
    shutil.copytree(ROOT / "configs", tmp_path / "configs")
    monkeypatch.syspath_prepend(tmp_path)
    modules = []

    def write(page: str, module: str):
        (tmp_path / f"{module}.py").write_text(block(page, f"{module}.py"))
        (tmp_path / "configs" / f"{module}.json").write_text(block(page, f"configs/{module}.json", "json"))
        modules.append(module)
        importlib.invalidate_caches()
        return importlib.import_module(module)

    yield write
    for module in modules:
        sys.modules.pop(module, None)


def test_add_an_operator(own_code, tmp_path, monkeypatch):
    module = own_code("how-to/add-an-operator.md", "blur")
    monkeypatch.setattr(helpers, "EXAMPLE_OPERATORS", {})
    exec(block("how-to/add-an-operator.md", ""), vars(helpers) | vars(module))
    (make,) = helpers.EXAMPLE_OPERATORS[module.GaussianBlur]
    for batch in ((), (3,), (2, 3)):
        operator_contract.test_adjoint(make, batch)
        operator_contract.test_shapes_and_batches(make, batch)
    for check in ("gradient_is_the_adjoint", "wrong_shapes_are_named", "norm_squared", "move"):
        getattr(operator_contract, f"test_{check}")(make)
    operator_contract.test_nothing_is_saved_with_a_network(make)
    flat = torch.ones(1, 5, 7)
    torch.testing.assert_close(make()(flat), flat)

    write_phantoms(tmp_path / "new", "ct", n_subjects=1, size=32)
    configs = [str(tmp_path / "configs" / f"{name}.json") for name in ("inference", "ct", "blur", "ngp")]
    workflow = ConfigWorkflow(
        configs,
        workflow_type="infer",
        logging_file=False,
        dataset_dir=str(tmp_path / "new"),
        output_dir=str(tmp_path / "out"),
        baselines="@classical",
        sigma=2.0,
        image_size=32,
        n_iterations=2,
        device="cpu",
        quiet=True,
    )
    workflow.initialize()
    workflow.run()
    workflow.finalize()
    rows = (tmp_path / "out" / "metrics.csv").read_text().splitlines()
    assert [row.split(",")[2] for row in rows[1:]] == ["ngp", "tv"]


def test_add_a_file_format(own_code, tmp_path):
    scan = simulate_kspace(brain_phantom(32, np.random.default_rng(0)), n_coils=3)
    folder = tmp_path / "new"
    folder.mkdir()
    np.savez(folder / "scan.npz", kspace=np.stack([scan.kspace] * 3), voxel_mm=[2.0, 2.0, 5.0])
    with pytest.raises(InputError, match=r"found 1 others \(.npz\)"):
        list_cases(folder, "mri")
    with mock.patch.dict(READERS):
        own_code("how-to/add-a-file-format.md", "npz_kspace")
        assert READERS["npz_kspace"].name == "NumPy k-space"
        np.savez(tmp_path / "other.npz", image=np.ones(3))
        with pytest.raises(InputError, match=r"other\.npz: expected `kspace` in a \.npz file"):
            list_cases(tmp_path / "other.npz", "mri")
        workflow = ConfigWorkflow(
            [str(tmp_path / "configs" / f"{name}.json") for name in ("inference", "mri", "ngp", "npz_kspace")],
            workflow_type="infer",
            logging_file=False,
            dataset_dir=str(folder),
            output_dir=str(tmp_path / "out"),
            acs=12,
            slices_per_subject=2,
            n_iterations=2,
            device="cpu",
            quiet=True,
        )
        workflow.initialize()
        workflow.run()
        workflow.finalize()
    rows = (tmp_path / "out" / "metrics.csv").read_text().splitlines()
    assert [row.split(",")[0] for row in rows[1:]] == ["scan_s001", "scan_s002"]
    assert "read as NumPy k-space" in (tmp_path / "out" / "report.html").read_text()


def test_add_a_backbone(own_code, tmp_path, rng):
    module = own_code("how-to/add-a-backbone.md", "fourier_features")
    points = torch.rand(33, 2, generator=rng) * 2 - 1
    (example,) = (text for _, text in blocks(ROOT / "docs/how-to/add-a-backbone.md", "py"))
    (make,) = eval("{" + example + "}", vars(module)).values()
    encoder_contract.test_width(make, points)
    encoder_contract.test_points_are_encoded_one_by_one(make, points)
    encoder_contract.test_every_parameter_gets_a_gradient(make, points)
    encoder_contract.test_seed_decides_the_start(make)
    encoder_contract.test_reset_gives_the_start_back(make, points)
    encoder_contract.test_saved_and_loaded_it_draws_the_same(make, points, tmp_path)

    overlay = json.loads((tmp_path / "configs" / "fourier_features.json").read_text())
    assert overlay["encoder"]["_target_"] == "fourier_features.FourierFeaturesEncoder"
    network = DisINR(module.FourierFeaturesEncoder, out_channels=2, n_subjects=2)
    assert "points" not in network.shared.state_dict()


def tracked_files() -> list[Path]:
    try:
        done = subprocess.run(["git", "-C", str(ROOT), "ls-files", "-z"], capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        pytest.skip("not a git checkout")
    return [ROOT / name for name in done.stdout.split("\0") if name]


def test_no_private_path_is_committed():
    # Put together here, so that this file does not contain them itself.
    private = re.compile("|".join(re.escape("/" + "/".join(p)) for p in (("work", ""), ("tmp", "venv"), ("home", ""))))
    found = []
    for path in tracked_files():
        try:
            text = path.read_text()
        except (UnicodeDecodeError, OSError):
            continue
        found += [
            f"{path.relative_to(ROOT)}:{number}"
            for number, line in enumerate(text.splitlines(), 1)
            if private.search(re.sub(r"\w+://\S+", "", line))
        ]
    assert not found
