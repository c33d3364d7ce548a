"""The whole residual network, from features to a speaker embedding."""

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from greensv.builtin.backbones.wespeaker_resnet.blocks import Basic, Bottleneck, conv
from greensv.builtin.backbones.wespeaker_resnet.space import STRIDES, Shape
from greensv.speaker.masking import hide, padding_mask
from greensv.speaker.pooling import mean_and_deviation


class WeSpeakerResNetNetwork(nn.Module):
    """Stem conv3×3 BN ReLU; four stages of residual blocks; mean and deviation over time; one linear layer.

    Initialised as torch initialises its layers. In training mode batch statistics include the padding: train on crops
    of one length, with `lengths` None.
    """

    def __init__(self, shape: Shape, *, num_features: int) -> None:
        super().__init__()
        self.embedding_dim = shape.embedding_dim
        self.stem = conv(1, shape.channels[0], kernel=3)
        self.stem_bn = nn.BatchNorm2d(shape.channels[0])
        self.stages = nn.ModuleList()
        kind = Bottleneck if shape.is_bottleneck else Basic
        num_maps, num_bins = shape.channels[0], num_features
        for num_blocks, channels, stride in zip(shape.blocks, shape.channels, STRIDES, strict=True):
            stage = nn.ModuleList()
            for position in range(num_blocks):
                block = kind(num_maps, channels, stride=stride if position == 0 else 1)
                num_maps = block.num_out
                stage.append(block)
            self.stages.append(stage)
            num_bins = -(-num_bins // stride)
        self.linear = nn.Linear(2 * num_maps * num_bins, shape.embedding_dim)

    def forward(
        self, features: Float[Tensor, "batch frames features"], lengths: Int[Tensor, " batch"] | None = None
    ) -> Float[Tensor, "batch embedding"]:
        """Returns the embeddings.

        Args:
            features: one row per frame.
            lengths: valid frames of each item, at least 1; None when all frames are valid, which is faster.
        """
        padding = None if lengths is None else _over_maps(padding_mask(lengths, features.shape[1]))
        maps = self.stem_bn(self.stem(hide(features.unsqueeze(1), padding)))
        maps = hide(F.relu(maps, inplace=True), padding)
        for stage, stride in zip(self.stages, STRIDES, strict=True):
            before = padding
            if lengths is not None and stride > 1:
                lengths = -(-lengths // stride)
                padding = _over_maps(padding_mask(lengths, -(-maps.shape[2] // stride)))
            for block in stage:  # type: ignore[attr-defined]
                maps = block(maps, before, padding)
                before = padding
        sequence = maps.transpose(2, 3).flatten(1, 2)
        statistics = mean_and_deviation(sequence, None if padding is None else padding[:, :, :, 0])
        embedding: Tensor = self.linear(torch.cat(statistics, dim=1))
        return embedding


def _over_maps(padding: Bool[Tensor, "batch frames"]) -> Bool[Tensor, "batch 1 frames 1"]:
    return padding[:, None, :, None]
