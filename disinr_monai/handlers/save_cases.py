from __future__ import annotations

import csv
import logging
import resource
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from ignite.engine import Engine, Events
from monai.inferers import Inferer
from monai.utils import CommonKeys
from torch import Tensor

from disinr_monai.data.modalities import facts_of
from disinr_monai.distributed import gather_on_first, rank, world_size
from disinr_monai.errors import InputError
from disinr_monai.files import atomic_path, prepare_output_dir
from disinr_monai.methods import DirectInverse
from disinr_monai.metrics import image_metrics, to_display
from disinr_monai.pictures import save_panels

logger = logging.getLogger(__name__)

COLUMNS = ("case", "subject", "method", "psnr", "ssim", "nrmse", "seconds", "iterations", "peak_memory_mb", "fallback")


class SaveCases:
    """Write what a reconstruction run gives: NIfTI, picture and metrics of every case.

    In ``output_dir``: ``NAME/NAME_recon.nii.gz`` (float32, the source's affine; HU for CT, magnitude for MRI),
    ``NAME/NAME_recon.png`` (direct inverse | methods | reference | error) and ``metrics.csv`` (one row a case and
    method; ``fallback`` 1 where the guard gave a classical image). A case that failed is reported at the end, after all
    others have been written.

    With many processes each writes its own cases and a table ``metrics_rankN.csv``. At the end the first one joins the
    tables to ``metrics.csv``, in the order of the cases, and reports all failures; ``rows``, ``pictures`` and
    ``failures`` are then those of all processes.

    Args:
        output_dir: folder of the results.
        inferer: the method that the evaluator runs (asked for its number of iterations).
        modality: how images are shown and saved.
        method: its name in the tables.
        peers: other methods by name, run on the same operator and measurement where a reference exists, so that their
            numbers stand beside ours.
        save_complex: also write the complex MRI image, ``NAME_recon_complex.nii.gz``.

    Raises:
        InputError: after the run, if any case failed; the message lists them.
    """

    def __init__(
        self,
        output_dir: str,
        inferer: Inferer,
        modality: str,
        method: str = "disinr",
        peers: Mapping[str, Inferer] | None = None,
        save_complex: bool = False,
    ) -> None:
        self.output_dir, self.inferer, self.modality, self.method = Path(output_dir), inferer, modality, method
        self.peers, self.save_complex = dict(peers or {}), save_complex
        self._facts = facts_of(modality)
        self.rows: list[dict[str, Any]] = []
        self.pictures: list[Path] = []
        self.failures: list[str] = []
        self._numbers: dict[str, list[int]] = {}
        self._titles: dict[str, str] = {}
        self._started, self._case = 0.0, 0

    def attach(self, engine: Engine) -> None:
        """Write after every case, and the table at the end."""
        engine.add_event_handler(Events.STARTED, self._start)
        engine.add_event_handler(Events.ITERATION_STARTED, self._start_clock)
        engine.add_event_handler(Events.ITERATION_COMPLETED, self._save_case)
        engine.add_event_handler(Events.COMPLETED, self._finish)

    def _start(self, engine: Engine) -> None:
        prepare_output_dir(self.output_dir)
        self.rows, self.pictures, self.failures = [], [], []
        self._numbers = {"rows": [], "pictures": [], "failures": []}

    def _start_clock(self, engine: Engine) -> None:
        self._started = time.perf_counter()
        self._case = (engine.state.iteration - 1) * world_size() + rank()

    def _save_case(self, engine: Engine) -> None:
        seconds = time.perf_counter() - self._started
        case = engine.state.batch[0]
        prediction = engine.state.output[CommonKeys.PRED]
        if prediction is None:
            self._fail(case["error"])
            return
        image = torch.as_tensor(prediction)[0].detach()
        shown = {self.method: self._add_row(case, self.method, image, seconds, self.inferer)}
        panels = {}
        if "reference" not in case or not any(isinstance(peer, DirectInverse) for peer in self.peers.values()):
            direct = case["operator"].direct_inverse(case["measurement"])
            panels["direct inverse"] = to_display(direct, self.modality, case["image_scale"])
        if "reference" in case:
            for name, peer in self.peers.items():
                started = time.perf_counter()
                other = peer(None, None, case=case)
                if other is None:
                    self._fail(f"{name}: {case.pop('error')}")
                else:
                    panels[name] = self._add_row(case, name, other[0], time.perf_counter() - started, peer)
        self._write(case, image, {**panels, **shown})

    def _fail(self, reason: str) -> None:
        logger.error(reason)
        self._add("failures", reason)

    def _add(self, name: str, item: Any) -> None:
        getattr(self, name).append(item)
        self._numbers[name].append(self._case)

    def _add_row(self, case: dict[str, Any], method: str, image: Tensor, seconds: float, inferer: Inferer) -> Tensor:
        shown = to_display(image, self.modality, case["image_scale"])
        row = {"case": case["name"], "subject": case["subject"], "method": method}
        title = method
        if "reference" in case:
            row |= image_metrics(shown, to_display(case["reference"], self.modality))
            title = f"{method} {row['psnr']:.1f} dB"
        row |= {"seconds": seconds, "iterations": inferer.iterations_run, "peak_memory_mb": _peak_memory_mb()}
        fallbacks = [entry["fallback"] for entry in inferer.history if "fallback" in entry]
        if fallbacks:
            row["fallback"] = max(fallbacks)
        self._add("rows", row)
        if any(fallbacks):
            title += " (guard: classical image)"
        self._titles[method] = title
        return shown

    def _write(self, case: dict[str, Any], image: Tensor, panels: dict[str, Tensor]) -> None:
        name = case["name"]
        folder = prepare_output_dir(self.output_dir / name)
        affine = np.asarray(case["affine"], dtype=float)
        write_nifti(folder / f"{name}_recon.nii.gz", self._physical(case, image), affine)
        if self.save_complex and image.shape[0] == 2:
            scale = case["image_scale"] * case.get("output_scale", 1.0)
            write_nifti(folder / f"{name}_recon_complex.nii.gz", torch.complex(*image.cpu()) * scale, affine)
        reference = case.get("reference")
        picture = folder / f"{name}_recon.png"
        save_panels(
            picture,
            {self._titles.get(title, title): panel for title, panel in panels.items()},
            None if reference is None else to_display(reference, self.modality),
            None if "unknown" in str(case["info"].get("geometry", "")) else affine,
            self._facts.white,
        )
        self._add("pictures", picture)
        write_metrics(self._own_table(), self.rows)

    def _own_table(self) -> Path:
        return self.output_dir / ("metrics.csv" if world_size() == 1 else f"metrics_rank{rank()}.csv")

    def _physical(self, case: dict[str, Any], image: Tensor) -> Tensor:
        return self._facts.physical(image.cpu(), case["image_scale"] * case.get("output_scale", 1.0))

    def _join(self) -> None:
        """Bring what all processes have done to the first one, in the order of the cases."""
        own = {name: list(zip(numbers, getattr(self, name), strict=True)) for name, numbers in self._numbers.items()}
        parts = gather_on_first(own)
        for name in own if parts is not None else ():
            pairs = sorted((pair for part in parts for pair in part[name]), key=lambda pair: pair[0])
            setattr(self, name, [item for _, item in pairs])

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
        if self.failures:
            done = len({row["case"] for row in self.rows})
            raise InputError(
                f"{len(self.failures)} of {done + len(self.failures)} scans failed: " + " | ".join(self.failures)
            )


