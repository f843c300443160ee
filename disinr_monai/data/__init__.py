"""Cases made from files (``docs/conventions.md``)."""

from disinr_monai.data.acquire import AcquireCT, AcquireMRI, AcquirePET, AcquireVolume
from disinr_monai.data.case import SkipFailed
from disinr_monai.data.cases import list_cases
from disinr_monai.data.epoch_sampler import EpochSampler
from disinr_monai.data.split import deal_subjects, split_subjects

__all__ = [
    "AcquireCT",
    "AcquireMRI",
    "AcquirePET",
    "AcquireVolume",
    "EpochSampler",
    "SkipFailed",
    "deal_subjects",
    "list_cases",
    "split_subjects",
]
