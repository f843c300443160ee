"""From files to cases (``docs/conventions.md``)."""

from disinr_monai.data.acquire_ct import AcquireCT
from disinr_monai.data.acquire_mri import AcquireMRI
from disinr_monai.data.acquire_pet import AcquirePET
from disinr_monai.data.acquire_volume import AcquireVolume
from disinr_monai.data.anonymize import Anonymize
from disinr_monai.data.cases import list_cases
from disinr_monai.data.epoch_sampler import EpochSampler
from disinr_monai.data.guard import Guard
from disinr_monai.data.split import deal_subjects, split_subjects
from disinr_monai.distributed import shard

__all__ = [
    "AcquireCT",
    "AcquireMRI",
    "AcquirePET",
    "AcquireVolume",
    "Anonymize",
    "EpochSampler",
    "Guard",
    "deal_subjects",
    "list_cases",
    "shard",
    "split_subjects",
]
