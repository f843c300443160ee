"""How often the self-check is right on scans of your own: as they are, and with a forward model that does not fit.

    python scripts/self_check.py --task mri --dataset_dir DIR [--method tv] [--n_scans 6] [--output self_check.json]

Every scan is reconstructed as it is, where a mark is a false alarm, and once with each of the mismatches of
`scripts/mismatches.py`, where none is a miss. Options that are not listed go to the bundle (`--acceleration 4`, ...).
Its rules are in docs/decisions/0014-the-self-check.md.
"""

from __future__ import annotations

import argparse
from typing import Any

import benchmark
from mismatches import mismatches_of
from monai.bundle import ConfigParser
from monai.utils import set_determinism
from tqdm import tqdm, trange

from disinr_monai.errors import InputError
from disinr_monai.fitting.self_check import poor_fit
from disinr_monai.output.tables import write_json
from disinr_monai.runtime.overrides import known_keys
from disinr_monai.runtime.shown_errors import install_excepthook

METHODS = {"mri": "tv", "ct": "tv", "pet": "mlem", "transmission": "sps"}
AS_IT_IS = "as it is"


def read_configs(task: str, options: dict[str, Any]) -> ConfigParser:
    """The configs of `run inference` with the options.

    Raises:
        InputError: an option that is no key of them.
    """
    overlays = ["pet", task] if task == "transmission" else [task]
    files = [str(benchmark.ROOT / "configs" / f"{name}.json") for name in ("inference", *overlays, "ngp")]
    known = known_keys(files)
    parser = ConfigParser()
    parser.read_config(files)
    parser["bundle_root"], parser["quiet"] = str(benchmark.ROOT), True
    for key, value in options.items():
        if key.split("#")[0] not in known:
            raise InputError(f"{key}: no such key in the configs of {task}")
        parser[key] = value
    return parser


def check_scan(case: dict[str, Any], method: Any, name: str) -> dict[str, Any]:
    """One row: what is left over of the measurement and whether the scan is marked."""
    row = {"subject": str(case["name"]), "mismatch": name}
    if method(None, None, case=case) is None:
        return {**row, "error": method.error}
    found = method.residual
    numbers = {"unexplained": found.unexplained, "over_noise": found.over_noise, "structured": found.structured}
    return {**row, "kind": found.kind, **numbers, "marked": bool(poor_fit(found))}


def table(rows: list[dict[str, Any]]) -> str:
    """Markdown: scans marked and the range of what was left over, for each mismatch."""
    lines = ["| scans | marked | left over (%) |", "|---|---|---|"]
    for name in dict.fromkeys(row["mismatch"] for row in rows):
        of_name = [row for row in rows if row["mismatch"] == name]
        left = [100 * row["unexplained"] for row in of_name if "marked" in row]
        failed = sum("error" in row for row in of_name)
        marked = f"{sum(row.get('marked', False) for row in of_name)} of {len(left)}"
        marked += f", {failed} refused" if failed else ""
        ends = dict.fromkeys(f"{value:.2g}" for value in (min(left), max(left))) if left else ()
        lines.append(f"| {name} | {marked} | {' to '.join(ends)} |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--task", choices=tuple(METHODS), required=True)
    parser.add_argument("--dataset_dir", required=True)
    parser.add_argument("--method", help="a classical one of the task")
    parser.add_argument("--n_scans", type=int, help="the first ones; all by default")
    parser.add_argument("--output", default="self_check.json")
    parser.add_argument("--seed", type=int, default=0)
    arguments, rest = parser.parse_known_args()
    install_excepthook()
    set_determinism(arguments.seed)
    options = {"slices_per_subject": 1, **benchmark.override_options(rest)}
    configs = read_configs(arguments.task, {**options, "dataset_dir": arguments.dataset_dir, "seed": arguments.seed})
    name, known = arguments.method or METHODS[arguments.task], configs["classical"]
    if name not in known:
        raise InputError(f"method: expected one of {', '.join(known)}, found {name!r}")
    method, scans = configs.get_parsed_content(f"classical#{name}"), configs.get_parsed_content("dataset")
    if not method.fits_data:
        raise InputError(f"method: {name} is a one-step inverse, whose residual is never judged")
    rows = []
    for i in trange(len(scans) if arguments.n_scans is None else min(arguments.n_scans, len(scans)), desc="scans"):
        case = scans[i]
        if "error" in case:
            raise InputError(case["error"])
        rows.append(check_scan(case, method, AS_IT_IS))
        for mismatch, change in tqdm(mismatches_of(case).items(), desc=str(case["name"]), leave=False):
            rows.append(check_scan(change(case), method, mismatch))
    content = {"task": arguments.task, "method": name, "options": options, "rows": rows}
    write_json(arguments.output, content, arguments.seed)
    print(table(rows))
    print(f"written to {arguments.output}")


if __name__ == "__main__":
    main()
