"""Reconstruction methods to compare with; each is called like the adaptation of an INR."""

from disinr_monai.methods.cg_sense import ConjugateGradient
from disinr_monai.methods.direct import DirectInverse
from disinr_monai.methods.imjense import JointAdaptation
from disinr_monai.methods.l1_wavelet import L1Wavelet
from disinr_monai.methods.mlem import MLEM
from disinr_monai.methods.sirt import SIRT
from disinr_monai.methods.total_variation import TotalVariation
from disinr_monai.methods.transmission import SeparableSurrogates

__all__ = [
    "MLEM",
    "SIRT",
    "ConjugateGradient",
    "DirectInverse",
    "JointAdaptation",
    "L1Wavelet",
    "SeparableSurrogates",
    "TotalVariation",
]
