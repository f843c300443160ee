"""Forward models: image to measurement."""

from disinr_monai.operators.composition import PerFrame
from disinr_monai.operators.fourier import MultiCoilFourier, fft2c, ifft2c
from disinr_monai.operators.linear_operator import LinearOperator
from disinr_monai.operators.non_cartesian import NonCartesianFourier
from disinr_monai.operators.samples import Identity, Samples
from disinr_monai.operators.tomography.beams import FanBeam, ParallelBeam
from disinr_monai.operators.tomography.cone_beam import ConeBeam
from disinr_monai.operators.tomography.pet import PETProjection

__all__ = [
    "ConeBeam",
    "FanBeam",
    "Identity",
    "LinearOperator",
    "MultiCoilFourier",
    "NonCartesianFourier",
    "PETProjection",
    "ParallelBeam",
    "PerFrame",
    "Samples",
    "fft2c",
    "ifft2c",
]
