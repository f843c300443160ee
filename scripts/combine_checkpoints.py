"""Put the pair of one checkpoint and the learned prior of another into one file.

python scripts/combine_checkpoints.py --pair PAIR.pt --prior PRIOR.pt --output model.pt
"""

from __future__ import annotations

import argparse
import sys

from disinr_monai.checkpoints.released import combine
from disinr_monai.errors import InputError


def main() -> int:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--pair", required=True, help="model.pt whose pair is taken")
    parser.add_argument("--prior", required=True, help="model.pt of a training with configs/prior.json")
    parser.add_argument("--output", required=True, help="file to write")
    options = parser.parse_args()
    try:
        combine(options.pair, options.prior, options.output)
    except InputError as error:
        sys.stderr.write(f"error: {error}\n")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
