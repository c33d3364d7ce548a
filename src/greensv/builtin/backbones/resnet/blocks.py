"""Residual blocks. Each takes and returns maps of shape (batch, channels, frames, bins).

`padding` is True on the frames behind an item's end, or None when there are none. Only what looks at several frames has
to know it: a convolution with a temporal kernel sees zeros there, as it does behind the end of an unpadded item.
"""

import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor, nn

Maps = Float[Tensor, "batch channels frames bins"]
MapsAfter = Float[Tensor, "batch num_out frames_after bins_after"]
Padding = Bool[Tensor, "batch 1 frames 1"] | None
PaddingAfter = Bool[Tensor, "batch 1 frames_after 1"] | None
BOTTLENECK_EXPANSION = 4


def hide(maps: Maps, padding: Padding) -> Maps:
    """Returns the maps with 0 on the padding; the maps themselves where there is none."""
    return maps if padding is None else maps.masked_fill(padding, 0.0)


class SqueezeExcitation(nn.Module):
    """Scales each channel by a gate computed from the means of all channels over valid frames and bins.

    Hu et al. 2018, "Squeeze-and-Excitation Networks", with SiLU and a hidden layer of any width.
    """

    def __init__(self, num_channels: int, *, num_hidden: int) -> None:
        super().__init__()
        self.squeeze = nn.Linear(num_channels, num_hidden)
        self.excite = nn.Linear(num_hidden, num_channels)

    def forward(self, maps: Maps, padding: Padding) -> Maps:
        """Returns the maps times their gates."""
        if padding is None:
            means = maps.mean(dim=(2, 3))
        else:
            num_valid = (~padding).sum(dim=(2, 3)) * maps.shape[3]
            means = hide(maps, padding).sum(dim=(2, 3)) / num_valid
        gates = self.excite(F.silu(self.squeeze(means))).sigmoid()
        scaled: Tensor = maps * gates[:, :, None, None]
        return scaled


class Basic(nn.Module):
    """BN SiLU conv3×3, BN SiLU conv3×3 and, of three convolutions, BN SiLU conv1×1; then SE where asked for.

    The stride is that of the first convolution. The shortcut, where shapes differ, is a strided conv1×1 and BN of the
    block's own input, before its first BN.
    """

    def __init__(self, num_in: int, channels: int, *, stride: int, num_convs: int, has_se: bool) -> None:
        super().__init__()
        self.bn1 = nn.BatchNorm2d(num_in)
        self.conv1 = conv(num_in, channels, kernel=3, stride=stride)
        self.bn2 = nn.BatchNorm2d(channels)
        self.conv2 = conv(channels, channels, kernel=3)
        self.has_third = num_convs == 3
        if self.has_third:
            self.bn3 = nn.BatchNorm2d(channels)
            self.conv3 = conv(channels, channels, kernel=1)
        self.se = SqueezeExcitation(channels, num_hidden=channels) if has_se else None
        self.shortcut = shortcut(num_in, channels, stride=stride)
        self.num_out = channels

    def forward(self, x: Maps, before: Padding, after: PaddingAfter) -> MapsAfter:
        """Returns the block's maps; `before` and `after` are the padding at its input and its output."""
        y = self.conv1(hide(F.silu(self.bn1(x)), before))
        y = self.conv2(hide(F.silu(self.bn2(y)), after))
        if self.has_third:
            y = self.conv3(F.silu(self.bn3(y)))
        if self.se is not None:
            y = self.se(y, after)
        maps: Tensor = y + self.shortcut(x)
        return maps


class Bottleneck(nn.Module):
    """BN SiLU conv1×1, BN SiLU conv3×3 (with the stride), BN SiLU conv1×1 to four times the channels; then SE.

    He et al. 2016, "Identity Mappings in Deep Residual Networks", with the stride on the 3×3 convolution and the
    shortcut of `Basic`. The hidden layer of the SE is as wide as the stage's channels, as in the other blocks: here a
    quarter of what it scales.
    """

    def __init__(self, num_in: int, channels: int, *, stride: int, has_se: bool) -> None:
        super().__init__()
        self.num_out = BOTTLENECK_EXPANSION * channels
        self.bn1 = nn.BatchNorm2d(num_in)
        self.conv1 = conv(num_in, channels, kernel=1)
        self.bn2 = nn.BatchNorm2d(channels)
        self.conv2 = conv(channels, channels, kernel=3, stride=stride)
        self.bn3 = nn.BatchNorm2d(channels)
        self.conv3 = conv(channels, self.num_out, kernel=1)
        self.se = SqueezeExcitation(self.num_out, num_hidden=channels) if has_se else None
        self.shortcut = shortcut(num_in, self.num_out, stride=stride)

    def forward(self, x: Maps, before: Padding, after: PaddingAfter) -> MapsAfter:
        """Returns the block's maps; `before` and `after` are the padding at its input and its output."""
        y = self.conv1(F.silu(self.bn1(x)))
        y = self.conv2(hide(F.silu(self.bn2(y)), before))
        y = self.conv3(F.silu(self.bn3(y)))
        if self.se is not None:
            y = self.se(y, after)
        maps: Tensor = y + self.shortcut(x)
        return maps


def build_block(kind: str, num_in: int, channels: int, *, stride: int, has_se: bool) -> Basic | Bottleneck:
    """Returns a block of one of the space's kinds."""
    if kind == "bottleneck":
        return Bottleneck(num_in, channels, stride=stride, has_se=has_se)
    return Basic(num_in, channels, stride=stride, num_convs=3 if kind == "basic-3" else 2, has_se=has_se)


def conv(num_in: int, num_out: int, *, kernel: int, stride: int = 1) -> nn.Conv2d:
    """Returns a convolution without bias that keeps the size (halves it, rounded up, at stride 2)."""
    return nn.Conv2d(num_in, num_out, kernel, stride=stride, padding=kernel // 2, bias=False)


def shortcut(num_in: int, num_out: int, *, stride: int) -> nn.Module:
    """Returns the identity, or a strided projection where the block changes the shape."""
    if stride == 1 and num_in == num_out:
        return nn.Identity()
    return nn.Sequential(conv(num_in, num_out, kernel=1, stride=stride), nn.BatchNorm2d(num_out))
