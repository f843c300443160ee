"""HTML elements of the report. Every text goes through :func:`html.escape`: names and headers are untrusted."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from html import escape
from typing import Any
from urllib.parse import quote

METRICS = {
    "psnr": ("PSNR (dB)", ".2f", "error of the whole image against the reference; higher is better"),
    "psnr_body": ("PSNR body", ".2f", "the same inside the body only, without the air around it"),
    "psnr_soft": ("PSNR soft tissue", ".2f", "the same in the window of soft tissue, -160 to 240 HU"),
    "ssim": ("SSIM", ".4f", "likeness of local structure in the whole image; 1 is equal"),
    "ssim_body": ("SSIM body", ".4f", "the same inside the body only"),
    "ssim_soft": ("SSIM soft tissue", ".4f", "the same in the window of soft tissue, -160 to 240 HU"),
    "nrmse": ("NRMSE", ".4f", "size of the error over the size of the reference"),
    "unsampled_error": (
        "untaken samples",
        ".4f",
        "error of the predicted samples that were taken away, over their size; 0 is best",
    ),
    "unsampled_noise": ("of that noise", ".4f", "what the estimated noise of these samples alone gives"),
    "reference_ceiling": ("noise limit (dB)", ".1f", "PSNR of a perfect image against this reference, which is noisy"),
    "seconds": ("seconds", ".2f", ""),
    "iterations": ("iterations", ".0f", ""),
    "residual": ("unexplained", ".3f", "share of the measurement that the image does not explain, without noise"),
}
CT_WINDOWS = {"whole range": (-200, 1200), "soft tissue": (40, 400), "lung": (-600, 1500), "bone": (400, 1800)}
BADGE = ' <strong class="badge" title="measured by simulation from an image, not by a scanner">SIMULATED</strong>'
PLANES = ("axial", "coronal", "sagittal")


def row_table(caption: str, rows: Sequence[Mapping[str, Any]], ours: str, has_cases: bool = False) -> str:
    """Table of methods and their metrics, without empty columns; with ``has_cases`` each row links to its picture."""
    columns = {key: column for key, column in METRICS.items() if any(key in row for row in rows)}
    head = "".join(_heading(title, text) for title, _, text in columns.values())
    first = '<th scope="col">case</th>' * has_cases + '<th scope="col">method</th>'
    body = []
    for row in rows:
        cells = "".join(f"<td>{_number(row, key, form)}</td>" for key, (_, form, _) in columns.items())
        mark = ' class="ours"' if row["method"] == ours else ""
        name = f'<th scope="row">{escape(str(row["method"]))}</th>'
        body.append(f"<tr{mark}>{_link(row) if has_cases else ''}{name}{cells}</tr>")
    return (
        f'<div class="scroll"><table><caption>{escape(caption)}</caption>'
        f"<thead><tr>{first}{head}</tr></thead><tbody>{''.join(body)}</tbody></table></div>"
    )


def _heading(title: str, text: str) -> str:
    tip = f' title="{escape(text)}"' if text else ""
    return f'<th scope="col"{tip}>{title}</th>'


def _link(row: Mapping[str, Any]) -> str:
    case, badge = row["case"], BADGE if row.get("measurement") == "SIMULATED" else ""
    return f'<td><a href="{quote(case)}/{quote(case)}_recon.png">{escape(case)}</a>{badge}</td>'


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
    box = f'<div class="banner {kind}" role="note"><strong>{escape(title)}</strong><ul>{items}</ul></div>'
    return box if items else ""


def figure(title: str, note: str, alt: str, source: str, role: str, size: tuple[int, int], pixels: str = "") -> str:
    """Still picture of a panel, with the packed values that the script shows in its place."""
    data = f' data-pixels="{pixels}"' if pixels else ""
    return (
        f'<figure data-role="{role}"{data}>'
        f'<img alt="{escape(alt)}" src="{source}" width="{size[1]}" height="{size[0]}">'
        f"<figcaption><span>{escape(title)} <small>{escape(note)}</small></span>"
        '<span data-show="value"></span></figcaption></figure>'
    )


def controls(number: int, low: float, high: float, window: tuple[float, float], units: str, is_volume: bool) -> str:
    """Sliders and menus of one case; hidden until the script runs."""
    step = (high - low) / 1000
    level, width = window
    parts = []
    if is_volume:
        planes = [(str(index), name) for index, name in enumerate(PLANES)]
        parts += [_choice(number, "plane", planes), _slider(number, "slice", 0, 0, 1, 0)]
    parts += [_slider(number, "level", low, high, step, level), _slider(number, "width", step, high - low, step, width)]
    if units == "HU":
        windows = [(f"{lv},{w}", name) for name, (lv, w) in CT_WINDOWS.items()]
        parts.append(_choice(number, "preset", [("", "as set"), *windows]))
    parts.append('<button type="button" data-control="reset">Reset window</button>')
    return f'<div class="controls" role="group" aria-label="Window" hidden>{"".join(parts)}</div>'


def _slider(number: int, name: str, low: float, high: float, step: float, value: float) -> str:
    return (
        f'<label for="{name}{number}">{name} <input type="range" id="{name}{number}" data-control="{name}" '
        f'min="{low:.6g}" max="{high:.6g}" step="{step:.3g}" value="{value:.6g}">'
        f'<output data-show="{name}"></output></label>'
    )


def _choice(number: int, name: str, options: Iterable[tuple[str, str]]) -> str:
    items = "".join(f'<option value="{value}">{text}</option>' for value, text in options)
    return (
        f'<label for="{name}{number}">{name} <select id="{name}{number}" data-control="{name}">{items}</select></label>'
    )
