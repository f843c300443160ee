"""Assemble the Model Zoo bundles: self-contained folders and zips in build/bundles.

    python scripts/build_bundle.py              all bundles
    python scripts/build_bundle.py NAME ...     some
    python scripts/build_bundle.py --update     write the generated parts of bundle/*/docs/README.md
    python scripts/build_bundle.py --check      fail if one of these is stale

What is written by hand lies in `bundle/NAME` (docs/how-to/build-a-bundle.md): a recipe, what its metadata says beyond
`configs/metadata.json`, the model card and the licences of the data. All else is taken from the repository, so that
nothing is kept twice.
"""

from __future__ import annotations

import argparse
import json
import shutil
import sys
import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from monai.bundle import ConfigParser
from write_benchmarks import table
from write_grid import cell_title

from disinr_monai.checkpoints.released import write_bundled
from disinr_monai.errors import InputError
from disinr_monai.output.tables import summarise

ROOT = Path(__file__).resolve().parents[1]
SOURCES, TARGET = ROOT / "bundle", ROOT / "build" / "bundles"
PHASES = {"train": ("train",), "inference": ("inference",), "evaluate": ("inference", "evaluate")}
MAX_MB = 25.0
METRICS = ("psnr", "psnr_std", "ssim", "ssim_std", "n_subjects")
RECIPE_KEYS = {"modality", "overlays", "without", "weights", "displayable", "results"}


def read_recipe(name: str) -> dict[str, Any]:
    """`bundle/NAME/recipe.json`.

    Raises:
        InputError: no such bundle, or a key that is missing or unknown.
    """
    path = SOURCES / name / "recipe.json"
    if not path.is_file():
        raise InputError(f"{name}: no such bundle; there are {', '.join(bundle_names())}")
    recipe = json.loads(path.read_text())
    if recipe.keys() != RECIPE_KEYS:
        raise InputError(f"{path}: expected the keys {sorted(RECIPE_KEYS)}, found {sorted(recipe)}")
    return recipe


def bundle_names() -> list[str]:
    """Every folder with a recipe."""
    return sorted(path.parent.name for path in SOURCES.glob("*/recipe.json"))


def metadata_of(name: str) -> dict[str, Any]:
    """The repository's metadata, what the bundle says otherwise, and the results as `eval_metrics`."""
    metadata = json.loads((ROOT / "configs" / "metadata.json").read_text())
    metadata |= json.loads((SOURCES / name / "metadata.json").read_text())
    metadata["eval_metrics"] = {
        key: {metric: round(value, 4) for metric, value in summarise(rows)["disinr"].items() if metric in METRICS}
        for key, _, rows in results_of(name)
    }
    return metadata


def results_of(name: str) -> list[tuple[str, str, list[dict[str, Any]]]]:
    """Key, title and rows of the benchmark results of a bundle."""
    found = []
    for key in read_recipe(name)["results"]:
        kind, _, cell_name = key.partition(" ")
        cell = json.loads((ROOT / "benchmarks" / "results" / f"grid_{kind}.json").read_text())["cells"][cell_name]
        found.append((key, cell_title(kind, cell["setting"]), cell["rows"]))
    return found


def generated_parts(name: str) -> dict[str, str]:
    """What stands between `<!-- KEY:start -->` and `<!-- KEY:end -->` in the model card."""
    metadata, lines = metadata_of(name), []
    for _, title, rows in results_of(name):
        lines += [f"**{title}**", "", *table(rows), ""]
    pins = {"torch": metadata["pytorch_version"], "monai": metadata["monai_version"]}
    pins |= {"numpy": metadata["numpy_version"], **metadata["required_packages_version"]}
    torch, *others = (f"{package}=={version}" for package, version in pins.items())
    wrapped = " \\\n  ".join(" ".join(others[i : i + 5]) for i in range(0, len(others), 5))
    install = f"```bash\npip install {torch}\npip install {wrapped}\n```"
    return {"results": "\n".join(lines).strip() or "None yet.", "requirements": install}


def model_card(name: str) -> str:
    """`bundle/NAME/docs/README.md` with its generated parts as they should be.

    Raises:
        InputError: a marker is missing.
    """
    path = SOURCES / name / "docs" / "README.md"
    text = path.read_text()
    for key, part in generated_parts(name).items():
        start, end = f"<!-- {key}:start -->", f"<!-- {key}:end -->"
        if text.count(start) != 1 or text.count(end) != 1:
            raise InputError(f"{path}: expected one {start} and one {end}")
        before, rest = text.split(start)
        text = f"{before}{start}\n{part}\n{end}{rest.split(end)[1]}"
    return text


