from __future__ import annotations

import logging
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from ignite.engine import Engine, Events
from monai.utils import CommonKeys
from torch import Tensor

from disinr_monai.errors import InputError
from disinr_monai.fitting.case_inferer import CaseInferer
from disinr_monai.fitting.self_check import SelfCheck
from disinr_monai.grid import output_grid
from disinr_monai.handlers.compare import compare, table_row
from disinr_monai.modality import facts_of
from disinr_monai.output.dicom import DicomWriter
from disinr_monai.output.metrics import to_display
from disinr_monai.output.report import Report
from disinr_monai.output.tables import summarise, summary_table, write_metrics
from disinr_monai.output.write_case import CaseWriter, view_affine
from disinr_monai.runtime.distributed import gather_on_first, rank, world_size
from disinr_monai.runtime.files import prepare_output_dir
from disinr_monai.runtime.memory import tell_if_full
from disinr_monai.runtime.names import Names

logger = logging.getLogger(__name__)


class SaveCases:
    """Write files, picture and metrics of every case, and a report of all.

    In ``output_dir``: ``NAME/NAME_recon.nii.gz`` (float32, the source's affine; HU for CT, magnitude for MRI),
    ``NAME/NAME_recon.png`` (direct inverse | methods | reference | error), ``metrics.csv`` (one row a case and
    method; ``classical_share`` of the guard; ``warnings`` of the self-check,
    :class:`~disinr_monai.fitting.self_check.SelfCheck`) and ``report.html``. A case that failed leaves no
    folder and is reported at the end, after all others have been written.

    With many processes each writes its own cases and a table ``metrics_rankN.csv``. At the end the first one joins the
    tables to ``metrics.csv``, in the order of the cases, and reports all failures; ``rows``, ``pictures`` and
    ``failures`` are then those of all processes.

    Args:
        output_dir: folder of the results.
        inferer: the method that the evaluator runs.
        modality: of the images, for their display and units.
        method: its name in the tables.
        baselines: methods by name to compare with (:func:`~disinr_monai.handlers.compare.compare`).
        save_complex: also write the complex MRI image, ``NAME_recon_complex.nii.gz``.
        save_numpy: also write ``NAME_recon.npy``.
        dicom: also write ``NAME/dicom/*.dcm`` (:class:`disinr_monai.output.dicom.DicomWriter`).
        names: neutral names; where they are wanted everywhere, DICOM output names no patient either.
        report: the page to fill, if one is wanted.
        output_spacing: voxel size of what is saved in mm, one number or one an axis (a slice: in its plane); the
            source's by default. A fitted field is evaluated there, an image on its grid is interpolated
            (:meth:`~disinr_monai.fitting.case_inferer.CaseInferer.at`); picture and metrics stay on the source's grid.

    Raises:
        InputError: after the run, if any case failed; the message lists them.
    """

    def __init__(
        self,
        output_dir: str,
        inferer: CaseInferer,
        modality: str,
        method: str = "disinr",
        baselines: Mapping[str, CaseInferer] | None = None,
        save_complex: bool = False,
        save_numpy: bool = False,
        dicom: bool = False,
        names: Names | None = None,
        report: Report | None = None,
        output_spacing: float | Sequence[float] | None = None,
    ) -> None:
        self.output_dir, self.inferer, self.modality, self.method = Path(output_dir), inferer, modality, method
        self.report, self.output_spacing = report, output_spacing
        if output_spacing is not None:
            output_grid((1, 1, 1), np.eye(4), output_spacing)  # a wrong value is refused before anything is fitted
        self._facts = facts_of(modality)
        writer = DicomWriter(self._facts.dicom, method, anonymize=names is not None and names.everywhere)
        dicom_writer = writer if dicom else None
        self._files = CaseWriter(self.output_dir, self._facts, save_complex, save_numpy, dicom_writer, method)
        self.rows: list[dict[str, Any]] = []
        self.pictures: list[Path] = []
        self.failures: list[str] = []
        self._added: list[tuple[int, str, Any]] = []  # number of the case, list, item
        self._check, self._baselines = SelfCheck(), baselines or {}
        self._started, self._case = 0.0, 0

    def attach(self, engine: Engine) -> None:
        """Write after every case, and the table at the end."""
        engine.add_event_handler(Events.STARTED, self._start)
        engine.add_event_handler(Events.ITERATION_STARTED, self._start_case)
        engine.add_event_handler(Events.ITERATION_COMPLETED, self._save_case)
        engine.add_event_handler(Events.COMPLETED, self._finish)

    def _start(self, engine: Engine) -> None:
        prepare_output_dir(self.output_dir)
        self.rows, self.pictures, self.failures = [], [], []
        self._added = []
        self._check.start()
        if self.report is not None:
            self.report.start()

    def _start_case(self, engine: Engine) -> None:
        self._started = time.perf_counter()
        self._case = (engine.state.iteration - 1) * world_size() + rank()

    def _save_case(self, engine: Engine) -> None:
        seconds = time.perf_counter() - self._started
        case = engine.state.batch[0]
        prediction = engine.state.output[CommonKeys.PRED]
        if prediction is None:
            self._fail(self.inferer.error)
            return
        with tell_if_full(str(case["name"]), self._fail):
            self._save(case, torch.as_tensor(prediction)[0].detach(), seconds)

    def _save(self, case: dict[str, Any], image: Tensor, seconds: float) -> None:
        info = case["info"]
        logger.info("%s (%s): %s", case["name"], info.get("source", "-"), info.get("read_as", "-"))
        rows = [table_row(case, self.method, image, seconds, self.inferer, self.modality)]
        warnings = self._check(case, self.inferer)
        rows[0] |= {"warnings": "; ".join(warnings)} if warnings else {}
        history = list(self.inferer.history)
        images: dict[str, Tensor] = {}
        for other in compare(case, self._baselines, self.modality):
            if other.image is None:
                self._fail(f"{other.name}: {other.error}")
                continue
            images[other.name] = other.image
            rows += [] if other.row is None else [other.row]
        images[self.method] = image
        titles = {row["method"]: _title(row) for row in rows}
        images = {titles.get(name, name): panel for name, panel in images.items()}
        panels = {title: to_display(panel, self.modality, case["image_scale"]) for title, panel in images.items()}
        try:
            picture = self._files.write(case, *self._output(case, image), panels)
        except InputError as error:
            self._fail(str(error))
            return
        for row in rows:
            self._add("rows", row)
        self._add("pictures", picture)
        write_metrics(self._own_table(), self.rows)
        if self.report is not None:
            is_hu = case.get("units", self._facts.units) == "HU"
            self.report.add_case(
                rows,
                {title: self._files.physical(case, image) for title, image in images.items()},
                reference=self._files.reference(case),
                affine=view_affine(case),
                units="HU" if is_hu else "",
                history=history,
                info=info,
                warnings=warnings,
            )
            self.report.write_now_and_then(summary=summarise(self.rows), failures=self.failures)

    def _output(self, case: dict[str, Any], image: Tensor) -> tuple[Tensor, np.ndarray]:
        """Image and affine that are saved: at ``output_spacing``, if it is given."""
        affine = np.asarray(case["affine"], dtype=float)
        if self.output_spacing is None:
            return image, affine
        points, affine = output_grid(image.shape[1:], affine, self.output_spacing)
        return self.inferer.at(points.to(image.device), image), affine

    def _fail(self, reason: str) -> None:
        logger.error(reason)
        self._add("failures", reason)

    def _add(self, name: str, item: Any) -> None:
        getattr(self, name).append(item)
        self._added.append((self._case, name, item))

    def _own_table(self) -> Path:
        return self.output_dir / ("metrics.csv" if world_size() == 1 else f"metrics_rank{rank()}.csv")

    def _join(self) -> None:
        """Gather the results of all processes on the first one, in the order of the cases."""
        parts = gather_on_first(self._added)
        if parts is not None:
            self.rows, self.pictures, self.failures = [], [], []
            for _, name, item in sorted((item for part in parts for item in part), key=lambda item: item[0]):
                getattr(self, name).append(item)

    def _finish(self, engine: Engine) -> None:
        if world_size() > 1:
            self._join()
            if rank() > 0:
                return
            if self.rows:
                write_metrics(self.output_dir / "metrics.csv", self.rows)
            for table in self.output_dir.glob("metrics_rank*.csv"):
                table.unlink()
        if self.rows:
            logger.info("results in %s\n%s", self.output_dir, summary_table(self.rows))
        if self.report is not None:
            try:
                page = self.report.write(summary=summarise(self.rows), failures=self.failures)
                logger.info("report: %s", page)
            except OSError as error:
                self._fail(f"output_dir: cannot write {self.output_dir / 'report.html'} ({error.strerror or error})")
        if self.failures:
            done = len({row["case"] for row in self.rows})
            raise InputError(
                f"{len(self.failures)} of {done + len(self.failures)} scans failed: " + " | ".join(self.failures)
            )


def _title(row: dict[str, Any]) -> str:
    title = f"{row['method']} {row['psnr']:.1f} dB" if "psnr" in row else row["method"]
    share = row.get("classical_share", 0.0)
    return f"{title} ({100 * share:.0f} % TV)" if share >= 0.005 else title
