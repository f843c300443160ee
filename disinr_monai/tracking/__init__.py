"""MLflow tracking that survives a lost server."""

from disinr_monai.tracking.tracking import Tracking

__all__ = ["Tracking"]
