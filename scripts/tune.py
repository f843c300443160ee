"""Choose a method's settings on pre-training subjects, never on test subjects.

    python scripts/tune.py --task ct --dataset_dir PRETRAINING --methods tv,sirt --n_views 60 --output tuned.json

Every option that is not listed here goes to the bundle as an override. What is searched stands in SPACES; each trial is
one `run evaluate` of the method alone, judged by PSNR, mean over subjects. The JSON holds every trial: the curve from
which the value in the configs was read.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from pathlib import Path
from typing import Any

import optuna
from benchmark import OVERLAYS, ROOT, evaluate, override_options

from disinr_monai.output.tables import summarise, write_json

# Method -> key of the configs -> (kind, low, high). "log" and "int_log" are searched by their logarithm.
_FITTED = {"n_iterations": ("int_log", 50, 800), "lr": ("log", 3e-4, 1e-2), "tv_weight": ("log", 3e-3, 3.0)}
SPACES: dict[str, dict[str, dict[str, tuple[str, float, float]]]] = {
    "ct": {
        "tv": {"classical#tv#tv_weight": ("log", 0.1, 10.0)},
        "sirt": {"classical#sirt#n_iterations": ("int_log", 10, 400)},
    },
    "pet": {
        "mlem": {"classical#mlem#n_iterations": ("int_log", 5, 100)},
        "osem": {"classical#osem#n_iterations": ("int_log", 1, 10)},
        "tv": {"classical#tv#tv_weight": ("log", 1e-3, 1.0)},
    },
    "mri": {
        "tv": {"classical#tv#tv_weight": ("log", 1e-4, 1e-2)},
        "sense": {"classical#sense#n_iterations": ("int_log", 3, 100), "classical#sense#l2_weight": ("log", 1e-4, 1.0)},
        "l1_wavelet": {"classical#l1_wavelet#l1_weight": ("log", 1e-4, 1e-1)},
    },
}


def suggest(trial: optuna.Trial, space: dict[str, tuple]) -> dict[str, Any]:
    """One value for each key."""
    values: dict[str, Any] = {}
    for key, (kind, *bounds) in space.items():
        if kind == "choice":
            values[key] = trial.suggest_categorical(key, bounds)
        elif kind == "int_log":
            values[key] = trial.suggest_int(key, *bounds, log=True)
        else:
            values[key] = trial.suggest_float(key, *bounds, log=True)
    return values


def tune(task: str, method: str, options: dict[str, Any], n_trials: int, seed: int, folder: Path) -> dict[str, Any]:
    """The best values of one method and all trials."""
    space = SPACES[task].get(method) or _FITTED

    def objective(trial: optuna.Trial) -> float:
        given = {**options, **suggest(trial, space)}
        rows = evaluate(task, method, {}, given, folder / method / str(trial.number))
        return summarise(rows)[method]["psnr"]

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    study = optuna.create_study(direction="maximize", sampler=optuna.samplers.TPESampler(seed=seed, n_startup_trials=6))
    study.optimize(objective, n_trials=n_trials)
    trials = [{"psnr": round(t.value, 3), **t.params} for t in study.trials]
    return {
        "task": task,
        "method": method,
        "best": study.best_params,
        "psnr": round(study.best_value, 3),
        "trials": sorted(trials, key=lambda t: -t["psnr"]),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--task", choices=tuple(SPACES), required=True)
    parser.add_argument("--dataset_dir", required=True, help="scans of pre-training subjects")
    parser.add_argument("--methods", default="tv")
    parser.add_argument("--n_trials", type=int, default=12)
    parser.add_argument("--every", type=int, default=1, help="take every n-th image only")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--output", default="tuned.json")
    arguments, rest = parser.parse_known_args()
    methods = arguments.methods.split(",")
    unknown = [m for m in methods if m not in SPACES[arguments.task] and m not in OVERLAYS]
    if unknown:
        raise SystemExit(
            f"error: methods: nothing to tune for {unknown[0]!r}; known: {[*SPACES[arguments.task], *OVERLAYS]}"
        )
    setting = override_options(rest)
    options = {"dataset_dir": arguments.dataset_dir, "seed": arguments.seed, "quiet": True, **setting}
    if arguments.every > 1:
        cases = json.loads((ROOT / "configs" / f"{arguments.task}.json").read_text())["cases"]
        options["cases"] = f"{cases}[::{arguments.every}]"
    found = []
    with tempfile.TemporaryDirectory() as folder:
        for method in methods:
            result = tune(arguments.task, method, options, arguments.n_trials, arguments.seed, Path(folder))
            result["setting"] = setting
            found.append(result)
            print(f"{method}: {result['psnr']:.2f} dB at {result['best']}")
    write_json(arguments.output, {"tuned": found}, arguments.seed)
    print(f"written to {arguments.output}")


if __name__ == "__main__":
    main()
