from __future__ import annotations

import logging
from abc import abstractmethod
from collections.abc import Mapping
from typing import Any

import torch
from monai.inferers import Inferer
from torch import Tensor, nn

from disinr_monai.errors import InputError
from disinr_monai.fitting.self_check import Residual, measure_residual
from disinr_monai.grid import crop_image, interpolate
from disinr_monai.runtime.memory import is_out_of_memory, out_of_memory

logger = logging.getLogger(__name__)


class CaseInferer(Inferer):
    """Reconstruct the image of one case inside MONAI's evaluator; the base class of every method.

    A case that could not be read, or whose reconstruction fails in a way a user can understand, gives ``None``, and
    ``error`` says why: the other scans of the batch go on, and the handler that writes the results reports it.

    A scan of counts has a count model (:mod:`disinr_monai.operators.count_model`). A method with ``takes_counts`` gets
    the scan as it is; any other gets the measurement that the model has corrected.

    Of a scan with a larger field of view than is wanted (``case["crop"]``) the centre is returned.

    After a call, ``iterations_run`` holds the number of iterations, ``history`` what was recorded, ``residual`` how the
    image fits its measurement, ``warnings`` the texts of :meth:`warn` and ``error`` the reason of a failure.
    """

    takes_counts = False
    fits_data = True  # False for a one-step inverse: its residual says nothing about the scan

    def __init__(self) -> None:
        super().__init__()
        self.iterations_run = 0
        self.history: list[dict[str, float]] = []
        self.residual: Residual | None = None
        self.warnings: list[str] = []
        self.case_name = self.error = ""

    def __call__(
        self, inputs: Tensor | None, network: nn.Module | None = None, *, case: dict[str, Any]
    ) -> Tensor | None:
        """Reconstruct the image ``(1, C, *S)`` at points ``(1, D, *S)``; None on failure, see ``error``."""
        self.iterations_run, self.history, self.case_name = 0, [], str(case["name"])
        self.residual, self.warnings = None, []
        self.error = case.get("error", "")
        if self.error:
            return None
        scan = case["scan"]
        try:
            image = self.reconstruct(inputs, network, case if self.takes_counts else {**case, "scan": scan.corrected()})
            image = scan.operator.visible(image)
            self.residual = measure_residual(scan, image)
        except (InputError, ValueError, RuntimeError, MemoryError) as error:
            is_full = is_out_of_memory(error)
            self.error = str(out_of_memory(error, self.case_name)) if is_full else f"{case['name']}: {error}"
            return None
        if not bool(torch.isfinite(image).all()):
            self.error = f"{case['name']}: the reconstruction is not finite; lower the learning rate or turn amp off"
            return None
        return crop_image(image, case.get("crop")).unsqueeze(0)

    def warn(self, text: str) -> None:
        """Warn of something about the present case, in the log and above its image in the report."""
        self.warnings.append(text)
        logger.warning("%s: %s", self.case_name, text)

    def at(self, points: Tensor, image: Tensor) -> Tensor:
        """The last image ``(C, *S)`` at other points ``(D, *T)``: linear interpolation unless a field can be asked."""
        logger.warning(
            "output_spacing: %s gives an image on its grid, which is interpolated linearly; a field that is fitted to "
            "the scan (overlays disinr_paper, ngp, ...) is evaluated at the new voxels",
            type(self).__name__,
        )
        return interpolate(image, points.to(image.device))

    @abstractmethod
    def reconstruct(self, points: Tensor | None, network: nn.Module | None, case: Mapping[str, Any]) -> Tensor:
        """Reconstruct the image ``(C, *S)`` of ``case["scan"]``; the case holds whatever else is known of it."""
