"""Pieces of the page. Every text goes through :func:`html.escape`: names and headers come from strangers."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from html import escape
from typing import Any

_METRICS = (("psnr", "PSNR (dB)", ".2f"), ("ssim", "SSIM", ".4f"), ("nrmse", "NRMSE", ".4f"), ("seconds", "seconds", ".2f"),
            ("iterations", "iterations", ".0f"))  # fmt: skip
CT_WINDOWS = {"whole range": (-200, 1200), "soft tissue": (40, 400), "lung": (-600, 1500), "bone": (400, 1800)}


def row_table(caption: str, rows: Sequence[Mapping[str, Any]], ours: str) -> str:
    """Methods and their numbers; columns that no row has are left out."""
    columns = [column for column in _METRICS if any(column[0] in row for row in rows)]
    head = "".join(f'<th scope="col">{title}</th>' for _, title, _ in columns)
    body = []
    for row in rows:
        cells = "".join(f"<td>{_number(row, key, form)}</td>" for key, _, form in columns)
        mark = ' class="ours"' if row["method"] == ours else ""
        body.append(f'<tr{mark}><th scope="row">{escape(str(row["method"]))}</th>{cells}</tr>')
    return (f'<div class="scroll"><table><caption>{escape(caption)}</caption><thead><tr><th scope="col">method</th>{head}'
            f"</tr></thead><tbody>{''.join(body)}</tbody></table></div>")  # fmt: skip


def _number(row: Mapping[str, Any], key: str, form: str) -> str:
    if key not in row:
        return ""
    spread = f" ± {format(row[f'{key}_std'], form)}" if row.get("n_subjects", 0) > 1 else ""
    return format(row[key], form) + spread


def facts(summary: str, pairs: Mapping[str, Any], is_open: bool = False) -> str:
    """A folding table of names and values."""
    rows = "".join(
        f'<tr><th scope="row">{escape(str(key))}</th><td>{escape(str(value))}</td></tr>' for key, value in pairs.items()
    )
    return f"<details{' open' if is_open else ''}><summary>{escape(summary)}</summary><table>{rows}</table></details>"


def messages(kind: str, title: str, texts: Iterable[str]) -> str:
    """A box with a list, or nothing."""
    items = "".join(f"<li>{escape(text)}</li>" for text in texts)
    return (
        f'<div class="banner {kind}" role="note"><strong>{escape(title)}</strong><ul>{items}</ul></div>'
        if items
        else ""
    )


def figure(title: str, note: str, alt: str, source: str, role: str, size: tuple[int, int], pixels: str = "") -> str:
    """A still picture, with the values that the script shows in its place."""
    data = f' data-pixels="{pixels}"' if pixels else ""
    return (f'<figure data-role="{role}"{data}><img alt="{escape(alt)}" src="{source}" width="{size[1]}" height="{size[0]}">'
            f'<figcaption><span>{escape(title)} <small>{escape(note)}</small></span><span data-show="value"></span>'
            "</figcaption></figure>")  # fmt: skip


def controls(number: int, low: float, high: float, window: tuple[float, float], units: str, is_volume: bool) -> str:
    """Sliders of one case; shown by the script once they work."""
    step = (high - low) / 1000
    level, width = window
    presets = ""
    if units == "HU":
        options = "".join(f'<option value="{lv},{w}">{name}</option>' for name, (lv, w) in CT_WINDOWS.items())
        presets = (f'<label for="preset{number}">window <select id="preset{number}" data-control="preset">'
                   f'<option value="">as set</option>{options}</select></label>')  # fmt: skip
    volume = ""
    if is_volume:
        volume = (
            f'<label for="plane{number}">plane <select id="plane{number}" data-control="plane">'
            '<option value="0">axial</option><option value="1">coronal</option><option value="2">sagittal</option></select></label>'
            f'<label for="slice{number}">slice <input type="range" id="slice{number}" data-control="slice" min="0" max="0" '
            'step="1" value="0"><output data-show="slice"></output></label>'
        )  # fmt: skip
    return (f'<div class="controls" role="group" aria-label="Window" hidden>{volume}'
            f'<label for="level{number}">level <input type="range" id="level{number}" data-control="level" min="{low:.6g}" '
            f'max="{high:.6g}" step="{step:.3g}" value="{level:.6g}"><output data-show="level"></output></label>'
            f'<label for="width{number}">width <input type="range" id="width{number}" data-control="width" min="{step:.3g}" '
            f'max="{high - low:.6g}" step="{step:.3g}" value="{width:.6g}"><output data-show="width"></output></label>'
            f'{presets}<button type="button" data-control="reset">Reset window</button></div>')  # fmt: skip
