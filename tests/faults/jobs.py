"""What the fault tests run in processes of their own: real pre-training and real saving, on tiny scans."""

from __future__ import annotations

from pathlib import Path

import torch


def pretrain(folder: str, resume: bool, max_epochs: int) -> None:
    """Pre-train three subjects, with a checkpoint after each epoch and ``model.pt`` at the end."""
    from disinr_monai.handlers import SaveShared
    from tests.handlers.test_resume import make_trainer

    torch.set_num_threads(1)
    trainer, network, _ = make_trainer(folder, max_epochs, resume=resume)
    SaveShared(folder, network, "mri").attach(trainer)
    trainer.run()


def reconstruct(folder: str, n_cases: int) -> None:
    """Adapt to ``n_cases`` scans one after the other and write NIfTI, picture and table of each."""
    from monai.engines import SupervisedEvaluator
    from torch.utils.data import DataLoader

    from disinr_monai.fitting.adaptation import AdaptationInferer
    from disinr_monai.fitting.losses import MeasurementLoss
    from disinr_monai.fitting.prepare_batch import collate_cases, prepare_case
    from disinr_monai.handlers import SaveCases
    from tests.problems import mri_case, small_network

    torch.set_num_threads(1)
    cases = [mri_case(shift=0.02 * i, seed=i) | {"name": f"scan-{i}", "subject": f"scan-{i}"} for i in range(n_cases)]
    inferer = AdaptationInferer(MeasurementLoss(), n_iterations=3, quiet=True)
    Path(folder).mkdir(parents=True, exist_ok=True)
    SupervisedEvaluator(
        device="cpu",
        val_data_loader=DataLoader(cases, batch_size=1, collate_fn=collate_cases),
        network=small_network(),
        inferer=inferer,
        prepare_batch=prepare_case,
        val_handlers=[SaveCases(folder, inferer, "mri")],
        decollate=False,
    ).run()
