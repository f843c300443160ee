"""Trainings and reconstructions of small problems by the engines that the configs use."""

import csv
import logging
from pathlib import Path
from typing import Any

import torch
from monai.engines import SupervisedEvaluator, SupervisedTrainer
from monai.handlers import LrScheduleHandler
from torch.utils.data import DataLoader

from disinr_monai.data import EpochSampler
from disinr_monai.fitting.adaptation import AdaptationInferer
from disinr_monai.fitting.losses import MeasurementLoss
from disinr_monai.fitting.prepare_batch import collate_cases, prepare_case, prepare_training_batch
from disinr_monai.handlers import ResumeCheckpoint, SaveCases
from disinr_monai.output.metrics import image_metrics, to_display
from disinr_monai.output.report import Report
from disinr_monai.runtime.run import RUN
from tests.problems import mri_case, small_network

CASES = [mri_case(shift=0.1 * i, seed=i, index=i) for i in range(3)]


def trainer(network, optimizer, cases, max_epochs: int, handlers=(), *, sampler=None, **options) -> SupervisedTrainer:
    """Pre-training on cases in memory."""
    size = 1 if sampler is None else sampler.own_batch_size
    return SupervisedTrainer(
        device="cpu",
        max_epochs=max_epochs,
        train_data_loader=DataLoader(cases, size, sampler=sampler, collate_fn=collate_cases),
        network=network,
        optimizer=optimizer,
        prepare_batch=prepare_training_batch,
        train_handlers=[*handlers],
        decollate=False,
        optim_set_to_none=True,
        **{"loss_function": MeasurementLoss(), **options},
    )


def resumable(folder, max_epochs: int, resume: bool = False, settings: dict | None = None, handlers=()):
    """Pre-training on `CASES` that keeps its state in a folder: trainer, network, optimiser."""
    network = small_network(n_subjects=3)
    optimizer = torch.optim.Adam(network.parameters(), lr=1e-2, fused=True)
    scheduler = torch.optim.lr_scheduler.StepLR(optimizer, 4, gamma=0.5)
    sampler = EpochSampler(CASES, seed=3)
    checkpoint = ResumeCheckpoint(
        str(folder), network, optimizer, scheduler, settings or {"seed": 3}, interval_seconds=0, resume=resume
    )
    steps = LrScheduleHandler(scheduler, print_lr=False, epoch_level=False)
    handlers = [sampler, steps, checkpoint, *handlers]
    return trainer(network, optimizer, CASES, max_epochs, handlers, sampler=sampler), network, optimizer


def evaluator(cases, inferer, handlers, network=None) -> SupervisedEvaluator:
    """Reconstruction of cases in memory."""
    return SupervisedEvaluator(
        device="cpu",
        val_data_loader=DataLoader(cases, batch_size=1, collate_fn=collate_cases),
        network=network or small_network(),
        inferer=inferer,
        prepare_batch=prepare_case,
        val_handlers=[*handlers],
        decollate=False,
    )


def evaluated(folder, cases, inferer, modality, caplog, network=None) -> tuple[list[dict], str, list[str]]:
    """Rows of metrics.csv, the report and the warnings of a run over cases."""
    RUN.begin({})
    caplog.clear()
    results = SaveCases(folder, inferer, modality, report=Report(folder, "Title"))
    with caplog.at_level(logging.WARNING, logger="disinr_monai"):
        evaluator(cases, inferer, [results], network or torch.nn.Identity()).run()
    said = [record.getMessage() for record in caplog.records]
    return rows_of(folder), (folder / "report.html").read_text(), said


def rows_of(folder: Path) -> list[dict[str, str]]:
    """Rows of a run's metrics.csv."""
    with (folder / "metrics.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def adapt(network, case=None, **options) -> tuple[AdaptationInferer, Any]:
    """A fit to one scan: inferer and image."""
    case = case or mri_case()
    options = {"n_iterations": 120, "lr": 1e-2, "amp": False, "quiet": True, **options}
    inferer = AdaptationInferer(MeasurementLoss(), **options)
    return inferer, inferer(case["points"][None], network, case=case)


def psnr(image, case) -> float:
    """PSNR (dB) of an MR image against the reference of its case."""
    return image_metrics(to_display(image[0], "mri", case["image_scale"]), case["reference"])["psnr"]
