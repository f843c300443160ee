"""Fields fitted to one scan: losses, adaptation, self-check."""

from disinr_monai.fitting.adaptation import AdaptationInferer
from disinr_monai.fitting.joint_coils import JointAdaptation

__all__ = ["AdaptationInferer", "JointAdaptation"]
