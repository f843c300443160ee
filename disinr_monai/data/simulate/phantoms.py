"""Random ellipse phantoms: the same anatomy in every subject, none twice alike. For demonstrations and tests."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from disinr_monai.errors import InputError

_FIELD_OF_VIEW = {"mri": 240.0, "ct": 400.0, "pet": 500.0, "volume": 400.0}
_Point = tuple[float, ...]


class _Canvas:
    """A picture or block over ``[-1, 1]`` to the right, front and top; later shapes cover earlier ones."""

    def __init__(self, shape: tuple[int, ...], background: float) -> None:
        self.axes = np.meshgrid(*[(2 * np.arange(n) + 1) / n - 1 for n in shape], indexing="ij", sparse=True)
        self.voxel = 2 / max(shape)
        self.image = np.full(shape, background, dtype=np.float64)

    def paint(self, centre: _Point, axes: _Point, value: float, angle=0.0, inside: NDArray | None = None) -> NDArray:
        """Paint one ellipse or ellipsoid, turned by ``angle`` in the plane; return how much of each voxel it covers.

        An infinite semi-axis of ``axes`` makes a cylinder.
        """
        offsets = [x - c for x, c in zip(self.axes, centre, strict=True)]
        x, y = offsets[:2]
        offsets[:2] = x * np.cos(angle) + y * np.sin(angle), y * np.cos(angle) - x * np.sin(angle)
        radius = np.sqrt(sum((u / a) ** 2 for u, a in zip(offsets, axes, strict=True)))
        slope = np.sqrt(sum((u / a**2) ** 2 for u, a in zip(offsets, axes, strict=True))) / np.maximum(radius, 1e-9)
        # Signed distance to the edge in voxels, to first order: one voxel of partial volume.
        cover = np.clip(0.5 - (radius - 1) / np.maximum(slope, 1e-9) / self.voxel, 0, 1)
        cover = cover if inside is None else cover * inside
        self.image += cover * (value - self.image)
        return cover


def _variation(rng: np.random.Generator, usual: float) -> Callable[..., float]:
    def vary(value: float, spread: float = usual) -> float:
        return value * rng.uniform(1 - spread, 1 + spread)

    return vary


def brain_phantom(size: int, rng: np.random.Generator) -> NDArray[np.float32]:
    """Axial brain, T1-like magnitude from 0 to 1, float32 ``(size, size)``; scalp, skull, cortex, ventricles, nuclei.

    Args:
        size: pixels along both sides.
        rng: source of the subject's variation.
    """
    vary = _variation(rng, 0.06)
    canvas = _Canvas((size, size), 0.0)
    x0, y0, turn = rng.normal(0, 0.02), rng.normal(0, 0.02), rng.normal(0, 0.05)
    cos, sin = np.cos(turn), np.sin(turn)
    width, length = vary(0.68), vary(0.85)

    def paint(x: float, y: float, a: float, b: float, value: float, angle: float = 0.0, inside=None) -> NDArray:
        # In units of the head, so that everything inside follows its size and turn.
        px, py = x * width, y * length
        scale = (width + length) / 2
        centre = (x0 + px * cos - py * sin, y0 + px * sin + py * cos)
        return canvas.paint(centre, (a * scale, b * scale), value, turn + angle, inside)

    def shell(fraction: float, value: float) -> NDArray:
        return canvas.paint((x0, y0), (width * fraction, length * fraction), value, turn)

    shell(1.0, vary(0.85))
    shell(0.94, vary(0.12, 0.3))
    shell(0.88, vary(0.22, 0.2))
    grey, white, fluid = vary(0.52), vary(0.78), vary(0.18, 0.2)
    brain = shell(0.84, grey)
    shell(0.76, white)
    for k in range(26):
        # Sulci and gyri: grey and fluid spots along the rim, at places that subjects roughly share.
        t = 2 * np.pi * (k + rng.uniform(-0.25, 0.25)) / 26
        r = rng.uniform(0.70, 0.78)
        paint(r * np.cos(t), r * np.sin(t), vary(0.045, 0.4), vary(0.09, 0.4), grey, t - np.pi / 2, brain)
        paint(0.82 * np.cos(t), 0.82 * np.sin(t), 0.012, vary(0.05, 0.5), fluid, t - np.pi / 2, brain)
    paint(0, 0.45, 0.012, 0.36, fluid, 0, brain)
    paint(0, -0.55, 0.012, 0.26, fluid, 0, brain)
    opening = rng.uniform(0.7, 1.4)
    for side in (-1, 1):
        paint(side * 0.30, 0.02, vary(0.085), vary(0.16), vary(grey, 0.05), side * 0.3)
        paint(side * 0.17, 0.28, vary(0.05) * opening, vary(0.16), fluid, side * -0.35)
        paint(side * 0.22, -0.26, vary(0.045) * opening, vary(0.17), fluid, side * 0.35)
        paint(side * 0.13, -0.02, vary(0.07), vary(0.11), vary(grey, 0.08), side * 0.2)
    paint(0, 0.0, 0.018 * opening, 0.09, fluid)
    for _ in range(rng.integers(3, 8)):
        t, r = rng.uniform(0, 2 * np.pi), rng.uniform(0.25, 0.7)
        radius = rng.uniform(0.012, 0.05)
        paint(r * np.cos(t), r * np.sin(t), radius, vary(radius, 0.4), rng.uniform(0.2, 1.0), 0.0, brain)
    return np.clip(canvas.image, 0, 1).astype(np.float32)


def thorax_phantom(size: int, rng: np.random.Generator) -> NDArray[np.float32]:
    """Axial chest in HU, float32 ``(size, size)``: body with fat, lungs with vessels, heart, aorta, spine, ribs.

    Args:
        size: pixels along both sides.
        rng: source of the subject's variation.
    """
    vary = _variation(rng, 0.07)
    canvas = _Canvas((size, size), -1000.0)
    x0, y0 = rng.normal(0, 0.02), rng.normal(0, 0.02)
    width, depth = vary(0.86), vary(0.60, 0.1)

    def paint(x: float, y: float, a: float, b: float, value: float, angle: float = 0.0, inside=None) -> NDArray:
        return canvas.paint((x0 + x * width, y0 + y * depth), (a * width, b * depth), value, angle, inside)

    fat = rng.uniform(0.04, 0.12)
    paint(0, 0, 1, 1, rng.normal(-100, 8))
    paint(0, 0, 1 - fat, 1 - 1.3 * fat, rng.normal(45, 8))
    lungs = np.zeros((size, size))
    for side in (-1, 1):
        lung = paint(
            side * vary(0.45, 0.04), vary(0.06, 0.5), vary(0.33), vary(0.66), rng.normal(-840, 25), side * 0.12
        )
        lungs = np.maximum(lungs, lung)
    for side in (-1, 1):
        for k in range(5):
            # Ribs sit on the chest wall outside the lungs.
            t = np.deg2rad(-62 + 31 * k + rng.uniform(-4, 4))
            r = 0.985 - fat - 0.03
            x, y = side * r * np.cos(t), (r - 0.02) * np.sin(t)
            angle = np.arctan2(depth * np.cos(t), -side * width * np.sin(t))
            paint(x, y, vary(0.085, 0.2), 0.035, rng.normal(550, 60), angle)
    paint(0, 0.12, vary(0.15), 0.75, rng.normal(40, 6))
    heart_x = -vary(0.13, 0.2)
    paint(heart_x, vary(0.22, 0.2), vary(0.30), vary(0.40), rng.normal(50, 8), 0.35)
    paint(heart_x - 0.03, 0.20, vary(0.13, 0.2), vary(0.2, 0.2), rng.normal(150, 40), 0.35)
    paint(-vary(0.11), -vary(0.33), vary(0.075), vary(0.1), rng.normal(140, 40))
    paint(0.01, -0.08, 0.035, 0.06, -950)
    paint(0, -0.56, vary(0.12), vary(0.15), rng.normal(230, 30))
    paint(0, -0.56, vary(0.09), vary(0.11), rng.normal(150, 20))
    paint(0, -0.72, 0.045, 0.06, 25)
    for side in (-1, 1):
        paint(side * 0.10, -0.76, 0.05, 0.05, rng.normal(350, 40), side * 0.7)
    paint(0, 0.86 - fat, vary(0.10), 0.045, rng.normal(400, 50))
    for _ in range(rng.integers(25, 40)):
        side = rng.choice((-1, 1))
        radius = rng.uniform(0.008, 0.03)
        x, y = side * rng.uniform(0.2, 0.7), rng.uniform(-0.45, 0.55)
        paint(x, y, radius, vary(radius * 1.3, 0.4), rng.normal(30, 15), rng.uniform(0, np.pi), lungs)
    for _ in range(rng.integers(0, 3)):
        radius = rng.uniform(0.03, 0.06)
        paint(rng.choice((-1, 1)) * rng.uniform(0.3, 0.6), rng.uniform(-0.3, 0.4), radius, radius, 20, 0.0, lungs)
    return canvas.image.astype(np.float32)


def activity_phantom(size: int, rng: np.random.Generator) -> NDArray[np.float32]:
    """Axial thorax as PET sees it, activity in Bq/mL, float32 ``(size, size)``; lungs, heart wall, liver, hot spots.

    Args:
        size: pixels along both sides.
        rng: source of the subject's variation.
    """
    vary = _variation(rng, 0.1)
    canvas = _Canvas((size, size), 0.0)
    width, depth = vary(0.75), vary(0.5)
    body = canvas.paint((0, 0), (width, depth), vary(1000))
    for side in (-1, 1):
        lung = (vary(0.28) * width, vary(0.6) * depth)
        canvas.paint((side * 0.45 * width, 0.05), lung, vary(350), side * 0.1, body)
    canvas.paint((0.5 * width, -0.35 * depth), (vary(0.3) * width, vary(0.35) * depth), vary(2200), 0.2, body)
    canvas.paint((-0.15, 0.2), (vary(0.16), vary(0.12)), vary(3500), 0.5, body)
    canvas.paint((-0.15, 0.2), (0.09, 0.06), vary(800), 0.5, body)
    canvas.paint((0, -0.7 * depth), (0.07, 0.08), vary(1800), 0, body)
    for _ in range(4):
        place = (rng.uniform(-0.7, 0.7) * width, rng.uniform(-0.6, 0.6) * depth)
        radius = rng.uniform(0.02, 0.05)
        canvas.paint(place, (radius, radius), vary(6000, 0.4), 0, body)
    return canvas.image.astype(np.float32)


def write_phantoms(folder: str | Path, modality: str, n_subjects: int, size: int = 256, seed: int = 0) -> list[Path]:
    """Write one phantom a subject as ``phantom-000.nii.gz`` ... in ``folder``: a slice of magnitude (MRI), HU (CT) or
    activity (PET), or a volume in HU.

    Subject ``i`` depends on ``seed`` and ``i`` only. The arrays are in RAS order, centred on the origin.

    Args:
        folder: created if it is not there.
        modality: ``"mri"``, ``"ct"``, ``"pet"`` or ``"volume"``.
        n_subjects: number of files.
        size: pixels along both sides; a volume has half as many slices.
        seed: of the whole set.

    Raises:
        InputError: unknown modality, or a folder that cannot be written.
    """
    import nibabel as nib

    if modality not in _FIELD_OF_VIEW:
        raise InputError(f"modality: expected one of {sorted(_FIELD_OF_VIEW)}, found {modality!r}")
    draw = {"mri": brain_phantom, "ct": thorax_phantom, "pet": activity_phantom, "volume": chest_volume}[modality]
    spacing = _FIELD_OF_VIEW[modality] / size
    is_volume = modality == "volume"
    affine = np.diag([spacing, spacing, spacing if is_volume else 5.0, 1.0])
    affine[:2, 3] = -(size - 1) / 2 * spacing
    affine[2, 3] = -(size // 2 - 1) / 2 * spacing if is_volume else 0.0
    paths = []
    try:
        Path(folder).mkdir(parents=True, exist_ok=True)
        for subject in range(n_subjects):
            image = draw(size, np.random.default_rng([seed, subject]))
            # The dash keeps the number from being read as a slice of one subject.
            path = Path(folder) / f"phantom-{subject:03d}.nii.gz"
            nib.save(nib.Nifti1Image(np.atleast_3d(image), affine), path)
            paths.append(path)
    except OSError as error:
        raise InputError(f"{folder}: expected a folder that can be written, found {error.strerror or error}") from error
    return paths


def chest_volume(size: int, rng: np.random.Generator) -> NDArray[np.float32]:
    """Chest in HU, float32 ``(size, size, size // 2)``; body, lungs with vessels, heart, liver on the right, spine.

    Args:
        size: voxels along the two axes in the axial plane.
        rng: source of the subject's variation.
    """
    vary = _variation(rng, 0.08)
    canvas = _Canvas((size, size, max(size // 2, 1)), -1000.0)
    width, depth = vary(0.85), vary(0.6)
    canvas.paint((0, 0, 0), (width, depth, np.inf), rng.normal(-100, 8))
    body = canvas.paint((0, 0, 0), (0.92 * width, 0.9 * depth, np.inf), rng.normal(45, 8))
    lungs = np.zeros_like(body)
    for side in (-1, 1):
        centre = (side * vary(0.45) * width, 0.05 * depth, 0.15)
        lung = canvas.paint(
            centre, (vary(0.32) * width, vary(0.68) * depth, vary(0.9)), rng.normal(-840, 25), inside=body
        )
        lungs = np.maximum(lungs, lung)
    canvas.paint((vary(0.4) * width, 0, -0.95), (0.5 * width, 0.6 * depth, vary(0.55)), rng.normal(60, 6), inside=body)
    canvas.paint((-0.12, vary(0.2) * depth, -0.2), (vary(0.24), vary(0.22), vary(0.4)), rng.normal(50, 8), inside=body)
    canvas.paint((-0.15, 0.2 * depth, -0.2), (0.1, 0.1, 0.2), rng.normal(150, 30), inside=body)
    canvas.paint((0, -0.6 * depth, 0), (0.1, 0.08, np.inf), rng.normal(220, 30), inside=body)
    canvas.paint((-0.1, -0.3 * depth, 0), (0.06, 0.06, np.inf), rng.normal(140, 30), inside=body)
    for _ in range(rng.integers(20, 30)):
        centre = (rng.choice((-1, 1)) * rng.uniform(0.2, 0.7) * width, *rng.uniform(-0.5, 0.6, size=2))
        canvas.paint(centre, tuple(rng.uniform(0.015, 0.05, size=3)), rng.normal(30, 15), inside=lungs)
    return canvas.image.astype(np.float32)
