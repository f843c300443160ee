from __future__ import annotations

import logging
from typing import Any

import torch

from disinr_monai.errors import InputError
from disinr_monai.runtime.overrides import as_bool


def bfloat16_pays(device: torch.device | str) -> bool:
    """Tell whether a device multiplies matrices faster in bfloat16 than in float32.

    GPUs do from compute capability 8.0 on. Processors do with tile units (AMX); those without were slower, measured for
    the field and its gradient at 128²: 0.8 times the speed with AVX-512's bfloat16, 0.4 without, 0.1 with AVX2 alone.
    """
    device = torch.device(device)
    if device.type == "cuda":
        return torch.cuda.get_device_capability(device)[0] >= 8
    # PyTorch has no public function for it.
    has_tiles = getattr(torch.cpu, "_is_amx_tile_supported", None)
    return device.type == "cpu" and has_tiles is not None and bool(has_tiles())


logger = logging.getLogger(__name__)


def as_amp(value: Any, device: torch.device | str) -> bool:
    """Decide whether networks run in bfloat16: as configured, or by default (null) where that is faster.

    The default is logged, because results differ by rounding.

    Raises:
        InputError: neither true, false nor null.
    """
    if value is not None:
        return as_bool(value)
    pays = bfloat16_pays(device)
    logger.info("amp: hidden layers in %s, which is faster on this %s", "bfloat16" if pays else "float32", device)
    return pays


def check_device(device: Any) -> torch.device:
    """Check that a device exists, and return it.

    Raises:
        InputError: unknown or absent.
    """
    try:
        device = torch.device(device)
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError, TypeError) as error:
        reason = str(error).splitlines()[0]
        raise InputError(f"device: {device!r} cannot be used here ({reason}); try cpu") from None
    return device
