"""Whole reconstructions: how long until a quality is reached, and what the other methods take on the same scan."""

from __future__ import annotations

import math
from typing import Any

import torch

from benchmarks.cases import ROOT, first_case, row, settings
from benchmarks.steps import Step, clock
from disinr_monai import bundle
from disinr_monai.output.metrics import image_metrics, to_display


def to_quality(task: str, options: dict, dataset_dir: str | None, ratios: dict[str, float]) -> list[dict[str, Any]]:
    """Time until the PSNR that NGP has at the end, and the default and the classical methods on the same scan."""
    n = 256 if 256 in options["sizes"] else options["sizes"][-1]
    parser = settings(task, n)
    case = first_case(parser, dataset_dir, n)
    loss, network = parser.get_parsed_content("loss"), parser.get_parsed_content("network_def")
    bundle.load_pair(None, network, task, str(ROOT))
    setting = f"whole image, {n}², {'AF 6' if task == 'mri' else '60 views'}"
    rows = []

    reference = to_display(case["reference"], task)
    lr = float(parser.get_parsed_content("lr"))

    def score(image: torch.Tensor) -> dict[str, float]:
        return image_metrics(to_display(image, task, case["image_scale"]), reference)

    def fit(method: str, start: Any, until: float = math.inf) -> list[tuple[float, float]]:
        """Seconds and PSNR after every fifth iteration, until a PSNR is reached."""
        step, seconds, curve, metrics = Step(method, case, loss, start, lr=lr), 0.0, [], {}
        for iteration in range(1, options["iterations"] + 1):
            begin = clock()
            image = step()
            seconds += clock() - begin
            if iteration % 5 == 0:
                metrics = score(image)
                curve.append((seconds, metrics["psnr"]))
                if metrics["psnr"] >= until:
                    break
        name = "disinr_paper" if method == "disinr" else method
        rows.append(row(task, setting, name, seconds, iterations=iteration, curve=curve, **metrics))
        return curve

    # The last iterations add hundredths of a decibel: NGP's own time counts from where it is within 0.05 dB of its end.
    curve = fit("ngp", None)
    wanted = curve[-1][1] - 0.05
    ngp_seconds = next(seconds for seconds, psnr in curve if psnr >= wanted)
    reached = [seconds for seconds, psnr in fit("disinr", network, wanted) if psnr >= wanted]
    ratios[f"ngp / disinr_paper, time to NGP's PSNR, {task}"] = ngp_seconds / reached[0] if reached else 0.0
    methods = {"disinr": parser.get_parsed_content("inferer"), **parser.get_parsed_content("classical")}
    for method, inferer in methods.items():
        if method == "disinr":  # beyond start-up: system matrices of parts of the views, compiled code
            inferer(case["points"][None], network, case=case)
        begin = clock()
        image = inferer(case["points"][None], network, case=case)
        seconds = clock() - begin
        rows.append(row(task, setting, method, seconds, **score(image[0])))
        if method == "disinr":
            ratios[f"disinr, seconds a slice, {task}"] = seconds
    # NGP's curve has no check of the result, so this one has none either: the image after each pass, without the guard.
    inferer, prior = methods["disinr"], network.shared["prior"]
    inferer.guard, n_passes = False, prior.n_passes
    for prior.n_passes in range(1, n_passes + 1):
        begin = clock()
        image = inferer(case["points"][None], network, case=case)
        seconds = clock() - begin
        passes = f"disinr, {prior.n_passes} of {n_passes} passes, no guard"
        rows.append(row(task, setting, passes, seconds, **score(image[0])))
    reached = [r["seconds"] for r in rows[-n_passes:] if r["psnr"] >= wanted]
    ratios[f"ngp / disinr, time to NGP's PSNR, {task}"] = ngp_seconds / reached[0] if reached else 0.0
    for r in rows:
        print(f"{task} {r['method']}: {r['psnr']:.2f} dB after {r['seconds']:.2f} s", flush=True)
    return rows
