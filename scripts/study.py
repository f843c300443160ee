"""The studies of the paper, one command each, on data of your own.

    python scripts/study.py frozen   --task ct  --pretraining_dir PRE --dataset_dir TEST --output frozen.json
    python scripts/study.py backbones --task ct --pretraining_dir PRE --dataset_dir TEST --output backbones.json
    python scripts/study.py subjects --task ct  --pretraining_dir PRE --dataset_dir TEST --output subjects.json
    python scripts/study.py masks    --task mri --pretraining_dir PRE --dataset_dir TEST --output masks.json
    python scripts/study.py shift    --task mri --pretraining_dir T2 --dataset_dir T1 --output contrast.json

`frozen`: the pair frozen or not at test. `backbones`: hash grid, SIREN and NeRF with every method. `subjects`: a pair
of 5, 10 or all pre-training subjects. `masks`: sampling patterns that were not pre-trained on. `shift`: scans of
another contrast, region or scanner. What the paper compares is fitted without a regulariser, by default from noise-free
measurements (`--photons`, `--noise_std`, `--tv_weight` and every other key of the configs override that).
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path
from typing import Any

from benchmark import config_files, evaluate, override_options, pretrain, track

from disinr_monai.data import list_cases, split_subjects
from disinr_monai.errors import InputError
from disinr_monai.output.tables import summary_table, write_json
from disinr_monai.runtime.overrides import known_keys

# The paper's comparison: no noise, no regulariser.
PAPER = {"ct": {"photons": 0, "tv_weight": 0.0}, "mri": {"noise_std": 0.0, "tv_weight": 0.0}}
PAPER["pet"] = {"tv_weight": 0.0}  # counts without noise are no counts
PATTERNS = {
    "uniform AF 6": {"pattern": "uniform", "acceleration": 6},
    "radial AF 10": {"pattern": "radial", "acceleration": 10},
    "poisson AF 20": {"pattern": "poisson", "acceleration": 20},
}
BACKBONES = {"hash grid": [], "siren": ["siren"], "nerf": ["nerf"]}


class Study:
    """Pre-trains once for each method and set of scans, evaluates, and collects rows named by variant.

    Args:
        arguments: of the command line.
        options: overrides of the bundle.
        folder: for everything in between.
    """

    def __init__(self, arguments: argparse.Namespace, options: dict[str, Any], folder: Path) -> None:
        self.task, self.epochs = arguments.task, arguments.max_epochs
        self.pretraining_dir, self.dataset_dir = arguments.pretraining_dir, arguments.dataset_dir
        common = {"seed": arguments.seed, "quiet": arguments.quiet}
        self.options = {**common, **PAPER[self.task], **options}
        self.folder = folder
        self.rows: list[dict[str, Any]] = []
        self._checkpoints: dict[tuple[str, str, str], str] = {}

    def add(self, label: str, method: str, *, source: str | None = None, backbone: str = "hash grid", **more: Any):
        """Evaluate ``method`` (pre-trained on ``source`` where it shares something) and call its rows ``label``."""
        options = {**self.options, **more}
        extra = BACKBONES[backbone]
        if method in ("disinr_paper", "strainer", "meta"):
            key = (method, source or self.pretraining_dir, backbone)
            if key not in self._checkpoints:
                out = self.folder / f"pretraining-{len(self._checkpoints)}"
                given = {**self.options, "dataset_dir": key[1]}
                self._checkpoints[key] = pretrain(self.task, method, self.epochs, given, out, extra)
            options["checkpoint"] = self._checkpoints[key]
        out = self.folder / f"evaluate-{len(self.rows)}"
        for row in evaluate(self.task, method, {}, {**options, "dataset_dir": self.dataset_dir}, out, extra):
            self.rows.append({**row, "method": label})


def frozen(study: Study) -> None:
    study.add("frozen pair", "disinr_paper")
    study.add("unfrozen pair", "disinr_paper", **{"adaptation#frozen": False})
    study.add("strainer, fine-tuned", "strainer")
    study.add("strainer, frozen", "strainer", freeze_depth="all")
    study.add("from scratch", "ngp")


def backbones(study: Study) -> None:
    for backbone in BACKBONES:
        for method in ("disinr_paper", "strainer", "meta", "ngp"):
            study.add(f"{method}, {backbone}", method, backbone=backbone)


def subjects(study: Study) -> None:
    names = {case["subject"] for case in list_cases(study.pretraining_dir, study.task, 1)}
    for n in sorted({min(n, len(names)) for n in (5, 10, len(names))}):
        source = study.pretraining_dir
        if n < len(names):
            split_subjects(source, study.task, study.folder / f"{n}-subjects", n_pretraining=n)
            source = str(study.folder / f"{n}-subjects" / "pretraining")
        study.add(f"{n} subjects", "disinr_paper", source=source)
    study.add("0 subjects (from scratch)", "ngp")


def masks(study: Study) -> None:
    if study.task != "mri":
        raise InputError(f"task: the study of sampling masks is for mri, found {study.task}")
    for name, pattern in PATTERNS.items():
        for method in ("disinr_paper", "strainer", "meta", "ngp", "tv", "sense"):
            study.add(f"{method}, {name}", method, **pattern)


def shift(study: Study) -> None:
    classical = ("tv", "sense") if study.task == "mri" else ("tv", "fbp")
    for method in ("disinr_paper", "strainer", "meta", "ngp", *classical):
        study.add(method, method)
    study.add("disinr (shipped checkpoint)", "disinr")


STUDIES = {study.__name__: study for study in (frozen, backbones, subjects, masks, shift)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("study", choices=tuple(STUDIES))
    parser.add_argument("--task", choices=tuple(PAPER), required=True)
    parser.add_argument("--pretraining_dir", required=True)
    parser.add_argument("--dataset_dir", required=True, help="scans of other subjects")
    parser.add_argument("--max_epochs", type=int, help="of each pre-training")
    parser.add_argument("--output", default="study.json")
    parser.add_argument("--output_dir", help="keep images, pictures, checkpoints and the MLflow database here")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--quiet", action="store_true")
    arguments, rest = parser.parse_known_args()
    try:
        with tempfile.TemporaryDirectory() as temporary:
            folder = Path(arguments.output_dir or temporary)
            study = Study(arguments, checked(arguments.task, override_options(rest)), folder)
            STUDIES[arguments.study](study)
            setting = ", ".join(f"{k} {v}" for k, v in study.options.items() if k not in ("seed", "quiet"))
            for row in study.rows:
                row |= {"task": arguments.task, "setting": setting}
            track(study.rows, f"{arguments.study}-{arguments.task}", None, folder)
            write_json(arguments.output, {"rows": study.rows}, arguments.seed)
            print(summary_table(study.rows))
            print(f"written to {arguments.output}")
    except InputError as error:
        raise SystemExit(f"error: {error}") from None


def checked(task: str, options: dict[str, Any]) -> dict[str, Any]:
    """The options, if a run of the study reads them.

    Raises:
        InputError: an unknown key.
    """
    known = known_keys(config_files("train", task, "strainer")) | known_keys(config_files("evaluate", task, "meta"))
    for key in options:
        if key.split("#")[0] not in known:
            raise InputError(f"{key}: no such key in the configs of a study")
    return options


if __name__ == "__main__":
    main()
