from __future__ import annotations

from abc import abstractmethod
from typing import Any

import torch
from monai.inferers import Inferer
from torch import Tensor, nn

from disinr_monai.crop import crop_image
from disinr_monai.errors import InputError


class CaseInferer(Inferer):
    """From one case (operator, measurement) to its image, inside MONAI's evaluator. Every method is one of these.

    A case that could not be read, or whose reconstruction fails in a way a user can understand, gives ``None`` and
    leaves the reason in ``case["error"]``: the other scans of the batch go on, and the handler that writes the results
    reports it.

    Of a scan with a larger field of view than is wanted (``case["crop"]``) the centre is returned.

    After a call, ``iterations_run`` holds the number of iterations and ``history`` what was recorded.
    """

    def __init__(self) -> None:
        super().__init__()
        self.iterations_run = 0
        self.history: list[dict[str, float]] = []

    def __call__(
        self, inputs: Tensor | None, network: nn.Module | None = None, *, case: dict[str, Any]
    ) -> Tensor | None:
        """Image ``(1, C, *S)`` for points ``(1, D, *S)``, or None where ``case["error"]`` says why."""
        self.iterations_run, self.history = 0, []
        if "error" in case:
            return None
        try:
            image = self.reconstruct(
                inputs, network, operator=case["operator"], measurement=case["measurement"], weights=case.get("weights")
            )
        except (InputError, ValueError, RuntimeError) as error:
            case["error"] = f"{case['name']}: {error}"
            return None
        if not bool(torch.isfinite(image).all()):
            case["error"] = f"{case['name']}: the reconstruction is not finite; lower the learning rate or turn amp off"
            return None
        return crop_image(image, case.get("crop")).unsqueeze(0)

    @abstractmethod
    def reconstruct(
        self,
        points: Tensor | None,
        network: nn.Module | None,
        *,
        operator: nn.Module,
        measurement: Tensor,
        weights: Tensor | None = None,
    ) -> Tensor:
        """Image ``(C, *S)`` from one measurement."""
