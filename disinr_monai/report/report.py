from __future__ import annotations

import base64
import hashlib
import sys
import time
from collections.abc import Mapping, Sequence
from functools import cache
from html import escape
from pathlib import Path
from string import Template
from typing import Any

import numpy as np
from numpy.typing import NDArray

from disinr_monai.collected_warnings import collected_warnings
from disinr_monai.files import atomic_path
from disinr_monai.privacy import Names
from disinr_monai.report import blocks
from disinr_monai.report.charts import curve
from disinr_monai.report.pixels import hot, pack, png, smaller, spacing_of, upright, windowed
from disinr_monai.versions import versions

# Bytes of the page: pictures with window controls, then thumbnails, then rows of numbers, then nothing.
FULL_BYTES, THUMBNAIL_BYTES, ROW_BYTES = 24_000_000, 12_000_000, 8_000_000
_THUMBNAIL, _LONGEST_VOLUME_SIDE, _LONGEST_SIDE = 96, 128, 512
_KEPT_CURVE = 400


class Report:
    """Collects what a run gave and writes ``output_dir/report.html``: one page, complete in itself, without network.

    A case is a row: pictures with window controls, numbers, convergence, notes. The page stays below
    ``FULL_BYTES + THUMBNAIL_BYTES + ROW_BYTES`` (44 MB): when the first is used up, further cases get still pictures
    of 96 pixels, then numbers only, then a count; the page says so. ``metrics.csv`` has every case.

    Args:
        output_dir: where the page goes.
        title: of the page.
        method: name of the method whose numbers are set in bold.
        settings: flat settings, as :func:`disinr_monai.bundle.hyper_parameters` gives them.
        seed: of the run.
        names: what is hidden.
    """

    def __init__(
        self,
        output_dir: str,
        title: str,
        method: str = "disinr",
        settings: Mapping[str, Any] | None = None,
        seed: int | None = None,
        names: Names | None = None,
    ) -> None:
        self.output_dir, self.title, self.method, self.seed = Path(output_dir), title, method, seed
        self.settings, self.names = dict(settings or {}), names or Names(anonymize=False)
        self.start()

    def start(self) -> None:
        """Begin an empty page."""
        self._fragments: list[str] = []
        self._bytes = {"full": 0, "thumbnail": 0, "row": 0}
        self._counts = {"full": 0, "thumbnail": 0, "row": 0, "none": 0}
        self._curves = ""
        self._written, self._cost, self._began = 0.0, 0.0, time.time()

    def add_case(
        self,
        name: str,
        subject: str,
        rows: Sequence[Mapping[str, Any]],
        panels: Mapping[str, NDArray],
        *,
        reference: NDArray | None = None,
        affine: NDArray | None = None,
        window: tuple[float, float] | None = None,
        units: str = "",
        history: Sequence[Mapping[str, float]] = (),
        info: Mapping[str, Any] | None = None,
    ) -> None:
        """Add a row.

        Args:
            name: of the case.
            subject: whose.
            rows: its rows of ``metrics.csv``.
            panels: images by title, ``(H, W)`` or ``(X, Y, Z)``, all of one shape; the last is the result.
            reference: what the result should be, in the same units.
            affine: 4x4, RAS mm, for the radiological view; None shows the arrays as they are stored.
            window: level and width at first.
            units: of the values.
            history: of the inferer.
            info: how it was read and made.
        """
        number = sum(self._counts.values()) + 1
        head = f'<h3 id="case{number}">{escape(name)} <small class="soft">{escape(subject)}</small></h3>'
        tail = self._numbers(name, rows, history, info or {})
        for kind, limit in (("full", FULL_BYTES), ("thumbnail", THUMBNAIL_BYTES), ("row", ROW_BYTES)):
            if self._bytes[kind] >= limit:
                continue
            attributes, pictures = "", ""
            if kind != "row":
                attributes, pictures = _pictures(
                    number, name, panels, reference, affine, window, units, kind == "thumbnail"
                )
            fragment = f'<article aria-labelledby="case{number}"{attributes}>{head}{pictures}{tail}</article>\n'
            if self._bytes[kind] + len(fragment) > limit:
                self._bytes[kind] = limit
                continue
            self._bytes[kind] += len(fragment)
            self._counts[kind] += 1
            self._fragments.append(fragment)
            return
        self._counts["none"] += 1

    def add_losses(self, steps: Sequence[float], losses: Sequence[float]) -> None:
        """The loss of a pre-training, instead of cases."""
        every = max(1, len(steps) // _KEPT_CURVE)
        chart = curve("Loss of the pre-training", list(steps)[::every], {"loss": list(losses)[::every]})
        self._curves = f"<h2>Loss</h2>{chart}" if chart else ""

    def write_now_and_then(self, **parts: Any) -> None:
        """:meth:`write`, if the last time was long enough ago to be worth it: a killed run leaves a page, too."""
        if time.monotonic() - self._written > max(30.0, 20 * self._cost):
            self.write(**parts, finished=False)

    def write(
        self,
        summary: Mapping[str, Mapping[str, float]] | None = None,
        failures: Sequence[str] = (),
        finished: bool = True,
    ) -> Path:
        """Write the page, whole or not at all.

        Args:
            summary: mean and spread by method.
            failures: what went wrong, a text a case.
            finished: False says that the run was still going on.

        Raises:
            OSError: it cannot be written.
        """
        started = time.monotonic()
        path = self.output_dir / "report.html"
        text = self._page(summary or {}, failures, finished)
        with atomic_path(path) as temporary:
            temporary.write_text(text, encoding="utf-8")
        self._written = time.monotonic()
        self._cost = self._written - started
        return path

    def _page(self, summary: Mapping[str, Mapping[str, float]], failures: Sequence[str], finished: bool) -> str:
        script, found = _asset("viewer.js"), dict(versions())
        hidden = self.names.everywhere
        command = " ".join(sys.argv)
        settings = self.names.settings(self.settings) if hidden else self.settings
        reasons = [self.names.text(reason) if hidden else reason for reason in failures]
        warnings = [self.names.text(text) if hidden else text for text in collected_warnings()]
        warnings = [text for text in warnings if text not in reasons]
        n_cases = sum(self._counts.values())
        state = "" if finished else " · still running when this page was written"
        subtitle = f"{n_cases} cases · " if n_cases else ""
        subtitle += f"{time.strftime('%Y-%m-%d %H:%M', time.localtime(self._began))} · seed {self.seed}{state}"
        rows = [{"method": name, **numbers} for name, numbers in summary.items()]
        caption = f"Mean ± standard deviation over {max((r['n_subjects'] for r in rows), default=0):.0f} subjects"
        table = f"<h2>Summary</h2>{blocks.row_table(caption, rows, self.method)}" if rows else ""
        hardware = found.pop("hardware", "unknown")
        run = {"command": "(hidden)" if hidden else command, "hardware": hardware, "seed": self.seed, **found}
        made = blocks.facts("Versions and hardware", run, is_open=True) + blocks.facts("All settings", settings)
        problems = blocks.messages("failures", f"{len(reasons)} failed", reasons)
        problems += blocks.messages("warnings", "Warnings", warnings)
        cases = self._cases() if n_cases else self._curves
        return Template(_asset("page.html")).substitute(
            title=escape(self.title), subtitle=escape(subtitle), notice=escape(self._notice()), problems=problems,
            summary=table, cases=cases, made=made, style=_asset("style.css"), script=script,
            script_hash=base64.b64encode(hashlib.sha256(script.encode()).digest()).decode(),
        )  # fmt: skip

    def _notice(self) -> str:
        if not sum(self._counts.values()):
            return "No claim of diagnostic quality."
        privacy = "Names are neutral ones. " if self.names.everywhere else "It names cases and files. "
        return f"The pictures show persons. {privacy}No claim of diagnostic quality."

    def _cases(self) -> str:
        counts = self._counts
        notes = []
        if counts["thumbnail"] + counts["row"] + counts["none"]:
            notes.append(
                f"To keep this page small, {counts['full']} cases have window controls, {counts['thumbnail']} small still "
                f"pictures, {counts['row']} numbers only and {counts['none']} are left out; metrics.csv and the folders "
                "of the cases have all."
            )
        note = "".join(f'<p class="banner">{escape(text)}</p>' for text in notes)
        return (
            '<h2>Cases</h2><p class="controls toolbar"><label for="size">picture size <input type="range" id="size" '
            'min="128" max="640" step="32" value="256"></label><span class="soft">The pointer shows the value under '
            "it in every picture of a row.</span></p>"
            '<noscript><p class="banner">Window controls need scripts; the pictures below are still.</p></noscript>'
            '<p class="banner" id="old" hidden>Window controls need a browser of 2023 or later; the pictures are still.</p>'
            + note + "".join(self._fragments)
        )  # fmt: skip

    def _numbers(
        self,
        name: str,
        rows: Sequence[Mapping[str, Any]],
        history: Sequence[Mapping[str, float]],
        info: Mapping[str, Any],
    ) -> str:
        steps = [float(entry["iteration"]) for entry in history]
        keys = [key for key in ("loss", "held_out") if history and all(key in entry for entry in history)]
        chart = curve(f"Convergence of {name}", steps, {key: [float(e[key]) for e in history] for key in keys})
        notes = []
        for entry in history:
            if "fallback" in entry:
                kept = "the classical image is shown" if entry["fallback"] else "the learned image is kept"
                notes.append(
                    f"Guard: error on withheld samples {entry['held_out']:.3g} (learned) and "
                    f"{entry['held_out_classical']:.3g} (classical): {kept}."
                )
        text = "".join(f"<p>{escape(note)}</p>" for note in notes)
        table = blocks.row_table("Numbers of this case", rows, self.method)
        return f'<div class="numbers">{table}{chart}<div>{text}{blocks.facts("How it was read and made", info)}</div></div>'


@cache
def _asset(name: str) -> str:
    return (Path(__file__).parent / name).read_text(encoding="utf-8")


def _pictures(
    number: int,
    name: str,
    panels: Mapping[str, NDArray],
    reference: NDArray | None,
    affine: NDArray | None,
    window: tuple[float, float] | None,
    units: str,
    small: bool,
) -> tuple[str, str]:
    """Attributes of the row, and its controls and figures."""
    images = {title: upright(np.asarray(image, dtype=np.float32), affine) for title, image in panels.items()}
    result = list(images)[-1]
    if reference is not None:
        images["reference"] = upright(np.asarray(reference, dtype=np.float32), affine)
    is_volume = images[result].ndim == 3
    full_shape = images[result].shape
    images = {
        title: smaller(image, _LONGEST_VOLUME_SIDE if is_volume else _LONGEST_SIDE) for title, image in images.items()
    }
    judge = images.get("reference", images[result])
    low, high = (float(f(judge)) for f in (np.min, np.max))
    low, high = min(low, float(images[result].min())), max(high, float(images[result].max()))
    high = high if high > low else low + 1.0
    if window is None:
        top = max(float(np.percentile(judge, 99.9)), low + 1e-3 * (high - low))
        window = (low + top) / 2, top - low
    level, width = window
    low, high = min(low, level - width / 2), max(high, level + width / 2)

    figures = []
    note = f"shown at {images[result].shape} of {full_shape} voxels" if images[result].shape != full_shape else ""
    for title, image in images.items():
        role = "result" if title == result else "reference" if title == "reference" else "image"
        still = _still(image, small)
        alt = f"{title} of {name}" + (", middle slice" if is_volume else "")
        data = "" if small else pack(image, low, high)
        figures.append(blocks.figure(title, note if title == result else "", alt, png(windowed(still, level, width)), role, still.shape, data))  # fmt: skip
    if reference is not None:
        still = _still(np.abs(images[result] - images["reference"]), small)
        alt = f"absolute error of {result} of {name}, white at a fifth of the window"
        figures.append(blocks.figure("error × 5", "", alt, png(hot(5 * still / width)), "error", still.shape))
    row = f'<div class="panels{" thumbnails" if small else ""}">{"".join(figures)}</div>'
    if small:
        return "", row
    shape = images[result].shape if is_volume else (1, *images[result].shape)
    sizes = [n * s for n, s in zip(full_shape, spacing_of(affine, len(full_shape)), strict=True)]
    extent = sizes if is_volume else [1.0, *sizes]
    attributes = (
        f' data-low="{low:.9g}" data-high="{high:.9g}" data-level="{level:.9g}" data-width="{width:.9g}" '
        f'data-shape="{",".join(map(str, shape))}" data-extent="{",".join(f"{v:.6g}" for v in extent)}" '
        f'data-units="{escape(units)}"'
    )
    return attributes, blocks.controls(number, low, high, window, units, is_volume) + row


def _still(image: NDArray, small: bool) -> NDArray:
    plane = image[image.shape[0] // 2] if image.ndim == 3 else image
    return smaller(plane, _THUMBNAIL) if small else plane
