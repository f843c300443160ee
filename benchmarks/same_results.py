"""Proof that a refactor changes no result: the bundle's commands give the same arrays in two checkouts, bit for bit.

    python benchmarks/same_results.py --checkout OLD --output before.npz
    python benchmarks/same_results.py --output after.npz
    python benchmarks/same_results.py --compare before.npz after.npz

`same_results.txt` lists the commands: case, configs, scans, options. Arrays are images, their affines, metrics and
pre-trained weights; `before.json` has the seconds. One thread: sums are always taken in the same order. Caches are new.
"""

from __future__ import annotations

import argparse
import csv
import json
import os
import subprocess
import sys
import tempfile
import time
from fnmatch import fnmatch
from pathlib import Path

import nibabel as nib
import numpy as np
import torch

ROOT = Path(__file__).resolve().parents[1]
DRAW = """
try:
    from disinr_monai.data.simulate.phantoms import write_phantoms
except ImportError:  # where it was before
    from disinr_monai.data.phantoms import write_phantoms
write_phantoms("phantoms/old", "mri", 4, size=64, seed=0)
write_phantoms("phantoms/new", "mri", 1, size=64, seed=1000)
"""


def arrays_in(out: Path) -> dict[str, np.ndarray]:
    """Images, affines and weights that one command wrote."""
    found = {path.name: np.load(path) for path in out.rglob("*.npy")}
    for path in out.rglob("*.nii.gz"):
        image = nib.load(path)
        found |= {path.name: np.asarray(image.dataobj), f"{path.name} affine": image.affine}
    for path in out.glob("model.pt"):
        weights = torch.load(path, map_location="cpu", weights_only=True)["model"]
        found |= {f"weights {key}": value.numpy() for key, value in weights.items()}
    return found


def run_cases(given: argparse.Namespace, work: Path) -> bool:
    """Run the cases in ``work``, write arrays and seconds; return whether a command failed."""
    checkout, data = given.checkout.resolve(), given.data_dir.resolve()
    arrays, seconds, seconds_of_scans, failed = {}, {}, {}, []
    env = {**os.environ, "PYTHONPATH": str(checkout), "DISINR_CACHE": str(work / "cache"), "CUDA_VISIBLE_DEVICES": ""}
    env |= {f"{name}_NUM_THREADS": str(given.threads) for name in ("OMP", "MKL", "OPENBLAS")}
    subprocess.run([sys.executable, "-c", DRAW], cwd=work, env=env, check=True)
    peers = "--baselines" if '"baselines"' in (checkout / "configs/inference.json").read_text() else "--peers"
    for line in Path(__file__).with_suffix(".txt").read_text().replace("--peers", peers).splitlines():
        case, configs, patterns, options = (part.strip() for part in line.split("|"))
        if not fnmatch(case, given.only):
            continue
        phase = configs.split()[0]
        run_id, files = {"train": "training"}.get(phase, phase), [f"configs/{name}.json" for name in configs.split()]
        out, pair = work / f"{case}.{phase}", work / f"{case}.train" / "model.pt"
        (dataset := work / "data" / out.name).mkdir(parents=True)
        for pattern in patterns.split():
            for scan in (work if pattern.startswith("phantoms") else data).glob(pattern):
                (dataset / scan.name).symlink_to(scan)
        if phase == "inference":
            options = f"--n_iterations 15 --save_numpy true {options}"  # a later option wins
            options += " --save_complex true" * ("mri" in configs) + f" --checkpoint {pair}" * pair.is_file()
        command = [sys.executable, "-m", "monai.bundle", "run", run_id, "--config_file", str(files), *options.split()]
        command += ["--dataset_dir", str(dataset), "--output_dir", str(out)]
        started = time.perf_counter()
        done = subprocess.run(command, cwd=checkout, env=env, capture_output=True, text=True)
        seconds[out.name] = round(time.perf_counter() - started, 2)
        print(f"{out.name}: {seconds[out.name]:.1f} s", flush=True)
        if done.returncode:
            failed.append(out.name)
            print(" ".join(command), *(done.stdout + done.stderr).splitlines()[-8:], sep="\n", flush=True)
        arrays |= {f"{out.name}/{name}": array for name, array in arrays_in(out).items()}
        table = out / "metrics.csv"
        for row in csv.DictReader(table.read_text().splitlines() if table.is_file() else ()):
            name = f"{out.name}/{row['case']} by {row['method']}"
            arrays[name] = np.array([float(row[key] or "nan") for key in ("psnr", "ssim", "nrmse", "iterations")])
            seconds_of_scans[name] = float(row["seconds"])
    np.savez(given.output, **arrays)
    report = {"threads": given.threads, "commands": seconds, "scans": seconds_of_scans}
    given.output.with_suffix(".json").write_text(json.dumps(report, indent=1))
    print(f"{len(arrays)} arrays, {len(seconds)} commands, {sum(seconds.values()):.0f} s, failed: {failed or 'none'}")
    return bool(failed)


def compare(before: Path, after: Path, only: str) -> bool:
    """Print of every array how it differs; return whether one does."""
    n_different = 0
    with np.load(before) as olds, np.load(after) as news:
        for name in sorted(name for name in {*olds, *news} if fnmatch(name.split(".")[0], only)):
            said = "equal"
            if name not in olds or name not in news:
                said = f"only in {before if name in olds else after}"
            elif (old := olds[name]).shape != (new := news[name]).shape or old.dtype != new.dtype:
                said = f"{old.dtype} {old.shape} before, {new.dtype} {new.shape} after"
            elif old.tobytes() != new.tobytes():
                largest = np.nanmax(np.abs(new - old))
                said = f"differs by up to {largest:.3g}, {largest / np.nanmax(np.abs(old)):.3g} of the largest value"
            n_different += said != "equal"
            print(f"{name}: {said}")
    print(f"{n_different} arrays differ")
    return bool(n_different)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--checkout", type=Path, default=ROOT, help="whose commands are run")
    parser.add_argument("--data_dir", type=Path, default=os.environ.get("DISINR_DATA", ROOT.parent / "shared/data"))
    parser.add_argument("--output", type=Path, default="same_results.npz")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--only", default="*", help="cases whose name fits this pattern, e.g. 'mri_*'")
    parser.add_argument("--compare", type=Path, nargs=2, metavar=("BEFORE", "AFTER"))
    given = parser.parse_args()
    if given.compare:
        sys.exit(compare(*given.compare, given.only))
    with tempfile.TemporaryDirectory() as work:
        sys.exit(run_cases(given, Path(work)))


if __name__ == "__main__":
    main()
