"""One measured or simulated case from a listed scan, by modality."""

from disinr_monai.data.acquire.ct import AcquireCT
from disinr_monai.data.acquire.mri import AcquireMRI
from disinr_monai.data.acquire.pet import AcquirePET
from disinr_monai.data.acquire.volume import AcquireVolume

__all__ = ["AcquireCT", "AcquireMRI", "AcquirePET", "AcquireVolume"]
