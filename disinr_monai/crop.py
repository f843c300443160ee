"""The part of a field of view that is kept."""

from __future__ import annotations

from torch import Tensor


def centre_block(n: int, n_kept: int) -> slice:
    """The ``n_kept`` of ``n`` positions around ``n // 2``, so that the centre stays the centre."""
    start = n // 2 - n_kept // 2
    return slice(start, start + n_kept)


def crop_image(image: Tensor, sizes: tuple[int, ...] | None) -> Tensor:
    """The centre of an image ``(C, *S)``, of the given sizes; all of it without any."""
    if sizes is None:
        return image
    return image[:, *(centre_block(n, kept) for n, kept in zip(image.shape[1:], sizes, strict=True))]
