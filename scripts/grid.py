"""The grids of `scripts/benchmark.py grid`: test persons times settings, one cell after the other, resumable."""

from __future__ import annotations

import argparse
import hashlib
import itertools
import json
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from disinr_monai.errors import InputError
from disinr_monai.output.tables import summary_table, write_json
from disinr_monai.runtime.versions import versions

ROOT = Path(__file__).resolve().parents[1]
Measure = Callable[[str, list[str], dict[str, str], dict[str, Any], Path], list[dict[str, Any]]]


@dataclass(frozen=True)
class Grid:
    """One grid.

    Attributes:
        task: modality overlay.
        axes: options that the cells differ in.
        cells: their values.
        methods: run by default.
        fixed: options of all cells.
        persons: key in the file of persons.
    """

    task: str
    axes: tuple[str, ...]
    cells: list[tuple[Any, ...]]
    methods: str
    fixed: dict[str, Any] = field(default_factory=dict)
    persons: str = "mri"


_MRI = "disinr,tv,l1_wavelet,sense"
GRIDS = {
    "real": Grid(
        "mri", ("pattern", "acceleration"), [("uniform", 4), ("uniform", 6), ("poisson", 6)], _MRI, {"acs": 20}, "real"
    ),
    "mri": Grid(
        "mri",
        ("acceleration", "noise_std"),
        list(itertools.product((3, 4, 6, 8), (0.01, 0.03, 0.06, 0.1, 0.2))),
        _MRI,
        {"n_coils": 8},
    ),
    "patterns": Grid(
        "mri",
        ("pattern", "acceleration"),
        [("random", 4), ("poisson", 6), ("poisson", 20), ("radial", 10)],
        _MRI,
        {"n_coils": 8, "noise_std": 0.03},
    ),
    "ct": Grid(
        "ct",
        ("n_views", "photons"),
        list(itertools.product((30, 60, 90), (5e3, 1e4, 1e5, 1e6))),
        "disinr,tv,sirt",
        persons="ct",
    ),
}


def add_command(commands: Any) -> None:
    """Add ``grid`` to the commands of ``scripts/benchmark.py``."""
    command = commands.add_parser("grid", help="all settings of a grid on the test persons; goes on where it stopped")
    command.add_argument("--task", choices=tuple(GRIDS), required=True, help="real: the measured scan")
    command.add_argument("--data_dir", required=True, help="folder of the files in --persons_file")
    command.add_argument("--persons_file", default=str(ROOT / "benchmarks" / "test_persons.json"))
    command.add_argument("--persons", type=int, help="only the first so many")
    command.add_argument("--cells", help="only these, e.g. 4/0.03,6/0.1 (acceleration/noise_std) or 60/1e5")
    command.add_argument("--methods", help="default: disinr and the classical ones of the task")
    command.add_argument("--checkpoint", help="of disinr; default: the checkpoint shipped for the task")
    command.add_argument("--output", help="default: benchmarks/results/grid_TASK.json")
    command.add_argument("--seed", type=int, default=0)
    command.add_argument("--quiet", action="store_true")


def cell_name(values: Sequence[Any]) -> str:
    """``(60, 1e5)`` as ``60/1e5``."""
    return "/".join(map(short, values))


def short(value: Any) -> str:
    """A number as short text, 100000 as ``1e5``."""
    if isinstance(value, str):
        return value
    return f"{value:g}" if value < 1000 else f"{value:.0e}".replace("e+0", "e")


def chosen_cells(grid: Grid, text: str | None) -> list[tuple[Any, ...]]:
    """The cells named by ``--cells``; all if it is not given.

    Raises:
        InputError: no such cell.
    """
    if text is None:
        return grid.cells
    known, found = {tuple(map(str, map(_number, cell))): cell for cell in grid.cells}, []
    for name in text.split(","):
        key = tuple(str(_number(part)) for part in name.strip().split("/"))
        if key not in known:
            raise InputError(f"cells: expected some of {', '.join(map(cell_name, grid.cells))}, found {name!r}")
        found.append(known[key])
    return found


def _number(value: Any) -> Any:
    try:
        return float(value)
    except ValueError:
        return value


def unseen_persons(file: str, kind: str, weights: str, n: int | None) -> list[dict[str, Any]]:
    """The persons of one grid who were not pre-trained on.

    Raises:
        InputError: the file cannot be read, or nobody is left.
    """
    try:
        persons = json.loads(Path(file).read_text())[kind]
    except (OSError, ValueError, KeyError) as error:
        raise InputError(f"persons_file: expected JSON with a list {kind!r}, found {file} ({error})") from None
    seen = [p["person"] for p in persons if weights in p.get("seen_by", ())]
    if seen:
        print(f"left out, as these weights ({weights}) were pre-trained on them: {', '.join(seen)}")
    persons = [p for p in persons if p["person"] not in seen][:n]
    if not persons:
        raise InputError(f"persons_file: expected a person in {kind!r} of {file} that the weights have not seen")
    return persons


