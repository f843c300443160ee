"""Sections of docs/benchmarks.md from what `scripts/benchmark.py grid` wrote."""

from __future__ import annotations

from typing import Any

import numpy as np
from grid import short

from disinr_monai.output.tables import reference_lines

OURS = "disinr"
TITLES = {
    "real": "Real measured data",
    "mri": "MRI grid, 8 coils",
    "patterns": "Other MRI patterns, 8 coils",
    "ct": "CT grid",
}
_SCANS = {"real": "measured brain", "mri": "simulated MRI", "patterns": "simulated MRI", "ct": "simulated CT"}
# Grid and cell of each row of the README's table.
CLAIM = (
    ("real", "uniform/4"),
    ("real", "uniform/6"),
    ("mri", "4/0.06"),
    ("mri", "6/0.03"),
    ("mri", "6/0.1"),
    ("ct", "60/1e4"),
    ("ct", "60/1e5"),
    ("ct", "30/1e5"),
)
NOTES = {
    "real": "A fully sampled raw scan whose samples are taken away afterwards. PSNR and SSIM are those of the body, "
    "against the reference named below; `untaken samples` is the error of the predicted samples that were taken away, "
    "over their size, and in brackets what their noise alone gives.",
    "mri": "Simulated from images; `noise_std` is relative to the RMS of the sampled k-space.",
    "patterns": "Simulated from images, at noise that is everyday.",
    "ct": "Simulated fan beam from images; photons a ray.",
}
_GAIN = (
    "Gain: PSNR of disinr minus that of the classical method with the best mean in the same row, mean ± standard "
    "deviation over persons (worst person)."
)


def grid_section(result: dict[str, Any]) -> list[str]:
    """Heading, table of cells, table of persons and how it was measured."""
    kind, cells = result["task"], {name: cell for name, cell in result["cells"].items() if cell["rows"]}
    if not cells:
        return []
    rows = [row for cell in cells.values() for row in cell["rows"]]
    persons = {row["subject"]: row["source"] for row in rows}
    count = f"{_count(len(persons), 'person')}, {_count(len(set(persons.values())), 'source')}"
    lines = [f"## {TITLES[kind]} ({count})", "", f"{NOTES[kind]} {_GAIN}", ""]
    options = ", ".join(f"{key} {value}" for key, value in result["options"].items())
    lines += [f"The same for all: {options}.", ""] if options else []
    inside = _inside(kind)
    lines += _cells(cells, inside, kind) + [""]
    lines += [text for line in reference_lines(rows) for text in (f"{line[0].upper()}{line[1:]}.", "")]
    lines += ["PSNR of disinr and gain (dB) by person:", "", *_persons(cells, inside), ""]
    made = sorted(
        {f"{cell['hardware']}; commit {cell['versions'].get('git_commit', 'unknown')}" for cell in cells.values()}
    )
    newest = next(reversed(cells.values()))["versions"]
    versions = ", ".join(f"{key} {value}" for key, value in newest.items() if key != "git_commit")
    return [*lines, f"Seed {result['seed']}; weights {result['weights']}; {' and '.join(made)}; {versions}.", ""]


def cell_title(kind: str, setting: dict[str, Any]) -> str:
    """What a cell measures, e.g. `simulated CT, n_views 60, photons 1e5`."""
    return ", ".join([_SCANS[kind], *(f"{key} {short(value)}" for key, value in setting.items())])


def claim(results: dict[str, dict[str, Any]]) -> list[str]:
    """The table of the README, from the grids that are there."""
    lines = ["| scan | persons | disinr (dB) | best classical method (dB) | gain (worst person) |", "|---" * 5 + "|"]
    for kind, name in CLAIM:
        cell = results.get(kind, {}).get("cells", {}).get(name)
        best, gained = gains(cell["rows"], f"psnr{_inside(kind)}") if cell else ("", {})
        if gained:
            ours, theirs = (_mean(by_person(cell["rows"], m, f"psnr{_inside(kind)}")) for m in (OURS, best))
            values = [cell_title(kind, cell["setting"]), str(len(gained)), ours, f"{theirs} ({best})", _gain(gained)]
            lines.append("| " + " | ".join(values) + " |")
    return lines


def _inside(kind: str) -> str:
    return "_body" if kind == "real" else ""


def _count(n: int, word: str) -> str:
    return f"{n} {word}{'s' * (n > 1)}"


def by_person(rows: list[dict[str, Any]], method: str, key: str) -> dict[str, float]:
    """A number of one method by person; scans of a person are averaged."""
    found: dict[str, list[float]] = {}
    for row in rows:
        if row["method"] == method and key in row:
            found.setdefault(row["subject"], []).append(row[key])
    return {person: float(np.mean(values)) for person, values in found.items()}


