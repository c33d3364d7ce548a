"""The front: residual blocks of two-dimensional convolutions that keep the frames and take in the bins.

Maps are of shape (batch, channels, frames, bins). `padding` is True on the frames behind an item's end, or None; maps
that enter and leave a block hold zeros there.
"""

import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor, nn

from greensv.speaker.masking import hide

BIN_STRIDES = (1, 2, 2, 2)
"""One for each block: eight bins become one."""

Maps = Float[Tensor, "batch channels frames bins"]
MapsAfter = Float[Tensor, "batch channels frames bins_after"]
Padding = Bool[Tensor, "batch 1 frames 1"] | None


class Front(nn.Module):
    """conv3×3 BN ReLU, then four residual blocks, all of the same channels.

    `num_out` is the number of values per frame that channels and bins make together.
    """

    def __init__(self, *, num_features: int, channels: int) -> None:
        super().__init__()
        self.stem = conv(1, channels, stride=1)
        self.stem_bn = nn.BatchNorm2d(channels)
        self.blocks = nn.ModuleList(FrontBlock(channels, stride=stride) for stride in BIN_STRIDES)
        num_bins = num_features
        for stride in BIN_STRIDES:
            num_bins = -(-num_bins // stride)
        self.num_out = channels * num_bins

    def forward(
        self, features: Float[Tensor, "batch frames features"], padding: Bool[Tensor, "batch frames"] | None
    ) -> Float[Tensor, "batch num_out frames"]:
        """Returns the sequence of the flattened maps, zeros on the padding."""
        over_maps = None if padding is None else padding[:, None, :, None]
        maps = self.stem_bn(self.stem(hide(features.unsqueeze(1), over_maps)))
        maps = hide(F.relu(maps, inplace=True), over_maps)
        for block in self.blocks:
            maps = block(maps, over_maps)
        sequence: Tensor = maps.transpose(2, 3).flatten(1, 2)
        return sequence


class FrontBlock(nn.Module):
    """conv3×3 (with the stride over bins) BN ReLU, conv3×3 BN; the shortcut added; ReLU."""

    def __init__(self, channels: int, *, stride: int) -> None:
        super().__init__()
        self.conv1 = conv(channels, channels, stride=stride)
        self.bn1 = nn.BatchNorm2d(channels)
        self.conv2 = conv(channels, channels, stride=1)
        self.bn2 = nn.BatchNorm2d(channels)
        self.shortcut: nn.Module = nn.Identity()
        if stride != 1:
            projection = nn.Conv2d(channels, channels, 1, stride=(1, stride), bias=False)
            self.shortcut = nn.Sequential(projection, nn.BatchNorm2d(channels))

    def forward(self, maps: Maps, padding: Padding) -> MapsAfter:
        """Returns the block's maps, zeros on the padding."""
        y = hide(F.relu(self.bn1(self.conv1(maps)), inplace=True), padding)
        y = self.bn2(self.conv2(y)) + self.shortcut(maps)
        return hide(F.relu(y, inplace=True), padding)


def conv(num_in: int, num_out: int, *, stride: int) -> nn.Conv2d:
    """Returns a 3×3 convolution without bias that keeps the frames, and every `stride`-th bin."""
    return nn.Conv2d(num_in, num_out, 3, stride=(1, stride), padding=1, bias=False)
