"""The layers of an ECAPA-TDNN. Each takes and returns sequences of shape (batch, channels, frames).

`padding` is True on the frames behind an item's end, or None when there are none.
"""

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from greensv.speaker.masking import hide
from greensv.speaker.pooling import (
    Frames,
    Padding,
    at_least_float32,
    mean_and_deviation,
    mean_over_time,
    weighted_mean_and_deviation,
)

NUM_HIDDEN = 128
"""Of the squeeze-and-excitation and of the attention: the paper's bottlenecks."""


class ConvReluNorm(nn.Module):
    """A convolution that keeps the number of frames, with bias, then ReLU, then BN: the layer of all TDNNs here."""

    def __init__(self, num_in: int, num_out: int, *, kernel: int = 1, dilation: int = 1) -> None:
        super().__init__()
        reach = dilation * (kernel - 1) // 2
        self.conv = nn.Conv1d(num_in, num_out, kernel, dilation=dilation, padding=reach)
        self.bn = nn.BatchNorm1d(num_out)

    def forward(self, x: Frames, padding: Padding) -> Frames:
        """Returns the layer's sequence; on the padding it is not hidden."""
        if self.conv.kernel_size[0] > 1:
            x = hide(x, padding)
        y: Tensor = self.bn(F.relu(self.conv(x), inplace=True))
        return y


class Res2Conv(nn.Module):
    """Convolutions over groups of channels, each fed its own group and the result of the group before it.

    Gao et al. 2019, "Res2Net", over time. The last group passes as it is; a single one is convolved.
    """

    def __init__(self, num_channels: int, *, num_groups: int, kernel: int, dilation: int) -> None:
        super().__init__()
        width = num_channels // num_groups
        self.num_groups = num_groups
        self.layers = nn.ModuleList(
            ConvReluNorm(width, width, kernel=kernel, dilation=dilation) for _ in range(max(num_groups - 1, 1))
        )

    def forward(self, x: Frames, padding: Padding) -> Frames:
        """Returns the groups' results, one behind the other."""
        groups = x.chunk(self.num_groups, dim=1)
        results = [self.layers[0](groups[0], padding)]
        for layer, group in zip(self.layers[1:], groups[1:-1], strict=True):
            results.append(layer(results[-1] + group, padding))
        return torch.cat((*results, *groups[len(results) :]), dim=1)


class SqueezeExcitation(nn.Module):
    """A gate for each channel, computed from the means of all channels over the valid frames."""

    def __init__(self, num_channels: int) -> None:
        super().__init__()
        self.squeeze = nn.Linear(num_channels, NUM_HIDDEN)
        self.excite = nn.Linear(NUM_HIDDEN, num_channels)

    def forward(self, x: Frames, padding: Padding) -> Float[Tensor, "batch channels 1"]:
        """Returns the gates, to multiply the channels by."""
        gates: Tensor = self.excite(F.relu(self.squeeze(mean_over_time(x, padding)))).sigmoid()
        return gates[:, :, None]


class SeRes2Block(nn.Module):
    """Layer of kernel 1, Res2 convolutions, layer of kernel 1, squeeze-and-excitation; and the input added."""

    def __init__(self, num_channels: int, *, num_groups: int, kernel: int, dilation: int) -> None:
        super().__init__()
        self.before = ConvReluNorm(num_channels, num_channels)
        self.res2 = Res2Conv(num_channels, num_groups=num_groups, kernel=kernel, dilation=dilation)
        self.after = ConvReluNorm(num_channels, num_channels)
        self.se = SqueezeExcitation(num_channels)

    def forward(self, x: Frames, padding: Padding) -> Frames:
        """Returns the block's sequence, of the input's shape."""
        y = self.after(self.res2(self.before(x, padding), padding), padding)
        return torch.addcmul(x, y, self.se(y, padding))


class ContextAttention(nn.Module):
    """Mean and standard deviation over time, each channel weighted by its own attention, which knows the whole item.

    Section 3.1 of the paper: the hidden layer sees a frame beside the mean and the deviation of all frames. Its weights
    are those of one layer of three times the channels; the part for mean and deviation is applied once per item.
    Normalised adds ReLU and BN before the tanh.
    """

    def __init__(self, num_channels: int, *, is_normalised: bool) -> None:
        super().__init__()
        self.hidden = nn.Conv1d(num_channels, NUM_HIDDEN, 1)
        self.context = nn.Linear(2 * num_channels, NUM_HIDDEN, bias=False)
        self.hidden_bn = nn.BatchNorm1d(NUM_HIDDEN) if is_normalised else None
        self.attention = nn.Conv1d(NUM_HIDDEN, num_channels, 1)
        # As one layer would be initialised: the bound is that of its fan-in.
        bound = (3 * num_channels) ** -0.5
        for weight in (self.hidden.weight, self.context.weight, self.hidden.bias):
            nn.init.uniform_(weight, -bound, bound)  # type: ignore[arg-type]

    def forward(self, x: Frames, padding: Padding) -> Tensor:
        """Returns the means, then the standard deviations, of shape (batch, 2 · channels), at least in float32."""
        values = at_least_float32(x)
        context = self.context(torch.cat(mean_and_deviation(values, padding), dim=1))
        hidden = self.hidden(x) + context[:, :, None]
        if self.hidden_bn is not None:
            hidden = self.hidden_bn(F.relu(hidden))
        logits = self.attention(torch.tanh(hidden))
        return torch.cat(weighted_mean_and_deviation(values, logits, padding), dim=1)
