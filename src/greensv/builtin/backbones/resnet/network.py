"""The whole residual network, from features to a speaker embedding."""

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from greensv.builtin.backbones.resnet.blocks import build_block, conv, hide
from greensv.builtin.backbones.resnet.space import Shape
from greensv.speaker.masking import padding_mask

EMBEDDING_DIM = 256
STRIDES = (1, 2, 2, 2)
NUM_SE_STAGES = 2
MIN_VARIANCE = 1e-5


class ResNetNetwork(nn.Module):
    """Stem conv3×3 BN SiLU; four stages of residual blocks, SE in the first two; ASTP; BN, linear, BN.

    Nothing normalises between the last block and the pooling. The embedding is what leaves the last BN.

    In training mode batch statistics include the padding: train on crops of one length, with `lengths` None.
    """

    def __init__(self, shape: Shape, *, num_features: int) -> None:
        super().__init__()
        self.embedding_dim = EMBEDDING_DIM
        self.stem = conv(1, shape.channels[0], kernel=3)
        self.stem_bn = nn.BatchNorm2d(shape.channels[0])
        self.stages = nn.ModuleList()
        num_maps, num_bins = shape.channels[0], num_features
        for index, (num_blocks, channels, stride) in enumerate(zip(shape.blocks, shape.channels, STRIDES, strict=True)):
            stage = nn.ModuleList()
            for position in range(num_blocks):
                first_stride = stride if position == 0 else 1
                has_se = index < NUM_SE_STAGES
                block = build_block(shape.block, num_maps, channels, stride=first_stride, has_se=has_se)
                num_maps = block.num_out
                stage.append(block)
            self.stages.append(stage)
            num_bins = -(-num_bins // stride)
        pooled = num_maps * num_bins
        self.pooling = AttentiveStatistics(pooled, num_hidden=shape.channels[-1] // 2)
        self.pooled_bn = nn.BatchNorm1d(2 * pooled)
        self.linear = nn.Linear(2 * pooled, EMBEDDING_DIM)
        self.embedding_bn = nn.BatchNorm1d(EMBEDDING_DIM)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")

    def forward(
        self, features: Float[Tensor, "batch frames features"], lengths: Int[Tensor, " batch"] | None = None
    ) -> Float[Tensor, "batch embedding"]:
        """Returns the embeddings, of shape (batch, 256).

        Args:
            features: one row per frame.
            lengths: valid frames of each item, at least 1; None when all frames are valid, which is faster.
        """
        padding = None if lengths is None else _over_maps(padding_mask(lengths, features.shape[1]))
        maps = F.silu(self.stem_bn(self.stem(hide(features.unsqueeze(1), padding))))
        for stage, stride in zip(self.stages, STRIDES, strict=True):
            before = padding
            if lengths is not None and stride > 1:
                lengths = -(-lengths // stride)
                padding = _over_maps(padding_mask(lengths, -(-maps.shape[2] // stride)))
            for block in stage:  # type: ignore[attr-defined]
                maps = block(maps, before, padding)
                before = padding
        sequence = maps.transpose(2, 3).flatten(1, 2)
        pooled = self.pooling(sequence, None if padding is None else padding[:, 0, :, 0])
        embedding: Tensor = self.embedding_bn(self.linear(self.pooled_bn(pooled)))
        return embedding


class AttentiveStatistics(nn.Module):
    """Mean and standard deviation over time, each channel weighted by its own attention.

    Okabe et al. 2018, "Attentive Statistics Pooling for Deep Speaker Embedding", equations 5 and 6, with one attention
    per channel: a hidden layer with tanh, softmax over the valid frames.
    """

    def __init__(self, num_channels: int, *, num_hidden: int) -> None:
        super().__init__()
        self.hidden = nn.Conv1d(num_channels, num_hidden, 1)
        self.attention = nn.Conv1d(num_hidden, num_channels, 1)

    def forward(
        self, sequence: Float[Tensor, "batch channels frames"], padding: Bool[Tensor, "batch frames"] | None
    ) -> Float[Tensor, "batch statistics"]:
        """Returns the means, then the standard deviations: (batch, 2 · channels), at least in float32."""
        logits = self.attention(torch.tanh(self.hidden(sequence)))
        if padding is not None:
            logits = logits.masked_fill(padding[:, None, :], -torch.inf)
        # Half precision is too coarse for a variance.
        dtype = torch.promote_types(sequence.dtype, torch.float32)
        weights = logits.softmax(dim=2, dtype=dtype)
        values = sequence.to(dtype)
        mean = (weights * values).sum(dim=2)
        variance = (weights * (values - mean[:, :, None]).square()).sum(dim=2)
        return torch.cat((mean, variance.clamp(min=MIN_VARIANCE).sqrt()), dim=1)


def _over_maps(padding: Bool[Tensor, "batch frames"]) -> Bool[Tensor, "batch 1 frames 1"]:
    return padding[:, None, :, None]
