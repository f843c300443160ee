"""Fit the rules by which classical methods choose their weight (disinr_monai/methods/automatic.py).

    python scripts/fit_weights.py --task mri --dataset_dir PRETRAINING --output curves.json

Every scan is simulated in each cell of GRIDS, and each method is run over weights a factor of 2 apart until its PSNR
has fallen on both sides of the best. The rule of a method and kind of gap is the one that loses least against the best
weight of each scan: sum of squared losses in dB, curves interpolated in the logarithm of the weight. The JSON holds all
curves and is continued if it exists; `--check` only measures what the present rules lose in it. Pre-training subjects
only.
"""

from __future__ import annotations

import argparse
import itertools
import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from scipy.optimize import minimize

from disinr_monai.data import AcquireCT, AcquireMRI
from disinr_monai.data.cases import list_cases
from disinr_monai.methods import SIRT, ConjugateGradient, L1Wavelet, TotalVariation
from disinr_monai.methods.automatic import HAVE_UNITS, RULES, Rule, features
from disinr_monai.output.metrics import image_metrics, to_display
from disinr_monai.output.tables import write_json

_ENOUGH = 8  # scans that tell all numbers of a rule; with fewer, floor and gap_power stay
_LINES = [("uniform", 3), ("uniform", 4), ("uniform", 6), ("uniform", 8), ("random", 6)]
GRIDS: dict[str, list[dict[str, Any]]] = {
    "mri": [
        {"pattern": pattern, "acceleration": factor, "noise_std": noise}
        for (pattern, factor), noise in itertools.product(
            [*_LINES, ("poisson", 6), ("poisson", 20), ("radial", 6), ("radial", 10)], (0.01, 0.03, 0.06, 0.1, 0.2)
        )
    ],
    "ct": [
        {"n_views": views, "photons": photons}
        for views, photons in itertools.product((30, 60, 90), (5e3, 1e4, 1e5, 1e6))
    ],
}
# Method -> a weight to begin with, of the features of the scan, and the method with a weight.
METHODS: dict[str, dict[str, tuple[Callable[[float, float], float], Callable[[float], Any]]]] = {
    "mri": {
        "tv": (lambda noise, gap: 0.08 * noise, lambda w: TotalVariation(tv_weight=w)),
        "sense": (lambda noise, gap: noise, lambda w: ConjugateGradient(n_iterations=88, l2_weight=w)),
        "l1_wavelet": (lambda noise, gap: 0.05 * noise, lambda w: L1Wavelet(l1_weight=w)),
    },
    "ct": {
        "tv": (
            lambda noise, gap: 5 * noise,
            lambda w: TotalVariation(tv_weight=w, absolute=True, non_negative=True, n_iterations=250),
        ),
        "sirt": (lambda noise, gap: 100 / noise, lambda n: SIRT(n_iterations=max(round(n), 1))),
    },
}


def curve(begin: float, psnr: Callable[[float], float], low: float = 1e-7, high: float = 1e4) -> list[list[float]]:
    """PSNR over weights ``begin * 2**k``, from below to above the best one."""
    found = {k: psnr(begin * 2.0**k) for k in (0, 1)}
    while True:
        best = max(found, key=found.__getitem__)
        follow = [k for k in (best - 1, best + 1) if k not in found and low < begin * 2.0**k < high]
        if not follow:
            return [[begin * 2.0**k, found[k]] for k in sorted(found)]
        found[follow[0]] = psnr(begin * 2.0 ** follow[0])


def measure(task: str, case: dict[str, Any], methods: list[str]) -> dict[str, Any]:
    """Features and curves of an acquired case."""
    scan, reference = case["scan"], to_display(case["reference"], task)
    used = scan.tempered(0.5) if task == "ct" else scan
    result: dict[str, Any] = {"gaps": scan.operator.partition.gaps}
    for name in methods:
        noise, gap, size = features(scan.tempered(0) if name == "sirt" else used)
        begin, make = METHODS[task][name]

        def psnr(weight: float, make: Callable[[float], Any] = make) -> float:
            image = make(weight)(None, None, case=case)[0]
            return image_metrics(to_display(image, task, case["image_scale"]), reference)["psnr"]

        size = size if name in HAVE_UNITS else 1.0
        points = curve(begin(noise, gap) * size, psnr)
        result[name] = {"noise": noise, "gap": gap, "points": [[w / size, p] for w, p in points]}
    return result


