"""Does a released checkpoint tell who it was trained on? Attacks with it on seen and on unseen subjects, compared.

    python scripts/privacy_attack.py --task ct --pretraining_dir SPLIT/pretraining --test_dir SPLIT/test \
        --image_size 128 --pixel_spacing 2.0 --n_views 16 --n_iterations 40 --output privacy_ct.json

Every number is one of a subject (its first slice): seen are those of `--pretraining_dir`, which the checkpoint
(`--checkpoint`, default: the shipped one) was trained on; unseen those of `--test_dir`, of the same kind.

- render: the released field at its released start against the subject's image: correlation, and PSNR after the best
  affine change of grey values. No measurement at all;
- adapt: the frozen pair fitted to few measurements of the subject, PSNR above total variation on the same ones;
- prior: the learned prior on the same measurements, PSNR above total variation.

If those who trained it leak, their numbers are higher. The table gives both means, the chance that a seen subject is
above an unseen one (AUC, 0.5 is chance; Hanley and McNeil, Radiology 143:29, 1982), and the one-sided p of
Mann-Whitney's test. `--write_docs` puts it into docs/privacy.md. Other options go to the bundle.
"""

from __future__ import annotations

import argparse
import math
import tempfile
from collections.abc import Collection
from typing import Any

import numpy as np
import torch
from benchmark import ROOT, config_files, override_options
from monai.bundle import ConfigWorkflow
from scipy.stats import mannwhitneyu
from torch import Tensor

from disinr_monai.data import list_cases
from disinr_monai.grid import crop_image
from disinr_monai.output.metrics import image_metrics, to_display
from disinr_monai.output.tables import write_json

PAGE = ROOT / "docs" / "privacy.md"
ATTACKS = {
    "render_correlation": "render, correlation",
    "render_psnr": "render, PSNR (dB)",
    "adapt_gain": "adapt, PSNR above total variation (dB)",
    "prior_gain": "prior, PSNR above total variation (dB)",
}


def first_slices(folder: str, task: str, max_subjects: int) -> list[dict[str, Any]]:
    """One case of each subject, the first by name."""
    cases = {}
    for case in list_cases(folder, task, slices_per_subject=1):
        cases.setdefault(case["subject"], case)
    return list(cases.values())[:max_subjects]


def resemblance(rendered: Tensor, reference: Tensor) -> dict[str, float]:
    """Correlation, and PSNR after the affine change of grey values that fits best."""
    x, y = rendered.flatten().double(), reference.flatten().double()
    x, centred = x - x.mean(), y - y.mean()
    slope = float(x @ centred) / max(float(x @ x), 1e-30)
    error = float((slope * x - centred).square().mean())
    norm = math.sqrt(max(float(x @ x) * float(centred @ centred), 1e-60))
    return {"render_correlation": float(x @ centred) / norm, "render_psnr": -10 * math.log10(max(error, 1e-20))}


def attack(workflow: ConfigWorkflow, case: dict[str, Any], kinds: Collection[str]) -> dict[str, float]:
    """The attacks of ``kinds`` on one listed case."""
    parsed = workflow.parser.get_parsed_content
    network, task = parsed("network"), parsed("modality")
    case = parsed("acquire")(case)
    reference, scale = case["reference"], case["image_scale"]

    def psnr(image: Tensor) -> float:
        return image_metrics(to_display(crop_image(image, case.get("crop")), task, scale), reference)["psnr"]

    result = {}
    if "render" in kinds:
        with torch.no_grad():
            start = network(case["points"][None])[0]
        result |= resemblance(to_display(crop_image(start, case.get("crop")), task, scale), reference)
    if "prior" in kinds and "prior" in network.shared:
        classical, learned, _ = parsed("learned")().both(network.shared["prior"], case["scan"])
        result["prior_gain"] = psnr(learned) - psnr(classical)
    if "adapt" in kinds:
        method = parsed("adaptation")()
        adapted = method(case["points"][None], network, case=case)
        if adapted is None:
            raise SystemExit(f"error: {method.error}")
        result["adapt_gain"] = psnr(adapted[0]) - psnr(parsed("prior_start").solve(case["scan"]))
    return result


