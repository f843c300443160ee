"""Learned image prior: features of a scan, training without clean images, reconstruction."""

from disinr_monai.prior.data_consistency import data_consistency
from disinr_monai.prior.domain import characterise, include, outside
from disinr_monai.prior.learned_prior import LearnedPrior, PriorInputs
from disinr_monai.prior.reconstruction import LearnedReconstruction
from disinr_monai.prior.splits import PickSplit, SplitScan, VariedAcquisition
from disinr_monai.prior.training import HeldOutLoss, PriorInferer, cosine_schedule, prepare_prior_batch, prior_of

__all__ = [
    "HeldOutLoss",
    "LearnedPrior",
    "LearnedReconstruction",
    "PickSplit",
    "PriorInferer",
    "PriorInputs",
    "SplitScan",
    "VariedAcquisition",
    "characterise",
    "cosine_schedule",
    "data_consistency",
    "include",
    "outside",
    "prepare_prior_batch",
    "prior_of",
]
