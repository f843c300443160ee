"""A run of the evaluator over cases in memory."""

from __future__ import annotations

import csv
import logging

import torch
from monai.engines import SupervisedEvaluator
from torch.utils.data import DataLoader

from disinr_monai.fitting.prepare_batch import collate_cases, prepare_case
from disinr_monai.handlers import SaveCases
from disinr_monai.output.report import Report
from disinr_monai.runtime.run import RUN


def evaluated(folder, cases, inferer, modality, caplog, network=None) -> tuple[list[dict], str, list[str]]:
    """Rows of metrics.csv, the report and the warnings of a run over cases."""
    RUN.begin({})
    caplog.clear()
    report = Report(folder, "Title")
    with caplog.at_level(logging.WARNING, logger="disinr_monai"):
        SupervisedEvaluator(
            device="cpu",
            val_data_loader=DataLoader(cases, batch_size=1, collate_fn=collate_cases),
            network=network or torch.nn.Identity(),
            inferer=inferer,
            prepare_batch=prepare_case,
            val_handlers=[SaveCases(folder, inferer, modality, report=report)],
            decollate=False,
        ).run()
    with (folder / "metrics.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    return rows, (folder / "report.html").read_text(), [record.getMessage() for record in caplog.records]
