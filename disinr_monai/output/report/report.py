from __future__ import annotations

import base64
import hashlib
import logging
import sys
import time
from collections.abc import Mapping, Sequence
from functools import cache
from html import escape
from pathlib import Path
from string import Template
from typing import Any

from numpy.typing import NDArray

from disinr_monai.output.report import blocks
from disinr_monai.output.report.charts import curve
from disinr_monai.output.report.figures import pictures_of
from disinr_monai.output.tables import reference_lines
from disinr_monai.runtime.files import atomic_path
from disinr_monai.runtime.names import Names
from disinr_monai.runtime.run import RUN
from disinr_monai.runtime.versions import versions

logger = logging.getLogger(__name__)

# Of pictures with window controls on one page, about 40 cases of 256² in three pictures.
PICTURE_BYTES = 24_000_000
_KEPT_CURVE = 400


class Report:
    """HTML report of a run, ``output_dir/report.html``: one file that loads nothing.

    A case is a row: pictures with window controls, numbers, convergence, notes. When the pictures have used up
    ``PICTURE_BYTES``, further cases are lines of a table with a link to their PNG; the page says so.

    Args:
        output_dir: where the page goes.
        title: heading of the page.
        method: name of the method whose numbers are set in bold.
        settings: flat settings, as :func:`disinr_monai.bundle.hyper_parameters` gives them.
        seed: of the run.
        names: neutral names, used if they are wanted everywhere.
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
        """Start an empty report."""
        self._fragments: list[str] = []
        self._rows: list[Mapping[str, Any]] = []  # of the cases without pictures
        self._n_cases, self._bytes = 0, 0
        self._curves = ""
        self._written, self._cost, self._began = 0.0, 0.0, time.time()

    def add_case(
        self,
        rows: Sequence[Mapping[str, Any]],
        panels: Mapping[str, NDArray],
        *,
        reference: NDArray | None = None,
        affine: NDArray | None = None,
        units: str = "",
        history: Sequence[Mapping[str, float]] = (),
        info: Mapping[str, Any] | None = None,
        warnings: Sequence[str] = (),
    ) -> None:
        """Add a case.

        Args:
            rows: its rows of ``metrics.csv``, with name of case and subject.
            panels: images by title, ``(H, W)`` or ``(X, Y, Z)``, all of one shape; the last is the result.
            reference: reference image in the same units.
            affine: 4x4, RAS mm, for the radiological view; None shows the arrays as they are stored.
            units: of the values; HU start with the window of the metrics.
            history: of the inferer.
            info: how it was read and made.
            warnings: of the self-check; shown above the pictures.
        """
        name, subject = rows[0]["case"], rows[0]["subject"]
        self._n_cases += 1
        if self._bytes < PICTURE_BYTES:
            attributes, pictures = pictures_of(self._n_cases, name, panels, reference, affine, units)
            boxed = blocks.messages("warnings", "Self-check", warnings)
            badge = blocks.BADGE if (info or {}).get("simulated") else ""
            fragment = (
                f'<article aria-labelledby="case{self._n_cases}"{attributes}>'
                f'<h3 id="case{self._n_cases}">{escape(name)} <small class="soft">{escape(subject)}</small>{badge}</h3>'
                f"{boxed}{pictures}{self._numbers(name, rows, history, info or {})}</article>\n"
            )
            self._bytes += len(fragment)
            if self._bytes <= PICTURE_BYTES:
                self._fragments.append(fragment)
                return
        self._rows += rows

    def add_losses(self, steps: Sequence[float], losses: Sequence[float]) -> None:
        """Plot the loss of a pre-training, instead of cases."""
        every = max(1, len(steps) // _KEPT_CURVE)
        chart = curve("Loss of the pre-training", list(steps)[::every], {"loss": list(losses)[::every]})
        self._curves = f"<h2>Loss</h2>{chart}" if chart else ""

    def write_now_and_then(self, **parts: Any) -> None:
        """Write an interim report unless the last one is recent, so that a killed run leaves one, too."""
        if time.monotonic() - self._written <= max(30.0, 20 * self._cost):
            return
        try:
            self.write(**parts, finished=False)
        except OSError as error:
            self._written = time.monotonic()
            logger.warning("report.html could not be written yet (%s)", error.strerror or error)

    def write(
        self,
        summary: Mapping[str, Mapping[str, float]] | None = None,
        failures: Sequence[str] = (),
        finished: bool = True,
    ) -> Path:
        """Write the report, atomically.

        Args:
            summary: mean and standard deviation by method.
            failures: error messages, one a case.
            finished: False says that the run was still going on.

        Raises:
            OSError: it cannot be written.
        """
        started = time.monotonic()
        path = self.output_dir / "report.html"
        with atomic_path(path) as temporary:
            temporary.write_text(self._page(summary or {}, failures, finished), encoding="utf-8")
        self._written = time.monotonic()
        self._cost = self._written - started
        return path

    def _page(self, summary: Mapping[str, Mapping[str, float]], failures: Sequence[str], finished: bool) -> str:
        script, found = _asset("viewer.js"), dict(versions())
        hidden = self.names.everywhere
        neutral = self.names.text if hidden else str
        reasons = [neutral(reason) for reason in failures]
        warnings = [text for text in map(neutral, RUN.warnings()) if text not in reasons]
        state = "" if finished else " · still running when this page was written"
        subtitle = f"{self._n_cases} case{'s' * (self._n_cases > 1)} · " if self._n_cases else ""
        subtitle += f"{time.strftime('%Y-%m-%d %H:%M', time.localtime(self._began))} · seed {self.seed}{state}"
        rows = [{"method": name, **numbers} for name, numbers in summary.items()]
        n_subjects = max((row["n_subjects"] for row in rows), default=0)
        caption = f"Mean ± standard deviation over {n_subjects:.0f} subjects" if n_subjects > 1 else "One subject"
        table = f"<h2>Summary</h2>{blocks.row_table(caption, rows, self.method)}" if rows else ""
        command = "(hidden)" if hidden else " ".join(sys.argv)
        run = {"command": command, "hardware": found.pop("hardware"), "seed": self.seed, **found}
        made = blocks.facts("Versions and hardware", run, is_open=True)
        made += blocks.facts("All settings", self.names.settings(self.settings) if hidden else self.settings)
        problems = blocks.messages("failures", f"{len(reasons)} failed", reasons)
        problems += blocks.messages("warnings", "Warnings", warnings)
        cases = self._cases() if self._n_cases else self._curves
        return Template(_asset("page.html")).substitute(
            title=escape(self.title), subtitle=escape(subtitle), notice=escape(self._notice()), problems=problems,
            summary=table, cases=cases, made=made, style=_asset("style.css"), script=script,
            script_hash=base64.b64encode(hashlib.sha256(script.encode()).digest()).decode(),
        )  # fmt: skip

    def _notice(self) -> str:
        if not self._n_cases:
            return "No claim of diagnostic quality."
        privacy = "Names are neutral ones. " if self.names.everywhere else "It names cases and files. "
        return f"The pictures show persons. {privacy}No claim of diagnostic quality."

    def _cases(self) -> str:
        rest = ""
        if self._rows:
            shown = f"{len(self._fragments)} cases have pictures here"
            text = f"To keep this page small, {shown}; the others are listed below."
            rest = f'<p class="banner">{text}</p>{blocks.row_table("Further cases", self._rows, self.method, True)}'
        return (
            '<h2>Cases</h2><p class="controls toolbar"><label for="size">picture size <input type="range" id="size" '
            'min="128" max="640" step="32" value="256"></label><span class="soft">The pointer shows the value under '
            "it in every picture of a row.</span></p>"
            '<noscript><p class="banner">Window controls need scripts; the pictures are still.</p></noscript>'
            '<p class="banner" id="old" hidden>Window controls need a browser of 2023 or later.</p>'
            + "".join(self._fragments) + rest
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
        notes = [f"<p>{escape(line)}.</p>" for line in reference_lines(rows)]
        for entry in history:
            if "classical_share" in entry:
                note = f"{100 * entry['classical_share']:.0f} % of the image is total variation"
                if "held_out" in entry:
                    note += (
                        f", by the error on withheld samples: {entry['held_out']:.3g} (learned) and "
                        f"{entry['held_out_classical']:.3g} (total variation)"
                    )
                notes.append(f"<p>{note}.</p>")
        table = blocks.row_table("Numbers of this case", rows, self.method)
        made = blocks.facts("How it was read and made", info)
        return f'<div class="numbers">{table}{chart}<div>{"".join(notes)}{made}</div></div>'


@cache
def _asset(name: str) -> str:
    return (Path(__file__).parent / name).read_text(encoding="utf-8")