def merged_configs(recipe: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """The phases with the modality merged in, and the overlays that fit it."""
    configs = ROOT / "configs"
    merged = {}
    for phase, parts in PHASES.items():
        files = [str(configs / f"{part}.json") for part in (*parts, *recipe["overlays"])]
        merged[phase] = ConfigParser.load_config_files(files)
    for path in sorted(configs.glob("*.json")):
        content = json.loads(path.read_text())
        other = content.get("modality", recipe["modality"]) != recipe["modality"]
        if path.stem not in (*PHASES, "metadata", *recipe["without"]) and not other:
            merged[path.stem] = content
    # Tools with a panel of settings (MONAI Label) change them there; the names that users type stay.
    for phase in ("inference", "evaluate"):
        config = merged[phase]
        if missing := set(recipe["displayable"]) - config.keys():
            raise InputError(f"recipe.json: displayable: {sorted(missing)} are no keys of configs/{phase}.json")
        config["displayable_configs"] = {key: config[key] for key in recipe["displayable"]}
        config |= {key: f"@displayable_configs#{key}" for key in recipe["displayable"]}
    return merged


def build(name: str, target: Path) -> Path:
    """Assemble one bundle in `target/NAME` and `target/NAME_vVERSION.zip`; returns the zip.

    Raises:
        InputError: see :func:`assemble`.
    """
    folder = assemble(name, target)
    version = json.loads((folder / "configs" / "metadata.json").read_text())["version"]
    return pack(folder, target / f"{name}_v{version}.zip")


def assemble(name: str, target: Path) -> Path:
    """Put one bundle together in `target/NAME`.

    Raises:
        InputError: recipe, model card or weights are not as they should be.
    """
    recipe, source, folder = read_recipe(name), SOURCES / name, target / name
    shutil.rmtree(folder, ignore_errors=True)
    for part in ("configs", "docs"):
        (folder / part).mkdir(parents=True)
    for config, content in merged_configs(recipe).items():
        write_json(folder / "configs" / f"{config}.json", content)
    write_json(folder / "configs" / "metadata.json", metadata_of(name))
    shutil.copy(ROOT / "configs" / "logging.conf", folder / "configs")
    for path in sorted(source.rglob("*")):
        place = folder / path.relative_to(source)
        if path.is_file() and path.name not in ("recipe.json", "metadata.json"):
            place.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(path, place)
    (folder / "docs" / "README.md").write_text(model_card(name))
    shutil.copy(ROOT / "LICENSE", folder)
    for path in sorted((ROOT / "disinr_monai").rglob("*")):
        if path.is_file() and "__pycache__" not in path.parts:
            place = folder / path.relative_to(ROOT)
            place.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(path, place)
    if recipe["weights"]:
        write_weights(ROOT / recipe["weights"], folder)
    return folder


def write_weights(checkpoint: Path, folder: Path) -> None:
    """`models/model.pt` as MONAI's tools expect it."""
    (folder / "models").mkdir()
    path = folder / "models" / "model.pt"
    write_bundled(checkpoint, path)
    size = path.stat().st_size / 1e6
    if size > MAX_MB and not any(folder.glob("large_files.*")):
        raise InputError(f"{checkpoint}: {size:.1f} MB are more than {MAX_MB:.0f}; host it, write a large_files.yml")


def pack(folder: Path, path: Path) -> Path:
    """A zip that is the same byte by byte for the same content."""
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED, compresslevel=6) as archive:
        for file in sorted(f for f in folder.rglob("*") if f.is_file()):
            entry = zipfile.ZipInfo(str(file.relative_to(folder.parent)), (1980, 1, 1, 0, 0, 0))
            entry.compress_type, entry.external_attr = zipfile.ZIP_DEFLATED, 0o644 << 16
            archive.writestr(entry, file.read_bytes())
    return path


def write_json(path: Path, content: dict[str, Any]) -> None:
    """As the zoo's pre-commit hook wants it."""
    path.write_text(json.dumps(content, indent=4, ensure_ascii=False) + "\n")


def main(arguments: Sequence[str] | None = None) -> int:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", help="bundles; all by default")
    parser.add_argument("--output_dir", default=str(TARGET))
    parser.add_argument("--update", action="store_true")
    parser.add_argument("--check", action="store_true")
    options = parser.parse_args(arguments)
    try:
        for name in options.names or bundle_names():
            card = SOURCES / name / "docs" / "README.md"
            if options.check and card.read_text() != model_card(name):
                raise InputError(f"{card}: stale; run `python scripts/build_bundle.py --update` and commit it")
            if options.update:
                card.write_text(model_card(name))
            if not (options.check or options.update):
                path = build(name, Path(options.output_dir))
                print(f"{path} ({path.stat().st_size / 1e6:.1f} MB)")
    except InputError as error:
        sys.stderr.write(f"error: {error}\n")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
