"""The whole ECAPA-TDNN, from features to a speaker embedding."""

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn

from greensv.builtin.backbones.ecapa_tdnn.blocks import ContextAttention, ConvReluNorm, SeRes2Block
from greensv.builtin.backbones.ecapa_tdnn.space import FIRST_KERNEL, Shape
from greensv.speaker.masking import padding_mask


class EcapaTdnnNetwork(nn.Module):
    """A layer of kernel 5; SE-Res2 blocks; all their outputs through one layer of kernel 1; pooling; BN, linear.

    Initialised as torch initialises its layers. In training mode batch statistics include the padding: train on crops
    of one length, with `lengths` None.
    """

    def __init__(self, shape: Shape, *, num_features: int) -> None:
        super().__init__()
        self.embedding_dim = shape.embedding_dim
        self.first = ConvReluNorm(num_features, shape.num_channels, kernel=FIRST_KERNEL)
        self.blocks = nn.ModuleList(
            SeRes2Block(shape.num_channels, num_groups=shape.num_groups, kernel=shape.kernel, dilation=dilation)
            for dilation in shape.dilations
        )
        self.aggregation = nn.Conv1d(len(shape.dilations) * shape.num_channels, shape.num_aggregated, 1)
        self.aggregation_bn = nn.BatchNorm1d(shape.num_aggregated) if shape.is_normalised else nn.Identity()
        self.pooling = ContextAttention(shape.num_aggregated, is_normalised=shape.is_normalised)
        self.pooled_bn = nn.BatchNorm1d(2 * shape.num_aggregated)
        self.linear = nn.Linear(2 * shape.num_aggregated, shape.embedding_dim)

    def forward(
        self, features: Float[Tensor, "batch frames features"], lengths: Int[Tensor, " batch"] | None = None
    ) -> Float[Tensor, "batch embedding"]:
        """Returns the embeddings.

        Args:
            features: one row per frame.
            lengths: valid frames of each item, at least 1; None when all frames are valid, which is faster.
        """
        padding = None if lengths is None else padding_mask(lengths, features.shape[1])[:, None, :]
        x = self.first(features.transpose(1, 2), padding)
        outputs = []
        for block in self.blocks:
            x = block(x, padding)
            outputs.append(x)
        aggregated = self.aggregation_bn(F.relu(self.aggregation(torch.cat(outputs, dim=1)), inplace=True))
        embedding: Tensor = self.linear(self.pooled_bn(self.pooling(aggregated, padding)))
        return embedding
