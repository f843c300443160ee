"""Small real problems shared by the tests: an asymmetric image, multi-coil MRI of it, a tiny network."""

import math
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
import torch

from disinr_monai.data.case import make_case
from disinr_monai.networks import DisINR, HashGridEncoder, MetaINR, NaiveINR, Strainer
from disinr_monai.operators import FanBeam, FanGeometry, MultiCoilFourier, ParallelGeometry, PETProjection
from disinr_monai.operators.count_model import EmissionCounts, TransmissionCounts
from disinr_monai.scan import Scan

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
    scan = Scan(operator, clean + noise * (clean != 0))
    listed = {"name": f"blob-{index}", "subject": f"blob-{index}", "index": index, "path": "blob"}
    affine = np.diag([-1.5, 2.0, 3.0, 1.0])
    return make_case(listed, scan, modality="mri", affine=affine, info={}, output_scale=100.0, reference=image[None])


def ct_case(n_views: int = 24, seed: int = 0, size: int = 32) -> dict[str, Any]:
    """Fan-beam line integrals of the blob with the noise of some thousand photons and their statistical weights."""
    operator = FanBeam(
        FanGeometry(
            image_shape=(size, size),
            pixel_spacing=2.0,
            angles=np.arange(n_views) * 2 * math.pi / n_views,
            n_detectors=80,
            detector_spacing=3.0,
            source_distance=100.0,
            detector_distance=100.0,
        )
    )
    image = blob(size, size, shift=0.1 * seed)[None]
    clean = operator(image)
    counts = 1e3 * torch.exp(-0.024 * clean)
    noise = torch.randn(clean.shape, generator=torch.Generator().manual_seed(seed)) / counts.sqrt() / 0.024
    scan = Scan(operator, clean + noise, counts / counts.mean())
    listed = {"name": f"disk-{seed}", "subject": f"disk-{seed}", "index": seed, "path": "disk"}
    return make_case(listed, scan, modality="ct", affine=np.eye(4), info={}, reference=image)


def pet_case(seed: int = 0, counts: float = 3e5) -> dict[str, Any]:
    """Emission counts of the blob, a third of them background."""
    trues = _pet_operator(1.0)(blob(32, 32)[None])
    scale = counts * 2 / 3 / float(trues.sum())
    background = torch.full(trues.shape, counts / 3 / trues.numel())
    measured = torch.poisson(scale * trues + background, generator=torch.Generator().manual_seed(seed))
    return _pet_case(Scan(_pet_operator(scale), measured, counts=EmissionCounts(background)))


def transmission_case(seed: int = 0, blank: float = 1e3) -> dict[str, Any]:
    """Transmission counts of the blob."""
    operator = _pet_operator(0.0096)
    model = TransmissionCounts(torch.full(operator.range_shape, blank))
    counts = torch.poisson(model.expected(operator(blob(32, 32)[None])), generator=torch.Generator().manual_seed(seed))
    return _pet_case(Scan(operator, counts, counts=model))


def _pet_operator(sensitivity: float) -> PETProjection:
    angles = np.arange(48) * math.pi / 48
    lines = ParallelGeometry(
        image_shape=(32, 32), pixel_spacing=4.0, angles=angles, n_detectors=48, detector_spacing=4.0
    )
    return PETProjection(lines, sensitivity=sensitivity)


def _pet_case(scan: Scan) -> dict[str, Any]:
    listed = {"name": "pet", "subject": "pet", "path": "pet"}
    return make_case(listed, scan, modality="pet", affine=np.eye(4), info={})


def changed(case: dict[str, Any], **parts: Any) -> dict[str, Any]:
    """The case with other parts of its scan."""
    return {**case, "scan": replace(case["scan"], **parts)}
