"""What could be wrong with a result although nothing failed: a warning, and a mark in table and report."""

from disinr_monai.self_check.check import SelfCheck
from disinr_monai.self_check.residual import Residual, measure_residual

__all__ = ["Residual", "SelfCheck", "measure_residual"]
