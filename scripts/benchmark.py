"""Compare methods on scans with a reference: the same measurements, operators and metric for all.

    python scripts/benchmark.py quality --task ct --dataset_dir DIR \
        --methods disinr,ngp,strainer,meta,tv,fbp --n_views 60 --output results.json

`disinr` uses the checkpoint shipped for the task unless `--checkpoint` names another. `strainer` and `meta` need one of
their own: give `--checkpoints strainer=PATH,meta=PATH`, or they are pre-trained here on the scans of
`--pretraining_dir`. With neither, DIR is split by subject: half of its subjects are for their pre-training, and all
methods run on the others.

    python scripts/benchmark.py speed --output speed.json
    python scripts/benchmark.py grid --task mri --data_dir SCANS

`grid` runs the test persons of benchmarks/test_persons.json through all noise levels and accelerations (MRI) or photons
and views (CT), or with `--task real` the measured scan. Every finished cell is stored; another call goes on from there.

Every option of `quality` and `grid` that is not listed here goes to the bundle as an override (`--n_views 60`, ...).
"""

from __future__ import annotations

import argparse
import json
import math
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import grid
import mlflow
import speed
from monai.bundle import ConfigWorkflow

from disinr_monai.data import list_cases, split_subjects
from disinr_monai.errors import InputError
from disinr_monai.output.tables import read_metrics, summary_table, write_json
from disinr_monai.runtime.command_line import NAMES, PATHS, literal
from disinr_monai.runtime.overrides import known_keys
from disinr_monai.runtime.versions import versions
from disinr_monai.tracking.mlflow_client import log_methods, sqlite_address

ROOT = Path(__file__).resolve().parents[1]
OVERLAYS = {
    "disinr": [],
    "disinr_paper": ["disinr_paper"],
    "ngp": ["ngp"],
    "siren": ["siren", "ngp"],
    "nerf": ["nerf", "ngp"],
    "strainer": ["strainer"],
    "meta": ["meta"],
    "imjense": ["imjense"],
}
PRETRAINED_HERE = ("strainer", "meta")
MRI_ONLY = ("imjense",)
PRETRAINING_STEPS = 1000  # gradients of the default pre-training, a few minutes on a CPU


def config_files(phase: str, task: str, method: str, backbone: Sequence[str] = ()) -> list[str]:
    """The files of one run, in their order."""
    # A classical method needs no network: the one of ngp has no checkpoint and is never fitted.
    phases = ("inference", "evaluate") if phase == "evaluate" else (phase,)
    backbone = () if method in MRI_ONLY else backbone  # imjense has its own
    parts = (*phases, task, *backbone, *OVERLAYS.get(method, ["ngp"]))
    return [str(ROOT / "configs" / f"{part}.json") for part in parts]


def run(phase: str, task: str, method: str, options: dict[str, Any], out: Path, backbone: Sequence[str] = ()) -> None:
    """Run one bundle workflow with those of the options that it reads."""
    files = config_files(phase, task, method, backbone)
    known = known_keys(files)
    settings = {"bundle_root": str(ROOT), "output_dir": str(out), "run_name": f"{task}-{method}"}
    settings["tracking_uri"] = f"sqlite:///{(out.parent / 'mlruns.db').resolve()}"
    settings |= {key: value for key, value in options.items() if key.split("#")[0] in known}
    if phase == "train":
        settings.setdefault("overwrite", True)  # the folders are the script's own
    settings |= {key: literal(str(text)) for key, text in settings.items() if key in PATHS | NAMES and text is not None}
    kind = "train" if phase == "train" else "infer"
    workflow = ConfigWorkflow(files, workflow_type=kind, logging_file=False, **settings)
    workflow.initialize()
    workflow.run()
    workflow.finalize()


def evaluate(
    task: str, method: str, baselines: Any, options: dict[str, Any], out: Path, backbone: Sequence[str] = ()
) -> list[dict[str, Any]]:
    """Run one `evaluate` workflow and read its rows."""
    if method in ("siren", "nerf"):
        options = {**options, "method": method}
    if method not in OVERLAYS:
        options = {**options, "method": method, "inferer": f"@classical#{method}"}
    run("evaluate", task, method, {**options, "baselines": baselines}, out, backbone)
    return read_metrics(out / "metrics.csv")


