"""Split a folder of scans into pre-training and test subjects (all slices of a subject stay together).

    python scripts/split_subjects.py --dataset_dir scans --output_dir split --n_pretraining 36 --seed 0

makes `split/pretraining` and `split/test` with links to the files.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from disinr_monai.data import split_subjects
from disinr_monai.errors import InputError
from disinr_monai.modality import MODALITIES


def main() -> int:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--dataset_dir", required=True)
    parser.add_argument("--output_dir", required=True)
    parser.add_argument("--modality", choices=sorted(MODALITIES), default="ct")
    parser.add_argument("--n_pretraining", type=int, required=True, help="number of pre-training subjects")
    parser.add_argument("--only", nargs="*", default=[], help="keep subjects whose name contains one of these")
    parser.add_argument("--test", nargs="*", default=[], help="subjects (or parts of names) that must be test subjects")
    parser.add_argument("--seed", type=int, default=0)
    arguments = vars(parser.parse_args())
    try:
        parts = split_subjects(**arguments)
    except InputError as error:
        sys.stderr.write(f"error: {error}\n")
        return 1
    for part, subjects in parts.items():
        print(f"{part}: {len(subjects)} subjects in {Path(arguments['output_dir']) / part}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
