"""Ignite handlers: freezing, resuming, gradients, divergence, progress, results."""

from disinr_monai.handlers.average_gradients import AverageSharedGradients
from disinr_monai.handlers.average_weights import AverageWeights, ClipGradients
from disinr_monai.handlers.loss_report import LossReport
from disinr_monai.handlers.progress import Progress
from disinr_monai.handlers.resume import ResumeCheckpoint
from disinr_monai.handlers.save_cases import SaveCases
from disinr_monai.handlers.shared_pair import FreezeShared, SaveShared
from disinr_monai.handlers.watch_loss import WatchLoss

__all__ = [
    "AverageSharedGradients",
    "AverageWeights",
    "ClipGradients",
    "FreezeShared",
    "LossReport",
    "Progress",
    "ResumeCheckpoint",
    "SaveCases",
    "SaveShared",
    "WatchLoss",
]
