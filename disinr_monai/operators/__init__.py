"""Forward models: image to measurement."""

from disinr_monai.operators.cone_beam import ConeBeam
from disinr_monai.operators.fan_beam import FanBeam
from disinr_monai.operators.fourier import MultiCoilFourier, fft2c, ifft2c
from disinr_monai.operators.identity import Identity
from disinr_monai.operators.linear_operator import LinearOperator
from disinr_monai.operators.non_cartesian import NonCartesianFourier
from disinr_monai.operators.parallel_beam import ParallelBeam
from disinr_monai.operators.pet import PETProjection
from disinr_monai.operators.samples import Samples

__all__ = [
    "ConeBeam",
    "FanBeam",
    "Identity",
    "LinearOperator",
    "MultiCoilFourier",
    "NonCartesianFourier",
    "PETProjection",
    "ParallelBeam",
    "Samples",
    "fft2c",
    "ifft2c",
]