def gains(rows: list[dict[str, Any]], key: str) -> tuple[str, dict[str, float]]:
    """The best classical method by its mean, and by person what ours gains over it; only persons with both count."""
    ours = by_person(rows, OURS, key)
    others = {m: by_person(rows, m, key) for m in dict.fromkeys(row["method"] for row in rows) if m != OURS}
    others = {m: values for m, values in others.items() if values}
    if not ours or not others:
        return "", {}
    best = max(others, key=lambda m: np.mean(list(others[m].values())))
    return best, {person: ours[person] - value for person, value in others[best].items() if person in ours}


def _cells(cells: dict[str, Any], inside: str, kind: str) -> list[str]:
    axes = list(next(iter(cells.values()))["setting"])
    methods = list(dict.fromkeys(row["method"] for cell in cells.values() for row in cell["rows"]))
    methods.sort(key=lambda m: m != OURS)
    real = kind == "real"
    last = ["untaken samples, disinr / best"] if real else ["gain in the body"]
    if kind == "ct":
        last += ["gain in soft tissue"]
    heads = [*axes, "persons", *methods, "gain", "SSIM disinr / best", *last, "share of TV (TV alone)"]
    lines = ["| " + " | ".join(heads) + " |", "|---" * len(heads) + "|"]
    for cell in cells.values():
        rows = cell["rows"]
        best, gained = gains(rows, f"psnr{inside}")
        values = [short(v) for v in cell["setting"].values()]
        values.append(str(len({row["subject"] for row in rows})))
        values += [_mean(by_person(rows, method, f"psnr{inside}")) for method in methods]
        values.append(_gain(gained))
        values.append(_pair(rows, best, f"ssim{inside}", ".3f"))
        if real:
            noise = [row["unsampled_noise"] for row in rows if "unsampled_noise" in row]
            text = f" ({np.mean(noise):.3f})" if noise else ""
            values.append(_pair(rows, best, "unsampled_error", ".3f") + text)
        else:
            values.append(_gain(gains(rows, "psnr_body")[1]))
        if kind == "ct":
            values.append(_gain(gains(rows, "psnr_soft")[1]))
        kept = [row["classical_share"] for row in rows if row["method"] == OURS and "classical_share" in row]
        values.append(f"{np.mean(kept):.2f} ({sum(s >= 1 for s in kept)} of {len(kept)})" if kept else "–")
        lines.append("| " + " | ".join(values) + " |")
    return lines


def _mean(values: dict[str, float]) -> str:
    found = list(values.values())
    if not found:
        return "–"
    return f"{np.mean(found):.2f}" + (f" ± {np.std(found):.2f}" if len(found) > 1 else "")


def _gain(gained: dict[str, float]) -> str:
    found = list(gained.values())
    if not found:
        return "–"
    spread = f" ± {np.std(found):.2f} ({min(found):+.2f})" if len(found) > 1 else ""
    return f"{np.mean(found):+.2f}{spread}"


def _pair(rows: list[dict[str, Any]], best: str, key: str, form: str) -> str:
    values = [list(by_person(rows, method, key).values()) for method in (OURS, best)]
    return " / ".join(format(float(np.mean(v)), form) if v else "–" for v in values)


def _persons(cells: dict[str, Any], inside: str) -> list[str]:
    """A row for each person and first setting, a column for each second one."""
    first, second = list(next(iter(cells.values()))["setting"])
    columns = list(dict.fromkeys(cell["setting"][second] for cell in cells.values()))
    found: dict[tuple[str, Any], dict[Any, str]] = {}
    about: dict[str, str] = {}
    for cell in cells.values():
        ours, (_, gained) = by_person(cell["rows"], OURS, f"psnr{inside}"), gains(cell["rows"], f"psnr{inside}")
        for row in cell["rows"]:
            contrasts = about.get(row["subject"], "").split(", ")
            about[row["subject"]] = ", ".join(dict.fromkeys([*filter(None, contrasts), row["contrast"]]))
        for person, value in ours.items():
            text = f"{value:.2f}" + (f" ({gained[person]:+.2f})" if person in gained else "")
            found.setdefault((person, cell["setting"][first]), {})[cell["setting"][second]] = text
    head = ["person", "scans", first, *(f"{second} {short(v)}" for v in columns)]
    lines = ["| " + " | ".join(head) + " |", "|---" * len(head) + "|"]
    order = list(about)
    for person, value in sorted(found, key=lambda key: order.index(key[0])):
        cells_of = [found[person, value].get(column, "–") for column in columns]
        lines.append("| " + " | ".join([person, about[person], f"{value}", *cells_of]) + " |")
    return lines
