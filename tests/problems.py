"""Small real problems shared by the tests: an asymmetric image, multi-coil MRI of it, a tiny network."""

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np
import torch

from disinr_monai.grid import voxel_centres
from disinr_monai.networks import DisINR, HashGridEncoder, MetaINR, NaiveINR, Strainer
from disinr_monai.operators import MultiCoilFourier

ENCODER = partial(HashGridEncoder, in_dim=2, out_dim=16, hidden_dim=16, n_levels=6, log2_hashmap_size=10)


def small_network(n_subjects: int = 1, seed: int = 0, out_channels: int = 2) -> DisINR:
    return DisINR(ENCODER, out_channels, hidden_dim=16, n_subjects=n_subjects, seed=seed)


def small_naive(out_channels: int = 2) -> NaiveINR:
    return NaiveINR(ENCODER, out_channels)


def small_strainer(n_subjects: int = 1, seed: int = 0, freeze_depth: int | str = 0) -> Strainer:
    return Strainer(ENCODER, 2, hidden_dim=16, n_subjects=n_subjects, freeze_depth=freeze_depth, seed=seed)


def small_meta(seed: int = 0) -> MetaINR:
    return MetaINR(ENCODER, 2, seed=seed)


def blob(height: int = 24, width: int = 20, shift: float = 0.0) -> torch.Tensor:
    """A bright ellipse with a dark hole, off centre: no flip or turn maps it onto itself."""
    rows = torch.linspace(-1, 1, height)[:, None]
    columns = torch.linspace(-1, 1, width)[None]
    body = ((rows / 0.8) ** 2 + ((columns - 0.1 - shift) / 0.6) ** 2 < 1).float()
    hole = (((rows - 0.3) / 0.2) ** 2 + ((columns + 0.1) / 0.2) ** 2 < 1).float()
    return body - 0.6 * hole


def mri_case(shift: float = 0.0, seed: int = 0, index: int = 0, acceleration: int = 2) -> dict[str, Any]:
    """Two coils, every second line and a full centre, a little noise."""
    generator = torch.Generator().manual_seed(seed)
    image = blob(shift=shift)
    height, width = image.shape
    ramp = torch.linspace(0.3, 1, width).expand(height, width)
    maps = torch.stack((ramp, ramp.flip(1))) * torch.exp(1j * torch.tensor([0.3, -0.9]))[:, None, None]
    maps = maps / torch.linalg.vector_norm(maps, dim=0)
    mask = torch.zeros(width)
    mask[::acceleration] = 1
    mask[width // 2 - 3 : width // 2 + 3] = 1
    operator = MultiCoilFourier(maps.to(torch.complex64), mask)
    clean = operator(torch.stack((image, torch.zeros_like(image))))
    noise = torch.view_as_complex(torch.randn(*clean.shape, 2, generator=generator)) * 1e-3
    return {
        "name": f"blob-{index}",
        "subject": f"blob-{index}",
        "index": index,
        "modality": "mri",
        "operator": operator,
        "measurement": clean + noise * (clean != 0),
        "points": voxel_centres((height, width)),
        "image_scale": 1.0,
        "output_scale": 100.0,
        "reference": image[None],
        "affine": torch.from_numpy(np.diag([-1.5, 2.0, 3.0, 1.0])),
        "info": {},
    }