def pretrain(
    task: str, method: str, max_epochs: int | None, options: dict[str, Any], out: Path, backbone: Sequence[str] = ()
) -> str:
    """Pre-train one method and return its checkpoint."""
    if max_epochs is None:
        n_cases = len(list_cases(options["dataset_dir"], task, options.get("slices_per_subject", 4)))
        n_inner = json.loads((ROOT / "configs" / f"{OVERLAYS[method][0]}.json").read_text()).get("n_inner", 1)
        max_epochs = math.ceil(PRETRAINING_STEPS / (n_cases * options.get("n_inner", n_inner)))
    print(f"pre-training {method} on {options['dataset_dir']}: {max_epochs} epochs (--max_epochs)", flush=True)
    run("train", task, method, {**options, "max_epochs": max_epochs}, out, backbone)
    return str(out / "model.pt")


def add_checkpoints(arguments: argparse.Namespace, given: dict[str, str], options: dict[str, Any], out: Path) -> None:
    """Pre-train what has no checkpoint yet; may split the scans, and then leaves the test part in ``options``.

    Raises:
        InputError: a subject would be in both parts, or there are not enough subjects for two.
    """
    missing = [m for m in arguments.methods.split(",") if m in PRETRAINED_HERE and m not in given]
    if not missing:
        return
    source = arguments.pretraining_dir
    if source:
        parts = [{c["subject"] for c in list_cases(d, arguments.task, 1)} for d in (source, options["dataset_dir"])]
        if common := sorted(parts[0] & parts[1]):
            raise InputError(f"pretraining_dir: expected other subjects than in dataset_dir, found {common[0]} in both")
    else:
        try:
            parts = split_subjects(options["dataset_dir"], arguments.task, out / "split", seed=arguments.seed)
        except InputError as error:
            raise InputError(
                f"{error}; {missing[0]} needs a checkpoint: --checkpoints {missing[0]}=PATH or --pretraining_dir DIR"
            ) from None
        print(
            f"no checkpoint and no --pretraining_dir for {', '.join(missing)}: {options['dataset_dir']} is split by "
            f"subject, {len(parts['pretraining'])} for pre-training, {len(parts['test'])} for the evaluation of all "
            "methods"
        )
        if "disinr" in arguments.methods.split(",") and not given.get("disinr"):
            print("disinr takes the shipped checkpoint: scans that it was trained on (models/README.md) prove nothing")
        source, options["dataset_dir"] = str(out / "split" / "pretraining"), str(out / "split" / "test")
    for method in missing:
        folder = out / f"{arguments.task}-{method}-pretraining"
        here = {**options, "dataset_dir": source}
        given[method] = pretrain(arguments.task, method, arguments.max_epochs, here, folder)


def parse_checkpoints(text: str) -> dict[str, str]:
    """``strainer=PATH,meta=PATH`` as a dictionary.

    Raises:
        InputError: not of this form, or a method without checkpoint.
    """
    found = {}
    for part in filter(None, text.split(",")):
        method, equals, path = part.partition("=")
        if not equals or method not in ("disinr", "disinr_paper", *PRETRAINED_HERE):
            raise InputError(f"checkpoints: expected METHOD=PATH,..., found {part!r}")
        found[method] = path
    return found


def check_methods(task: str, methods: list[str], options: dict[str, Any]) -> None:
    """Refuse methods and options that the task does not have.

    Raises:
        InputError: an unknown method, or an option that no run of these methods reads.
    """
    classical = json.loads((ROOT / "configs" / f"{task}.json").read_text())["classical"]
    networks = [m for m in OVERLAYS if task == "mri" or m not in MRI_ONLY]
    for method in methods:
        if method not in networks and method not in classical:
            known = ", ".join([*networks, *classical])
            raise InputError(f"methods: {method!r} is unknown for {task}; known: {known}")
    phases = ["evaluate"] + ["train"] * any(m in PRETRAINED_HERE for m in methods)
    known = set().union(*(known_keys(config_files(p, task, m)) for p in phases for m in networks_of(methods)))
    for key in options:
        if key.split("#")[0] not in known:
            raise InputError(f"{key}: no such key in the configs of these methods")


def networks_of(methods: list[str]) -> list[str]:
    """Methods with a run of their own: networks (the first with the classical baselines), or one classical one."""
    return [m for m in methods if m in OVERLAYS] or methods[:1]