def link_scans(persons: list[dict[str, Any]], data_dir: str, folder: Path) -> dict[str, tuple[dict[str, Any], str]]:
    """Link the scans of persons into a folder; person and contrast by the file's name without ending.

    Raises:
        InputError: a file is missing.
    """
    folder.mkdir(parents=True)
    found = {}
    for person in persons:
        for name, contrast in person["scans"].items():
            source = Path(data_dir).resolve() / name
            if not source.is_file():
                raise InputError(f"data_dir: expected {name} of {person['person']} in {data_dir}, found no such file")
            (folder / source.name).symlink_to(source)
            found[source.name.removesuffix(".gz").rpartition(".")[0]] = (person, contrast)
    return found


def grid(arguments: argparse.Namespace, options: dict[str, Any], measure: Measure) -> dict[str, Any]:
    """Measure what a grid still lacks, and write it after every cell.

    A cell holds a row for each scan and method. Rows that are there already are kept; a file of other weights, seed or
    options is refused, because its rows could not be compared.

    Args:
        arguments: of the command.
        options: further overrides of the bundle.
        measure: task, methods, checkpoints, options and folder to rows.

    Raises:
        InputError: what a user can get wrong.
    """
    spec = GRIDS[arguments.task]
    methods = (arguments.methods or spec.methods).split(",")
    output = Path(arguments.output or ROOT / "benchmarks" / "results" / f"grid_{arguments.task}.json")
    checkpoint = Path(arguments.checkpoint or ROOT / "models" / f"{spec.task}.pt")
    weights = hashlib.sha256(checkpoint.read_bytes()).hexdigest()[:12] if checkpoint.is_file() else "none"
    cells = chosen_cells(spec, arguments.cells)
    persons = unseen_persons(arguments.persons_file, spec.persons, weights, arguments.persons)
    fixed = {**spec.fixed, **options}
    about = {"task": arguments.task, "weights": weights, "seed": arguments.seed, "options": fixed}
    result = _stored(output, about)
    for number, values in enumerate(cells, 1):
        name, setting = cell_name(values), dict(zip(spec.axes, values, strict=True))
        cell = result["cells"].setdefault(name, {"setting": setting, "rows": []})
        done = {(row["scan"], row["method"]) for row in cell["rows"]}
        wanted = {(scan, method) for person in persons for scan in person["scans"] for method in methods}
        missing = wanted - done
        print(f"cell {number} of {len(cells)}, {name}: {len(missing)} of {len(wanted)} rows to measure", flush=True)
        if missing:
            started = time.time()
            lacking = [p for p in persons if any(scan in p["scans"] for scan, _ in missing)]
            these = [m for m in methods if any(method == m for _, method in missing)]
            rows = _measured(arguments, spec.task, lacking, these, {**fixed, **setting}, measure)
            new = {(row["scan"], row["method"]) for row in rows}
            cell["rows"] = [r for r in cell["rows"] if (r["scan"], r["method"]) not in new] + rows
            found = dict(versions())
            cell |= {"hardware": found.pop("hardware", "unknown"), "versions": found}
            order = [cell_name(each) for each in spec.cells]
            result["cells"] = dict(sorted(result["cells"].items(), key=lambda item: order.index(item[0])))
            write_json(output, result, arguments.seed)
            print(f"{summary_table(cell['rows'])}\n{time.time() - started:.0f} s, written to {output}", flush=True)
    return result


def _stored(output: Path, about: dict[str, Any]) -> dict[str, Any]:
    if not output.is_file():
        return {**about, "cells": {}}
    stored = json.loads(output.read_text())
    for key, value in json.loads(json.dumps(about)).items():
        if stored.get(key) != value:
            raise InputError(
                f"output: expected {key} {value} in {output}, found {stored.get(key)}; give another --output, or "
                "remove the file"
            )
    return {**about, "cells": stored["cells"]}


def _measured(
    arguments: argparse.Namespace, task: str, persons: list[dict[str, Any]], methods: list[str],
    options: dict[str, Any], measure: Measure,
) -> list[dict[str, Any]]:  # fmt: skip
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        scans = link_scans(persons, arguments.data_dir, folder / "scans")
        given = {"disinr": arguments.checkpoint} if arguments.checkpoint else {}
        settings = {"dataset_dir": str(folder / "scans"), "seed": arguments.seed, "slices_per_subject": 1}
        rows = measure(task, methods, given, {**settings, "quiet": arguments.quiet, **options}, folder / "out")
    for row in rows:
        stem = max((s for s in scans if row["case"] == s or row["case"].startswith(f"{s}_s")), key=len)
        person, contrast = scans[stem]
        scan = next(name for name in person["scans"] if Path(name).name.startswith(f"{stem}."))
        row |= {"subject": person["person"], "source": person["source"], "contrast": contrast, "scan": scan}
    return rows
