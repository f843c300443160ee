"""The learned image prior: what it sees of a scan, how it is trained without clean images."""

from disinr_monai.prior.data_consistency import data_consistency
from disinr_monai.prior.domain import describe, include, outside
from disinr_monai.prior.learned_prior import LearnedPrior, PriorInputs, Scan
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
    "Scan",
    "SplitScan",
    "VariedAcquisition",
    "cosine_schedule",
    "data_consistency",
    "describe",
    "include",
    "outside",
    "prepare_prior_batch",
    "prior_of",
]
