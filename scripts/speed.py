"""The speed suite of `scripts/benchmark.py speed`: cost against size, and the ratios that it is judged by."""

from __future__ import annotations

import argparse
import math
import sys
import tempfile
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from benchmarks.cases import first_case, row, settings  # noqa: E402
from benchmarks.floor import floor, measure_rates  # noqa: E402
from benchmarks.pretraining import adapt, in_own_process, pretrain  # noqa: E402
from benchmarks.slices import together  # noqa: E402
from benchmarks.steps import Step, clock, interleaved  # noqa: E402
from benchmarks.whole_images import to_quality  # noqa: E402
from disinr_monai.networks import tcnn_backend  # noqa: E402
from disinr_monai.output.tables import write_json  # noqa: E402
from disinr_monai.runtime.memory import keep_freed_memory  # noqa: E402

# What is to be reached: the name of the ratio, whether more or less is better, the bar.
BARS = {
    "plain / disinr, iteration": (">=", 8.0),
    "disinr / ngp, iteration": ("<=", 0.75),
    "ngp / disinr_paper, time to NGP's PSNR, mri": (">=", 8.0),
    "ngp / disinr_paper, time to NGP's PSNR, ct": (">=", 8.0),
    "ngp / disinr, time to NGP's PSNR, mri": (">=", 8.0),
    "ngp / disinr, time to NGP's PSNR, ct": (">=", 8.0),
    "one by one / together, 8 slices": (">=", 1.5),
    "disinr, seconds a slice, mri": ("<=", 5.0),
    "disinr, seconds a slice, ct": ("<=", 10.0),
    "disinr / floor, iteration": ("<=", 2.5),
    "growth with pixels (exponent)": ("<=", 1.1),
    "growth with slices (exponent)": ("<=", 1.1),
    "growth with subjects (exponent)": ("<=", 1.1),
}
FULL = {"sizes": (128, 256, 512), "slices": (1, 4, 16), "subjects": (10, 50, 200), "rounds": 5, "iterations": 200}
QUICK = {"sizes": (32, 48), "slices": (1, 2), "subjects": (2, 3), "rounds": 2, "iterations": 10}


def sizes(options: dict[str, Any], dataset_dir: str | None, ratios: dict[str, float]) -> list[dict[str, Any]]:
    """Iterations and their stages, plain, from scratch and frozen, and the classical methods, for each matrix size."""
    rows, reference = [], 256 if 256 in options["sizes"] else options["sizes"][-1]
    rates = measure_rates()
    for n in options["sizes"]:
        parser = settings("mri", n, "simulated")
        case, loss = first_case(parser, dataset_dir, n), parser.get_parsed_content("loss")
        steps = {m: Step(m, case, loss) for m in ("disinr", "ngp", "plain")}
        setting = f"iteration, {n}²"
        parts = {(m, "all"): step for m, step in steps.items()}
        parts |= {(m, name): part for m, step in steps.items() for name, part in step.parts().items()}
        rounds = options["rounds"] if n <= 256 else 2
        times = interleaved(parts, rounds)
        for method in steps:
            total = times[method, "all"]
            stages = {name: times[method, name] for m, name in times if m == method and name != "all"}
            stages["other"] = max(total - sum(stages.values()), 0.0)
            peak = in_own_process(adapt, case, method) if n <= 256 else {}
            rows.append(row("mri", setting, method, total, iterations=1, size=n, stages=stages, **peak))
        least = {m: floor(steps[m], m, rates) for m in ("disinr", "ngp")}
        rows += [row("mri", setting, f"{m} floor", least[m].pop("seconds"), size=n, **least[m]) for m in least]
        if n == reference:
            ratios["plain / disinr, iteration"] = times["plain", "all"] / times["disinr", "all"]
            ratios["disinr / ngp, iteration"] = times["disinr", "all"] / times["ngp", "all"]
            ratios["disinr / floor, iteration"] = times["disinr", "all"] / rows[-2]["seconds"]
        for method, inferer in parser.get_parsed_content("classical").items():
            start = clock()
            inferer(None, None, case=case)
            rows.append(row("mri", f"whole image, {n}²", method, clock() - start, size=n))
        print(f"{setting}: " + ", ".join(f"{m} {times[m, 'all']:.3f} s" for m in steps), flush=True)
    fitted = [(r["size"] ** 2, r["seconds"]) for r in rows if r["method"] == "disinr"]
    ratios["growth with pixels (exponent)"] = exponent(fitted)
    return rows


