"""Compare methods on scans with a reference: the same measurements, operators and metric for all.

    python scripts/benchmark.py quality --task ct --dataset_dir DIR --checkpoint model.pt \
        --methods disinr,ngp,tv,fbp --n_views 60 --output results.json

    python scripts/benchmark.py speed --output speed.json

Every option of `quality` that is not listed here goes to the bundle as an override (`--n_views 60`, ...).
"""

from __future__ import annotations

import argparse
import json
import tempfile
from pathlib import Path
from typing import Any

import speed
from monai.bundle import ConfigWorkflow

from disinr_monai.handlers.save_cases import summary_table
from disinr_monai.results import read_metrics, write_results

ROOT = Path(__file__).resolve().parents[1]
OVERLAYS = {
    "disinr": [],
    "disinr_paper": ["disinr_paper"],
    "ngp": ["ngp"],
    "siren": ["siren", "ngp"],
    "nerf": ["nerf", "ngp"],
}


def evaluate(task: str, overlays: list[str], name: str, peers: Any, options: dict[str, Any], out: Path) -> list[dict]:
    """Run one `evaluate` workflow and read its rows."""
    files = [ROOT / "configs" / f"{part}.json" for part in ("evaluate", task, *overlays)]
    run_name = f"{task}-{name}"
    settings = {"bundle_root": str(ROOT), "output_dir": str(out), "peers": peers, "run_name": run_name, **options}
    settings["tracking_uri"] = settings.get("tracking_uri") or f"sqlite:///{(out.parent / 'mlruns.db').resolve()}"
    if name in ("siren", "nerf"):
        settings |= {"method": name, "n_frozen": 0}
    workflow = ConfigWorkflow([str(f) for f in files], workflow_type="infer", logging_file=False, **settings)
    workflow.initialize()
    workflow.run()
    workflow.finalize()
    return read_metrics(out / "metrics.csv")


def quality(arguments: argparse.Namespace, options: dict[str, Any]) -> None:
    methods = arguments.methods.split(",")
    classical = json.loads((ROOT / "configs" / f"{arguments.task}.json").read_text())["classical"]
    unknown = [m for m in methods if m not in OVERLAYS and m not in classical]
    if unknown:
        raise SystemExit(
            f"error: methods: {unknown[0]!r} is unknown for {arguments.task}; known: {[*OVERLAYS, *classical]}"
        )
    peers = {m: classical[m] for m in methods if m in classical}
    fitted = [m for m in methods if m in OVERLAYS] or ["ngp"]
    options = {"dataset_dir": arguments.dataset_dir, "seed": arguments.seed, "quiet": arguments.quiet, **options}
    setting = ", ".join(f"{k} {v}" for k, v in options.items() if k not in ("dataset_dir", "seed", "quiet"))
    rows: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory() as folder:
        for i, method in enumerate(fitted):
            out = Path(arguments.output_dir or folder) / f"{arguments.task}-{method}"
            given = dict(options)
            if method.startswith("disinr") and arguments.checkpoint:
                given["checkpoint"] = arguments.checkpoint
            rows += evaluate(arguments.task, OVERLAYS[method], method, peers if i == 0 else {}, given, out)
    rows = [row for row in rows if row["method"] in methods]
    for row in rows:
        row |= {"task": arguments.task, "setting": setting or "default"}
    write_results(arguments.output, rows, arguments.seed)
    print(summary_table(rows))
    print(f"written to {arguments.output}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    command = commands.add_parser("quality", help="PSNR, SSIM, NRMSE and time of several methods")
    command.add_argument("--task", choices=("mri", "ct"), required=True)
    command.add_argument("--dataset_dir", required=True)
    command.add_argument("--checkpoint", help="default: the checkpoint shipped for the task")
    command.add_argument("--methods", default="disinr,ngp,tv")
    command.add_argument("--output", default="results.json")
    command.add_argument("--output_dir", help="keep images and pictures here")
    command.add_argument("--seed", type=int, default=0)
    command.add_argument("--quiet", action="store_true")
    speed.add_command(commands)
    arguments, rest = parser.parse_known_args()
    if arguments.command == "speed":
        return speed.speed(parser.parse_args())
    if len(rest) % 2 or any(not key.startswith("--") for key in rest[::2]):
        raise SystemExit(f"error: options for the bundle come in pairs `--key value`, found {' '.join(rest)}")
    options = {key[2:]: _value(value) for key, value in zip(rest[::2], rest[1::2], strict=True)}
    quality(arguments, options)


def _value(text: str) -> Any:
    try:
        return json.loads(text)
    except json.JSONDecodeError:
        return text


if __name__ == "__main__":
    main()
