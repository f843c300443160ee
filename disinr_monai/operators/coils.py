"""Images seen by receive coils, with one or several sets of sensitivity maps."""

from __future__ import annotations

import torch
from torch import Tensor


def check_maps(name: str, maps: Tensor) -> tuple[int, int, int, int]:
    """Sizes ``(n_sets, n_coils, H, W)`` of coil maps, ``(n_coils, H, W)`` or with the sets in front.

    Raises:
        ValueError: another rank, or real-valued.
    """
    if maps.ndim not in (3, 4) or not maps.is_complex():
        raise ValueError(
            f"{name}: coil_sensitivity_maps must be complex with shape (n_coils, H, W) or (n_sets, n_coils, H, W), "
            f"found {maps.dtype} {tuple(maps.shape)}"
        )
    return (1, *maps.shape) if maps.ndim == 3 else tuple(maps.shape)


def to_complex(image: Tensor) -> Tensor:
    """Real channels ``(..., 2 n_sets, H, W)`` as complex images ``(..., n_sets, H, W)``."""
    return torch.complex(image[..., 0::2, :, :], image[..., 1::2, :, :])


def to_channels(image: Tensor) -> Tensor:
    """Inverse of :func:`to_complex`."""
    return torch.stack((image.real, image.imag), dim=-3).flatten(-4, -3)


def coil_images(image: Tensor, maps: Tensor) -> Tensor:
    r"""Weigh images ``(..., n_sets, H, W)`` by the coils, :math:`\sum_j s_{jc} x_j`: ``(..., n_coils, H, W)``."""
    return maps * image if maps.ndim == 3 else (maps * image.unsqueeze(-3)).sum(-4)


def combine_coils(coils: Tensor, maps: Tensor) -> Tensor:
    """Adjoint of :func:`coil_images`."""
    if maps.ndim == 3:
        return (maps.conj() * coils).sum(-3, keepdim=True)
    return (maps.conj() * coils.unsqueeze(-4)).sum(-3)


def visible(image: Tensor, maps: Tensor) -> Tensor:
    """Channels ``(..., 2 n_sets, H, W)`` set to 0 where the maps of their set are 0; unchanged with one set."""
    if maps.ndim == 3:
        return image
    return image * (maps != 0).any(1).repeat_interleave(2, dim=0)


def phase_of(image: Tensor) -> Tensor:
    """Phase of channels ``(2 n_sets, H, W)``, complex ``(n_sets, H, W)`` of size 1; of one set ``(H, W)``."""
    angle = to_complex(image).angle()
    phase = torch.polar(torch.ones_like(angle), angle)
    return phase[0] if len(phase) == 1 else phase
