"""Reconstruction methods to compare with; each is called like the adaptation of an INR."""

from disinr_monai.methods.classical import SIRT, ConjugateGradient, DirectInverse
from disinr_monai.methods.l1_wavelet import L1Wavelet
from disinr_monai.methods.poisson import MLEM, SeparableSurrogates
from disinr_monai.methods.total_variation import TotalVariation

__all__ = ["MLEM", "SIRT", "ConjugateGradient", "DirectInverse", "L1Wavelet", "SeparableSurrogates", "TotalVariation"]
