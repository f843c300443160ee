"""Split a folder of scans into pre-training and test subjects (all slices of a subject stay together).

    python scripts/split_subjects.py --dataset_dir scans --output_dir split --n_pretraining 36 --seed 0

makes `split/pretraining` and `split/test` with links to the files.
"""

from __future__ import annotations

import argparse
import random
from pathlib import Path

from disinr_monai.data import list_cases


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--dataset_dir", required=True)
    parser.add_argument("--output_dir", required=True)
    parser.add_argument("--modality", choices=("mri", "ct"), default="ct")
    parser.add_argument("--n_pretraining", type=int, required=True, help="number of pre-training subjects")
    parser.add_argument("--only", nargs="*", default=[], help="keep subjects whose name contains one of these")
    parser.add_argument("--test", nargs="*", default=[], help="subjects (or parts of names) that must be test subjects")
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()

    root = Path(arguments.dataset_dir)
    files: dict[str, set[Path]] = {}
    for case in list_cases(arguments.dataset_dir, arguments.modality, slices_per_subject=1):
        if arguments.only and not any(part in case["subject"] for part in arguments.only):
            continue
        paths = case["path"] if isinstance(case["path"], list) else [case["path"]]
        files.setdefault(case["subject"], set()).update(Path(p) for p in paths)

    fixed = [s for s in files if any(part in s for part in arguments.test)]
    others = sorted(s for s in files if s not in fixed)
    random.Random(arguments.seed).shuffle(others)
    parts = {"pretraining": others[: arguments.n_pretraining], "test": fixed + others[arguments.n_pretraining :]}
    if arguments.test:
        parts["test"] = fixed
    for part, subjects in parts.items():
        folder = Path(arguments.output_dir) / part
        folder.mkdir(parents=True, exist_ok=True)
        for subject in subjects:
            for path in files[subject]:
                link = folder / (path.relative_to(root) if root.is_dir() else path.name)
                link.parent.mkdir(parents=True, exist_ok=True)
                if not link.exists():
                    link.symlink_to(path.resolve())
        print(f"{part}: {len(subjects)} subjects, {sum(len(files[s]) for s in subjects)} files in {folder}")


if __name__ == "__main__":
    main()