def lost(points: list[list[float]], weight: float) -> float:
    """Decibels below the best of a curve: a parabola through its three best points, steepest slope beyond."""
    x, y = np.log([w for w, _ in points]), np.array([p for _, p in points])
    at, i = np.log(weight), int(np.argmax(y))
    if not 0 < i < len(y) - 1:
        return float(y.max() - np.interp(at, x, y)) + max(x[0] - at, at - x[-1], 0.0)
    parabola = np.polyfit(x[i - 1 : i + 2] - x[i], y[i - 1 : i + 2], 2)
    top = np.polyval(parabola, -parabola[1] / (2 * parabola[0]))
    if x[i - 1] <= at <= x[i + 1]:
        return float(top - np.polyval(parabola, at - x[i]))
    # Beyond its points a curve goes on as steeply as at its ends.
    slope = np.diff(y) / np.diff(x)
    beyond = max(x[0] - at, 0) * max(slope[0], 0.1) + max(at - x[-1], 0) * max(-slope[-1], 0.1)
    return float(top - np.interp(at, x, y) + beyond)


def fit(curves: list[dict[str, Any]]) -> Rule:
    """The rule with the smallest sum of squared losses; of a few scans only with factor and power of the noise."""
    is_few = len(curves) < _ENOUGH
    noise = np.array([c["noise"] for c in curves])
    best = [max(c["points"], key=lambda point: point[1])[0] for c in curves]
    columns = np.stack((np.ones(len(noise)), np.log(noise), np.log([c["gap"] for c in curves])), 1)
    if is_few:
        columns[:, 2] = 0
    start = np.linalg.lstsq(columns, np.log(best), rcond=None)[0]

    def rule(values: np.ndarray) -> Rule:
        # Never 0: a scan without noise is still undersampled.
        floor = noise.min() / 4 if is_few else max(float(np.exp(values[3])), noise.min() / 4)
        # Bounded: noise beyond that of the grid is met.
        power = float(np.clip(values[1], -2, 2))
        return Rule(float(np.exp(values[0])), power, float(floor), 0.0 if is_few else float(values[2]))

    def total(values: np.ndarray) -> float:
        made = rule(values)
        return sum(lost(c["points"], made(c["noise"], c["gap"])) ** 2 for c in curves)

    tries = [
        minimize(total, [*start, np.log(floor * noise.min())], method="Nelder-Mead", options={"maxiter": 4000})
        for floor in (0.01, 0.5, 2.0)
    ]
    return rule(min(tries, key=lambda found: found.fun).x)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--task", choices=tuple(GRIDS), required=True)
    parser.add_argument("--dataset_dir", required=True, help="scans of pre-training subjects")
    parser.add_argument("--methods", help="default: all")
    parser.add_argument("--every", type=int, default=1, help="of the cells, another n-th of them for each scan")
    parser.add_argument("--check", action="store_true", help="keep the rules and measure what they lose")
    parser.add_argument("--minutes", type=float, default=1e9, help="stop after so many; the JSON is continued later")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--output", required=True)
    arguments = parser.parse_args()
    task, output, started = arguments.task, Path(arguments.output), time.monotonic()
    methods = arguments.methods.split(",") if arguments.methods else list(METHODS[task])
    known = json.loads(output.read_text())["curves"] if output.exists() else []
    acquire = {"mri": AcquireMRI, "ct": AcquireCT}[task]
    # In random order, so that a run that is stopped has seen all kinds of cells.
    for index in np.random.default_rng(arguments.seed).permutation(len(GRIDS[task])):
        cell = GRIDS[task][index]
        for number, listed in enumerate(list_cases(arguments.dataset_dir, task, 1)):
            entry = {"case": listed["name"], **cell}
            done = next((c for c in known if c["case"] == entry["case"] and cell.items() <= c.items()), None)
            missing = [name for name in methods if done is None or name not in done]
            if (index + number) % arguments.every or not missing:
                continue
            if time.monotonic() - started > 60 * arguments.minutes:
                break
            with torch.no_grad():
                found = measure(task, acquire(seed=arguments.seed, **cell)(listed), missing)
            if done is None:
                known.append(done := entry)
            done |= found
            write_json(output, {"curves": known}, arguments.seed)
    for name in methods:
        for gaps in sorted({c["gaps"] for c in known if name in c}):
            chosen = [c for c in known if c["gaps"] == gaps and name in c]
            curves = [c[name] for c in chosen]
            rule = RULES[name][gaps] if arguments.check else fit(curves)
            losses = [lost(c["points"], rule(c["noise"], c["gap"])) for c in curves]
            print(f"{name}, {gaps}: {rule}")
            print(f"  lost over {len(curves)} scans: mean {np.mean(losses):.2f} dB, worst {np.max(losses):.2f} dB")
            for cell in GRIDS[task]:
                inside = [loss for loss, c in zip(losses, chosen, strict=True) if cell.items() <= c.items()]
                if inside:
                    print(f"    {cell}: {np.mean(inside):.2f} dB, worst {np.max(inside):.2f} dB, {len(inside)} scans")


if __name__ == "__main__":
    main()
