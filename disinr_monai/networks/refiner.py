from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn.functional import pad, pixel_shuffle, pixel_unshuffle, relu


class Refiner(nn.Module):
    r"""A small residual U-Net that looks at an image and its neighbourhoods and proposes a correction.

    It works on 2 x 2 blocks of pixels as channels (pixel-unshuffle), which makes it four times cheaper, and on two
    coarser levels below (after Ronneberger et al., MICCAI 2015). The last layer starts at zero: before training the
    correction is exactly 0. No normalisation layers: the size of a correction depends on the scan, not on its batch.
    A margin of repeated border pixels keeps the zeros with which convolutions are padded out of the image; without it
    the outermost rows of an MR image came out at 2 % of its maximum.

    Args:
        in_channels: channels of the features.
        out_channels: channels of the correction.
        widths: channels of the levels, at 1/2, 1/4, 1/8 of the resolution.
        n_blocks: residual blocks on each level, in each direction.
        amp: convolutions in bfloat16.
        seed: of the start.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        widths: Sequence[int] = (32, 64, 96),
        n_blocks: int = 2,
        amp: bool = False,
        seed: int = 0,
    ) -> None:
        super().__init__()
        if in_channels < 1 or out_channels < 1 or len(widths) < 1 or n_blocks < 1:
            raise ValueError(
                "Refiner: expected at least one channel, width and block, "
                f"found {in_channels}, {out_channels}, {tuple(widths)}, {n_blocks}"
            )
        self.in_channels, self.out_channels, self.amp = in_channels, out_channels, amp
        self._multiple = 2 ** len(widths)
        steps = list(pairwise(widths))
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self.first = nn.Conv2d(4 * in_channels, widths[0], 3, padding=1)
            self.encoder = nn.ModuleList(_level(width, n_blocks) for width in widths)
            self.down = nn.ModuleList(nn.Conv2d(fine, coarse, 2, stride=2) for fine, coarse in steps)
            self.up = nn.ModuleList(nn.ConvTranspose2d(coarse, fine, 2, stride=2) for fine, coarse in steps)
            self.decoder = nn.ModuleList(_level(width, n_blocks) for width in widths[:-1])
            self.last = nn.Conv2d(widths[0], 4 * out_channels, 3, padding=1)
        nn.init.zeros_(self.last.weight)
        nn.init.zeros_(self.last.bias)
        self.to(memory_format=torch.channels_last)

    def forward(self, features: Tensor) -> Tensor:
        """Features ``(B, in_channels, H, W)`` to a correction ``(B, out_channels, H, W)`` in float32, any ``H, W``."""
        height, width = features.shape[-2:]
        margin = self._multiple
        bottom, right = margin + -height % margin, margin + -width % margin
        features = pad(features, (margin, right, margin, bottom), mode="replicate")
        with torch.autocast(features.device.type, torch.bfloat16, enabled=self.amp):
            hidden = pixel_unshuffle(features, 2).contiguous(memory_format=torch.channels_last)
            hidden = self.first(hidden)
            skips = []
            for level, blocks in enumerate(self.encoder):
                hidden = blocks(hidden)
                if level < len(self.down):
                    skips.append(hidden)
                    hidden = self.down[level](hidden)
            for level in reversed(range(len(self.down))):
                hidden = self.decoder[level](self.up[level](hidden) + skips[level])
            correction = pixel_shuffle(self.last(hidden), 2)
        return correction[..., margin : margin + height, margin : margin + width].float()


class _Block(nn.Module):
    """``x + conv(relu(conv(relu(x))))``, the identity at the start."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.first = nn.Conv2d(width, width, 3, padding=1)
        self.second = nn.Conv2d(width, width, 3, padding=1)
        nn.init.zeros_(self.second.weight)
        nn.init.zeros_(self.second.bias)

    def forward(self, hidden: Tensor) -> Tensor:
        return hidden + self.second(relu(self.first(relu(hidden))))


def _level(width: int, n_blocks: int) -> nn.Sequential:
    return nn.Sequential(*(_Block(width) for _ in range(n_blocks)))
