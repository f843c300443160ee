"""Networks from coordinates to image values; nothing here knows of physics."""

from disinr_monai.networks.disinr import DisINR, NaiveINR
from disinr_monai.networks.encoders import FrequencyEncoder, HashGridEncoder, SirenEncoder
from disinr_monai.networks.hash_grid import HashGrid
from disinr_monai.networks.mlp import MLP
from disinr_monai.networks.refiner import Refiner

__all__ = ["MLP", "DisINR", "FrequencyEncoder", "HashGrid", "HashGridEncoder", "NaiveINR", "Refiner", "SirenEncoder"]
