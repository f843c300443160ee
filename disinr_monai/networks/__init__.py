"""Networks from coordinates to image values; without any physics."""

from disinr_monai.networks.disinr import DisINR
from disinr_monai.networks.encoders import FrequencyEncoder, HashGridEncoder, SirenEncoder
from disinr_monai.networks.field import Field
from disinr_monai.networks.hash_grid import HashGrid
from disinr_monai.networks.mlp import MLP
from disinr_monai.networks.other_fields import MetaINR, NaiveINR, Strainer
from disinr_monai.networks.refiner import Refiner

__all__ = [
    "MLP",
    "DisINR",
    "Field",
    "FrequencyEncoder",
    "HashGrid",
    "HashGridEncoder",
    "MetaINR",
    "NaiveINR",
    "Refiner",
    "SirenEncoder",
    "Strainer",
]