def slices(options: dict[str, Any], dataset_dir: str | None, ratios: dict[str, float]) -> list[dict[str, Any]]:
    """Iterations of several slices in one process, one by one; and what one sparse product for all would save."""
    n = 256 if 256 in options["sizes"] else options["sizes"][-1]
    parser = settings("mri", n, "simulated")
    case, loss = first_case(parser, dataset_dir, n), parser.get_parsed_content("loss")
    steps = [Step("disinr", case, loss) for _ in range(max(options["slices"]))]
    many = {count: lambda count=count: [step() for step in steps[:count]] for count in options["slices"]}
    times = interleaved(many, max(options["rounds"] // 2, 2))
    rows = [row("mri", f"iteration, {n}², slices", "disinr", t, slices=count) for count, t in times.items()]
    ratios["growth with slices (exponent)"] = exponent(list(times.items()))
    joint = interleaved(together(steps[: min(8, len(steps))]), options["rounds"])
    ratios["one by one / together, 8 slices"] = joint["one by one"] / joint["together"]
    for name, seconds in joint.items():
        rows.append(row("mri", f"iteration, {n}², {min(8, len(steps))} slices", name, seconds))
    return rows


def subjects(options: dict[str, Any], dataset_dir: str | None, ratios: dict[str, float]) -> list[dict[str, Any]]:
    """A pre-training step, and the memory of the process, against the number of subjects."""
    n = 256 if 256 in options["sizes"] else options["sizes"][-1]
    case = first_case(settings("mri", n, "simulated"), dataset_dir, n)
    rows = []
    for count in options["subjects"]:
        visits = count if count <= 50 else 20  # with 200 visited once the state of Adam alone would be 8 GB
        result = in_own_process(pretrain, case, count, visits)
        rows.append(row("mri", f"pre-training step, {n}²", "disinr", subjects=count, visited=visits, **result))
        print(f"{count} subjects, {visits} visited: {result}", flush=True)
    with tempfile.TemporaryDirectory(dir=".") as folder:  # not where temporary files may lie in memory
        count, visits = options["subjects"][-1], min(options["subjects"][-1], 20)
        result = in_own_process(pretrain, case, count, visits, folder)
    setting = f"pre-training step, {n}², subjects on disk"
    rows.append(row("mri", setting, "disinr on disk", subjects=count, visited=visits, **result))
    print(f"{count} subjects on disk, {visits} visited: {result}", flush=True)
    ratios["growth with subjects (exponent)"] = exponent(
        [(r["subjects"], r["seconds"]) for r in rows if r["method"] == "disinr"]
    )
    return rows


def exponent(points: list[tuple[float, float]]) -> float:
    """Slope of log time over log size, from the smallest to the largest."""
    (x0, y0), (x1, y1) = min(points), max(points)
    return math.log(y1 / y0) / math.log(x1 / x0)


def table(rows: list[dict[str, Any]], ratios: dict[str, float]) -> str:
    """Stages in ms, the floor's arithmetic, and each ratio beside its bar."""
    lines = [f"{'iteration':<20}{'method':<10}{'ms':>8}" + "".join(f"{s:>11}" for s in STAGES) + f"{'peak MB':>9}"]
    for r in rows:
        if "stages" in r:
            cells = "".join(f"{1000 * r['stages'][s]:11.1f}" for s in STAGES)
            peak = f"{r['peak_memory_mb']:9.0f}" if "peak_memory_mb" in r else ""
            lines.append(f"{r['setting']:<20}{r['method']:<10}{1000 * r['seconds']:8.1f}{cells}{peak}")
    for r in rows:
        if "arithmetic" in r:
            lines.append(f"{r['setting']}, {r['method']}: {r['arithmetic']} = {1000 * r['seconds']:.1f} ms")
    lines.append("")
    for name, value in ratios.items():
        sign, bar = BARS[name]
        met = value >= bar if sign == ">=" else value <= bar
        lines.append(f"{name:<46}{value:8.2f}   bar {sign} {bar:<5} {'met' if met else 'not met'}")
    return "\n".join(lines)


STAGES = ("encode", "mlp", "operator", "optimiser", "other")


PARTS = {
    "sizes": sizes,
    "slices": slices,
    "subjects": subjects,
    "mri": lambda *given: to_quality("mri", *given),
    "ct": lambda *given: to_quality("ct", *given),
}


def add_command(commands: Any) -> None:
    command = commands.add_parser("speed", help="cost against size, and the ratios that it is judged by")
    command.add_argument("--dataset_dir", help="MRI scans of your own instead of phantoms")
    command.add_argument("--ct_dir", help="CT scans of your own instead of phantoms")
    command.add_argument("--output", default="speed.json")
    command.add_argument(
        "--quick", action="store_true", help="small sizes, to see that it runs; the ratios mean nothing"
    )
    command.add_argument("--parts", default=",".join(PARTS), help="run these only (default: all)")


def speed(arguments: argparse.Namespace) -> None:
    """Run the suite, write the JSON, print the table."""
    keep_freed_memory()
    options, ratios = QUICK if arguments.quick else FULL, {}
    wanted = arguments.parts.split(",")
    unknown = [name for name in wanted if name not in PARTS]
    if unknown:
        raise SystemExit(f"error: parts: {unknown[0]!r} is unknown; known: {', '.join(PARTS)}")
    folders = {name: arguments.ct_dir if name == "ct" else arguments.dataset_dir for name in wanted}
    rows = [row for name in wanted for row in PARTS[name](options, folders[name], ratios)]
    if not tcnn_backend.is_available():
        print("tinycudann: not here, left out")
    write_json(arguments.output, {"rows": rows, "ratios": ratios}, 0)
    print(table(rows, ratios))
    print(f"written to {arguments.output}")
