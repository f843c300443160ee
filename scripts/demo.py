"""The main job in a few minutes, on phantoms made on the fly: pre-train, then reconstruct scans never seen.

Everything goes through the bundle's own commands; this script only makes the phantoms, runs the commands, and prints
what they wrote.
"""

from __future__ import annotations

import argparse
import shutil
import subprocess
import sys
import time
from pathlib import Path

from disinr_monai.data.simulate.phantoms import write_phantoms
from disinr_monai.output.tables import read_metrics, summary_table, write_json

ROOT = Path(__file__).resolve().parents[1]
SIZE = 128
SETTINGS = ["--image_size", str(SIZE), "--acs", "12", "--acceleration", "6"]
N_ITERATIONS = "60"
MARKER = ".disinr_demo"


def bundle(run_id: str, configs: list[str], *options: str) -> None:
    """Run one bundle command, shown as a user would type it."""
    files = ",".join(f"'configs/{name}.json'" for name in configs)
    command = [sys.executable, "-m", "monai.bundle", "run", run_id, "--config_file", f"[{files}]", *options]
    print(
        "\n$ python " + " ".join(command[1:4]) + f' {run_id} --config_file "[{files}]" ' + " ".join(options), flush=True
    )
    subprocess.run(command, cwd=ROOT, check=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--output_dir", default="demo", help="folder for everything the demo makes")
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    out = (ROOT / arguments.output_dir).resolve()
    if out.exists() and not (out / MARKER).is_file():
        sys.exit(f"error: output_dir: {out} exists and was not made by this demo; give another folder")
    shutil.rmtree(out, ignore_errors=True)
    out.mkdir(parents=True)
    (out / MARKER).touch()
    started = time.perf_counter()

    write_phantoms(out / "pretraining", "mri", n_subjects=16, size=SIZE, seed=arguments.seed)
    write_phantoms(out / "new", "mri", n_subjects=3, size=SIZE, seed=arguments.seed + 1000)

    common = [*SETTINGS, "--seed", str(arguments.seed)]
    bundle(
        "training", ["train", "mri"], "--dataset_dir", f"{out}/pretraining", "--output_dir", f"{out}/training",
        "--max_epochs", "30", *common,
    )  # fmt: skip
    checkpoint = str(out / "training" / "model.pt")
    reconstruct = ["--dataset_dir", f"{out}/new", "--n_iterations", N_ITERATIONS, *common]
    bundle(
        "evaluate", ["inference", "evaluate", "mri"], "--checkpoint", checkpoint, "--output_dir", f"{out}/disinr",
        *reconstruct,
    )  # fmt: skip
    bundle("inference", ["inference", "mri", "ngp"], "--output_dir", f"{out}/ngp", *reconstruct)

    rows = []
    for folder in ("disinr", "ngp"):
        for row in read_metrics(out / folder / "metrics.csv"):
            rows.append({"task": "mri", "setting": f"phantoms {SIZE}x{SIZE}, acceleration 6, 30 dB", **row})
    write_json(out / "results.json", {"rows": rows}, arguments.seed)

    print(f"\nThree unseen phantoms, {N_ITERATIONS} iterations, {time.perf_counter() - started:.0f} s in all\n")
    print(summary_table(rows))
    print(f"\nReport (open it in a browser): {out / 'disinr' / 'report.html'}")
    print("Pictures:")
    for picture in sorted(out.glob("*/*/*.png")):
        print(f"  {picture}")
    print("NIfTI (any viewer, e.g. niivue.com or ITK-SNAP):")
    for image in sorted((out / "disinr").glob("*/*.nii.gz")):
        print(f"  {image}")
    print(f"Numbers: {out / 'results.json'}")
    database = out / "disinr" / "mlruns.db"
    print(f"MLflow: {database}\n  open it with: .venv/bin/mlflow server --backend-store-uri sqlite:///{database}")


if __name__ == "__main__":
    main()
