"""What the fault tests run in processes of their own: real pre-training and real saving, on tiny scans."""

from pathlib import Path

import torch


def pretrain(folder: str, resume: bool, max_epochs: int) -> None:
    """Pre-train three subjects, with a checkpoint after each epoch and ``model.pt`` at the end."""
    from disinr_monai.handlers import SaveShared
    from tests.engines import resumable

    torch.set_num_threads(1)
    trainer, network, _ = resumable(folder, max_epochs, resume=resume)
    SaveShared(folder, network, "mri").attach(trainer)
    trainer.run()


def reconstruct(folder: str, n_cases: int) -> None:
    """Adapt to ``n_cases`` scans one after the other and write NIfTI, picture and table of each."""
    from disinr_monai.fitting.adaptation import AdaptationInferer
    from disinr_monai.fitting.losses import MeasurementLoss
    from disinr_monai.handlers import SaveCases
    from tests.engines import evaluator
    from tests.problems import mri_case

    torch.set_num_threads(1)
    cases = [mri_case(shift=0.02 * i, seed=i, index=i) for i in range(n_cases)]
    inferer = AdaptationInferer(MeasurementLoss(), n_iterations=3, quiet=True)
    Path(folder).mkdir(parents=True, exist_ok=True)
    evaluator(cases, inferer, [SaveCases(folder, inferer, "mri")]).run()
