"""What README and docs tell a user to type and to write is true."""

import ast
import json
import re
import shlex
import subprocess
from pathlib import Path

import pytest
from monai.bundle import ConfigParser

from disinr_monai.runtime.config_files import check_order, read_files
from disinr_monai.runtime.overrides import check_config
from tests import runs
from tests.configs.pages import PAGES, blocks
from tests.conftest import ROOT
from tests.workflows import CONFIGS

MONAI_OPTIONS = {"config_file", "meta_file", "logging_file", "args_file", "run_id", "init_id", "final_id", "tracking"}
PHASES = {"train": "training", "inference": "inference", "evaluate": "evaluate"}


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
    check_order(read_files(files))
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
    missing = {t for t in relative if not (ROOT / t).exists()}
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