def _peak_memory_mb() -> float:
    """Most memory this process has used so far (MB): on the GPU if there is one, else resident."""
    if torch.cuda.is_available():
        return torch.cuda.max_memory_allocated() / 1e6
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / (1e6 if sys.platform == "darwin" else 1e3)


def write_nifti(path: Path, image: Tensor, affine: np.ndarray) -> None:
    """Write an image ``(H, W)`` or ``(H, W, D)`` with its affine in mm (float32, or complex64)."""
    import nibabel

    array = np.asarray(image)
    array = array.astype(np.complex64 if np.iscomplexobj(array) else np.float32)
    volume = nibabel.Nifti1Image(array[..., None] if array.ndim == 2 else array, affine)
    volume.header.set_xyzt_units("mm")
    with atomic_path(path) as temporary:
        nibabel.save(volume, temporary)


def write_metrics(path: Path, rows: list[dict[str, Any]]) -> None:
    """Write rows as CSV with the columns of :data:`COLUMNS`; a value that does not exist stays empty."""
    with atomic_path(path) as temporary, temporary.open("w", newline="") as file:
        writer = csv.DictWriter(file, COLUMNS)
        writer.writeheader()
        for row in rows:
            writer.writerow({k: f"{v:.6g}" if isinstance(v, float) else v for k, v in row.items()})


def summarise(rows: list[dict[str, Any]]) -> dict[str, dict[str, float]]:
    """Mean and standard deviation over *subjects* (slices of a subject are averaged first), by method."""
    result: dict[str, dict[str, float]] = {}
    for method in dict.fromkeys(row["method"] for row in rows):
        mine = [row for row in rows if row["method"] == method]
        summary: dict[str, float] = {"n_subjects": len({row["subject"] for row in mine})}
        for key in ("psnr", "ssim", "nrmse", "seconds", "iterations"):
            by_subject: dict[str, list[float]] = {}
            for row in mine:
                if key in row:
                    by_subject.setdefault(row["subject"], []).append(row[key])
            if by_subject:
                means = [float(np.mean(values)) for values in by_subject.values()]
                summary |= {key: float(np.mean(means)), f"{key}_std": float(np.std(means))}
        result[method] = summary
    return result


def summary_table(rows: list[dict[str, Any]]) -> str:
    """The summary as aligned text."""
    lines = [f"{'method':<14}{'subjects':>9}{'PSNR dB':>16}{'SSIM':>16}{'seconds':>10}"]
    for method, s in summarise(rows).items():
        psnr = f"{s['psnr']:.2f} ± {s['psnr_std']:.2f}" if "psnr" in s else "-"
        ssim = f"{s['ssim']:.4f} ± {s['ssim_std']:.4f}" if "ssim" in s else "-"
        lines.append(f"{method:<14}{s['n_subjects']:>9.0f}{psnr:>16}{ssim:>16}{s['seconds']:>10.2f}")
    return "\n".join(lines)
