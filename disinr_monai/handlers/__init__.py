"""Ignite handlers: freezing, checkpoints, tracking, results."""

from disinr_monai.handlers.average_gradients import AverageSharedGradients
from disinr_monai.handlers.average_weights import AverageWeights
from disinr_monai.handlers.clip_gradients import ClipGradients
from disinr_monai.handlers.freeze import FreezeShared
from disinr_monai.handlers.loss_report import LossReport
from disinr_monai.handlers.progress import Progress
from disinr_monai.handlers.resume import ResumeCheckpoint
from disinr_monai.handlers.save_cases import SaveCases
from disinr_monai.handlers.save_shared import SaveShared
from disinr_monai.handlers.set_epoch import SetEpoch
from disinr_monai.handlers.tracking import Tracking
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
    "SetEpoch",
    "Tracking",
    "WatchLoss",
]
