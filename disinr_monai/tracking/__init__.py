"""MLflow tracking that survives failures of the server."""

from disinr_monai.tracking.tracking import Tracking

__all__ = ["Tracking"]
