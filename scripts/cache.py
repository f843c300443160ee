"""Show or empty the caches: system matrices, and of patients coil maps and inputs of the learned prior.

    python scripts/cache.py info
    python scripts/cache.py clear --cache_dir FOLDER

Only files of the caches are counted and removed, whatever else lies in the folder.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from disinr_monai.numerics.cache import cache_files, clear_cache, default_cache_dir


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("command", choices=("info", "clear"))
    parser.add_argument("--cache_dir", type=Path, help="$DISINR_CACHE or ~/.cache/disinr_monai if not given")
    arguments = parser.parse_args()
    folder = default_cache_dir() if arguments.cache_dir is None else arguments.cache_dir.expanduser()
    if not folder.is_dir():
        print(f"{folder}: no such folder, nothing is stored")
        return
    if arguments.command == "clear":
        count, size = clear_cache(folder)
        print(f"{folder}: {count} files removed, {size / 1e6:.1f} MB")
        return
    kinds: dict[str, list[int]] = {}
    for file, (size, _) in cache_files(folder).items():
        kinds.setdefault(str(file.parent.relative_to(folder)), []).append(size)
    names = {".": "system matrices", "espirit": "coil maps of patients", "prior": "inputs of the prior, of patients"}
    for kind, sizes in sorted(kinds.items()):
        print(f"{folder / kind}: {len(sizes)} files, {sum(sizes) / 1e6:.1f} MB ({names.get(kind, 'other')})")
    print(f"{folder}: {sum(map(len, kinds.values()))} files, {sum(map(sum, kinds.values())) / 1e6:.1f} MB in all")


if __name__ == "__main__":
    main()
