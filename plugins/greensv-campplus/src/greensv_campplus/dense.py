"""The dense blocks: layers that see all that the layers before them put out, and mask what they add by its context.

Sequences are of shape (batch, channels, frames). `padding` is True on the frames behind an item's end, or None.
"""

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from greensv.speaker.masking import hide
from greensv.speaker.pooling import Frames, Padding, mean_over_time

SEGMENT_FRAMES = 100
"""Frames of the segments that masks are made for, as they enter the dense blocks: half as many as features have."""
REDUCTION = 2
"""How much narrower than the bottleneck the hidden layer of a mask is."""


class ContextMask(nn.Module):
    """A mask for each segment, from the mean of the whole item and that of the segment: the paper's section 2.2.

    M = σ(W₂ ReLU(W₁ (e + s) + b₁) + b₂), where e is the mean over all frames and s that over the segment's. The last
    segment is as long as what is left.
    """

    def __init__(self, num_channels: int, *, num_masked: int) -> None:
        super().__init__()
        self.hidden = nn.Linear(num_channels, num_channels // REDUCTION)
        self.mask = nn.Linear(num_channels // REDUCTION, num_masked)

    def forward(self, x: Frames, padding: Padding) -> Float[Tensor, "batch num_masked frames"]:
        """Returns the mask of every frame; `x` holds zeros on the padding."""
        context = mean_over_time(x, padding)[:, :, None] + segment_means(x, padding)
        masks: Tensor = self.mask(F.relu(self.hidden(context.transpose(1, 2)))).sigmoid().transpose(1, 2)
        segments = torch.arange(x.shape[2], device=x.device) // SEGMENT_FRAMES
        return masks.index_select(2, segments)


def segment_means(x: Frames, padding: Padding) -> Float[Tensor, "batch channels segments"]:
    """Returns the mean over the valid frames of each segment, 0 where it has none; `x` holds zeros on the padding."""
    # In ceil mode the last mean is over the frames that there are.
    means = F.avg_pool1d(x, SEGMENT_FRAMES, ceil_mode=True)
    if padding is None:
        return means
    starts = SEGMENT_FRAMES * torch.arange(means.shape[2], device=x.device)
    num_frames = (x.shape[2] - starts).clamp(max=SEGMENT_FRAMES)
    num_valid = ((~padding).sum(dim=2, keepdim=True) - starts).clamp(min=1, max=SEGMENT_FRAMES)
    return means * (num_frames / num_valid)


class DenseLayer(nn.Module):
    """BN ReLU, a layer over one frame to the bottleneck, BN ReLU, one over three frames, times its mask.

    Yu and Li 2020, "Densely Connected Time Delay Neural Network for Speaker Verification", with the mask of CAM++.
    """

    def __init__(self, num_in: int, *, bottleneck: int, growth: int, dilation: int) -> None:
        super().__init__()
        self.bn_in = nn.BatchNorm1d(num_in)
        self.narrow = nn.Conv1d(num_in, bottleneck, 1)
        self.bn = nn.BatchNorm1d(bottleneck)
        self.tdnn = nn.Conv1d(bottleneck, growth, 3, dilation=dilation, padding=dilation)
        self.context = ContextMask(bottleneck, num_masked=growth)

    def forward(self, x: Frames, padding: Padding) -> Float[Tensor, "batch growth frames"]:
        """Returns what the layer adds."""
        y = self.narrow(F.relu(self.bn_in(x), inplace=True))
        y = hide(F.relu(self.bn(y), inplace=True), padding)
        added: Tensor = self.tdnn(y) * self.context(y, padding)
        return added


class DenseBlock(nn.Module):
    """Layers, each fed the block's input and what all layers before it added; at the end, half of all channels.

    `num_out` is their number.
    """

    def __init__(self, num_in: int, *, num_layers: int, bottleneck: int, growth: int, dilation: int) -> None:
        super().__init__()
        self.layers = nn.ModuleList(
            DenseLayer(num_in + i * growth, bottleneck=bottleneck, growth=growth, dilation=dilation)
            for i in range(num_layers)
        )
        num_all = num_in + num_layers * growth
        self.num_out = num_all // 2
        self.bn = nn.BatchNorm1d(num_all)
        self.transition = nn.Conv1d(num_all, self.num_out, 1)

    def forward(self, x: Frames, padding: Padding) -> Float[Tensor, "batch num_out frames"]:
        """Returns the block's sequence; on the padding it is not hidden."""
        for layer in self.layers:
            x = torch.cat((x, layer(x, padding)), dim=1)
        y: Tensor = self.transition(F.relu(self.bn(x), inplace=True))
        return y
