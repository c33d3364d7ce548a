"""Residual blocks. Each takes and returns maps of shape (batch, channels, frames, bins).

`padding` is True on the frames behind an item's end, or None when there are none. Maps that enter a block hold zeros
there, as a convolution sees behind the end of an unpadded item; so do those that leave it.
"""

import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor, nn

from greensv.builtin.backbones.wespeaker_resnet.space import BOTTLENECK_EXPANSION
from greensv.speaker.masking import hide

Maps = Float[Tensor, "batch channels frames bins"]
MapsAfter = Float[Tensor, "batch num_out frames_after bins_after"]
Padding = Bool[Tensor, "batch 1 frames 1"] | None
PaddingAfter = Bool[Tensor, "batch 1 frames_after 1"] | None


class Basic(nn.Module):
    """conv3×3 (with the stride) BN ReLU, conv3×3 BN; the shortcut added; ReLU."""

    def __init__(self, num_in: int, channels: int, *, stride: int) -> None:
        super().__init__()
        self.num_out = channels
        self.conv1 = conv(num_in, channels, kernel=3, stride=stride)
        self.bn1 = nn.BatchNorm2d(channels)
        self.conv2 = conv(channels, channels, kernel=3)
        self.bn2 = nn.BatchNorm2d(channels)
        self.shortcut = shortcut(num_in, channels, stride=stride)

    def forward(self, x: Maps, before: Padding, after: PaddingAfter) -> MapsAfter:
        """Returns the block's maps; `before` and `after` are the padding at its input and its output."""
        y = hide(F.relu(self.bn1(self.conv1(x)), inplace=True), after)
        y = self.bn2(self.conv2(y))
        return hide(F.relu(y + self.shortcut(x), inplace=True), after)


class Bottleneck(nn.Module):
    """conv1×1 BN ReLU, conv3×3 (with the stride) BN ReLU, conv1×1 to four times the channels BN; shortcut; ReLU."""

    def __init__(self, num_in: int, channels: int, *, stride: int) -> None:
        super().__init__()
        self.num_out = BOTTLENECK_EXPANSION * channels
        self.conv1 = conv(num_in, channels, kernel=1)
        self.bn1 = nn.BatchNorm2d(channels)
        self.conv2 = conv(channels, channels, kernel=3, stride=stride)
        self.bn2 = nn.BatchNorm2d(channels)
        self.conv3 = conv(channels, self.num_out, kernel=1)
        self.bn3 = nn.BatchNorm2d(self.num_out)
        self.shortcut = shortcut(num_in, self.num_out, stride=stride)

    def forward(self, x: Maps, before: Padding, after: PaddingAfter) -> MapsAfter:
        """Returns the block's maps; `before` and `after` are the padding at its input and its output."""
        y = hide(F.relu(self.bn1(self.conv1(x)), inplace=True), before)
        y = F.relu(self.bn2(self.conv2(y)), inplace=True)
        y = self.bn3(self.conv3(y))
        return hide(F.relu(y + self.shortcut(x), inplace=True), after)


def conv(num_in: int, num_out: int, *, kernel: int, stride: int = 1) -> nn.Conv2d:
    """Returns a convolution without bias that keeps the size (halves it, rounded up, at stride 2)."""
    return nn.Conv2d(num_in, num_out, kernel, stride=stride, padding=kernel // 2, bias=False)


def shortcut(num_in: int, num_out: int, *, stride: int) -> nn.Module:
    """Returns the identity, or a strided projection where the block changes the shape."""
    if stride == 1 and num_in == num_out:
        return nn.Identity()
    return nn.Sequential(conv(num_in, num_out, kernel=1, stride=stride), nn.BatchNorm2d(num_out))