def compare(rows: list[dict[str, Any]]) -> list[dict[str, float | str]]:
    """Seen against unseen, for every attack."""
    table = []
    for key, name in ATTACKS.items():
        groups = [[row[key] for row in rows if row["seen"] == seen and key in row] for seen in (True, False)]
        if not all(groups):
            continue
        test = mannwhitneyu(*groups, alternative="greater")
        seen, unseen = (np.array(group) for group in groups)
        entry: dict[str, float | str] = {"attack": name, "auc": float(test.statistic) / (len(seen) * len(unseen))}
        entry |= {"p": float(test.pvalue), "n_seen": len(seen), "n_unseen": len(unseen)}
        for label, group in (("seen", seen), ("unseen", unseen)):
            entry |= {
                label: float(group.mean()),
                f"{label}_std": float(group.std()),
                f"{label}_max": float(group.max()),
            }
        table.append(entry)
    return table


def markdown(table: list[dict[str, Any]]) -> str:
    """The comparison as a table."""
    lines = ["| attack | seen | unseen | best seen | best unseen | AUC | p |", "|---|---|---|---|---|---|---|"]
    for e in table:
        lines.append(
            f"| {e['attack']} | {e['seen']:.2f} ± {e['seen_std']:.2f} (n {e['n_seen']}) | {e['unseen']:.2f} ± "
            f"{e['unseen_std']:.2f} (n {e['n_unseen']}) | {e['seen_max']:.2f} | {e['unseen_max']:.2f} | {e['auc']:.2f} "
            f"| {e['p']:.2f} |"
        )
    return "\n".join(lines)


def write_docs(task: str, text: str) -> None:
    """Replace the table of a task in docs/privacy.md."""
    start, end = f"<!-- {task}:start -->", f"<!-- {task}:end -->"
    before, rest = PAGE.read_text().split(start)
    PAGE.write_text(f"{before}{start}\n{text}\n{end}{rest.split(end)[1]}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--task", choices=("mri", "ct"), required=True)
    parser.add_argument("--pretraining_dir", required=True)
    parser.add_argument("--test_dir", required=True)
    parser.add_argument("--max_subjects", type=int, default=1000, help="of each group")
    parser.add_argument("--attacks", default="render,adapt,prior")
    parser.add_argument("--output", default="privacy.json")
    parser.add_argument("--write_docs", action="store_true")
    arguments, rest = parser.parse_known_args()
    kinds = arguments.attacks.split(",")
    if unknown := set(kinds) - {"render", "adapt", "prior"}:
        raise SystemExit(f"error: attacks: expected some of render, adapt, prior, found {sorted(unknown)}")
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        workflow = ConfigWorkflow(
            config_files("evaluate", arguments.task, "disinr"),
            workflow_type="infer",
            logging_file=False,
            bundle_root=str(ROOT),
            dataset_dir=arguments.test_dir,
            output_dir=folder,
            **{"quiet": True, "tv_weight": 0.0, **override_options(rest)},
        )
        workflow.initialize()
        for seen, source in ((True, arguments.pretraining_dir), (False, arguments.test_dir)):
            for case in first_slices(source, arguments.task, arguments.max_subjects):
                found = attack(workflow, case, kinds)
                row = {"task": arguments.task, "subject": case["subject"], "seen": seen, **found}
                rows.append(row)
                print(" ".join(f"{k}={v:.3f}" if isinstance(v, float) else str(v) for k, v in row.items()), flush=True)
    table = compare(rows)
    text = markdown(table)
    write_json(arguments.output, {"comparison": table, "rows": rows}, workflow.parser.get_parsed_content("seed"))
    if arguments.write_docs:
        write_docs(arguments.task, text)
    print(text)


if __name__ == "__main__":
    main()
