"""Forward models: geometry and physics, nothing else."""

from disinr_monai.operators.fan_beam import FanBeam
from disinr_monai.operators.fourier import MultiCoilFourier, fft2c, ifft2c
from disinr_monai.operators.identity import Identity
from disinr_monai.operators.linear_operator import LinearOperator
from disinr_monai.operators.non_cartesian import NonCartesianFourier
from disinr_monai.operators.pet import PETProjection

__all__ = [
    "FanBeam",
    "Identity",
    "LinearOperator",
    "MultiCoilFourier",
    "NonCartesianFourier",
    "PETProjection",
    "fft2c",
    "ifft2c",
]