def quality(arguments: argparse.Namespace, options: dict[str, Any]) -> None:
    """Evaluate all methods and write their rows.

    Raises:
        InputError: what a user can get wrong.
    """
    methods = arguments.methods.split(",")
    check_methods(arguments.task, methods, options)
    checkpoints = parse_checkpoints(arguments.checkpoints)
    if arguments.checkpoint:
        checkpoints = {"disinr": arguments.checkpoint, "disinr_paper": arguments.checkpoint, **checkpoints}
    setting = ", ".join(f"{k} {v}" for k, v in options.items())
    options = {"dataset_dir": arguments.dataset_dir, "seed": arguments.seed, "quiet": arguments.quiet, **options}
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(arguments.output_dir or temporary)
        add_checkpoints(arguments, checkpoints, options, folder)
        rows = measure(arguments.task, methods, checkpoints, options, folder)
        for row in rows:
            row |= {"task": arguments.task, "setting": setting or "default"}
        track(rows, f"quality-{arguments.task}", options.get("tracking_uri"), folder)
    write_json(arguments.output, {"rows": rows}, arguments.seed)
    print(summary_table(rows))
    print(f"written to {arguments.output}")


def measure(
    task: str, methods: list[str], checkpoints: dict[str, str], options: dict[str, Any], folder: Path
) -> list[dict[str, Any]]:
    """Rows of several methods on the same measurements; classical ones run beside the first network."""
    classical = json.loads((ROOT / "configs" / f"{task}.json").read_text())["classical"]
    rows: list[dict[str, Any]] = []
    for i, method in enumerate(networks_of(methods)):
        given = {**options, "checkpoint": checkpoints[method]} if method in checkpoints else options
        others = {m: classical[m] for m in methods if m in classical and m != method} if i == 0 else {}
        rows += evaluate(task, method, others, given, folder / f"{task}-{method}")
    return rows


def track(rows: list[dict[str, Any]], name: str, uri: str | None, folder: Path) -> None:
    """One MLflow run for the comparison, with one run of each method under it."""
    client = mlflow.MlflowClient(tracking_uri=uri or sqlite_address((folder / "mlruns.db").resolve()))
    experiment = client.get_experiment_by_name("comparisons")
    experiment_id = experiment.experiment_id if experiment else client.create_experiment("comparisons")
    tags = {key: str(value) for key, value in versions().items()}
    tags |= {"phase": "comparison", "modality": str(rows[0]["task"]) if rows and "task" in rows[0] else ""}
    parent = client.create_run(experiment_id, run_name=name, tags=tags).info.run_id
    log_methods(client, experiment_id, parent, rows, tags, time.time())
    client.set_terminated(parent)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    command = commands.add_parser("quality", help="PSNR, SSIM, NRMSE and time of several methods")
    command.add_argument("--task", choices=("mri", "ct", "pet", "volume"), required=True)
    command.add_argument("--dataset_dir", required=True)
    command.add_argument("--checkpoint", help="of disinr; default: the checkpoint shipped for the task")
    command.add_argument("--checkpoints", default="", help="of other methods: strainer=PATH,meta=PATH")
    command.add_argument("--pretraining_dir", help="scans of other subjects to pre-train strainer and meta on")
    command.add_argument("--max_epochs", type=int, help="of that pre-training")
    command.add_argument("--methods", default="disinr,ngp,tv")
    command.add_argument("--output", default="results.json")
    command.add_argument("--output_dir", help="keep images, pictures and pre-trained checkpoints here")
    command.add_argument("--seed", type=int, default=0)
    command.add_argument("--quiet", action="store_true")
    speed.add_command(commands)
    grid.add_command(commands)
    arguments, rest = parser.parse_known_args()
    if arguments.command == "speed":
        return speed.speed(parser.parse_args())
    try:
        if arguments.command == "grid":
            return measure_grid(arguments, override_options(rest))
        quality(arguments, override_options(rest))
    except InputError as error:
        raise SystemExit(f"error: {error}") from None


def measure_grid(arguments: argparse.Namespace, options: dict[str, Any]) -> None:
    """Check the methods of a grid and measure it.

    Raises:
        InputError: what a user can get wrong.
    """
    spec = grid.GRIDS[arguments.task]
    check_methods(spec.task, (arguments.methods or spec.methods).split(","), options)
    grid.grid(arguments, options, measure)


def override_options(rest: list[str]) -> dict[str, Any]:
    """Overrides of the bundle from ``--key value`` pairs."""
    if len(rest) % 2 or any(not key.startswith("--") for key in rest[::2]):
        raise SystemExit(f"error: options for the bundle come in pairs `--key value`, found {' '.join(rest)}")
    return {key[2:]: _value(value) for key, value in zip(rest[::2], rest[1::2], strict=True)}


def _value(text: str) -> Any:
    try:
        return json.loads(text)
    except json.JSONDecodeError:
        return text


if __name__ == "__main__":
    main()
