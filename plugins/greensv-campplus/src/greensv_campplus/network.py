"""The whole CAM++ network, from features to a speaker embedding."""

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn

from greensv.speaker.masking import padding_mask
from greensv.speaker.pooling import mean_and_deviation
from greensv_campplus.backbone import Shape
from greensv_campplus.dense import DenseBlock
from greensv_campplus.front import Front

DILATIONS = (1, 2, 2)


class CampplusNetwork(nn.Module):
    """The front; a layer over five frames that keeps every second; three dense blocks; mean and deviation; embedding.

    Initialised as torch initialises its layers. In training mode batch statistics include the padding: train on crops
    of one length, with `lengths` None.
    """

    def __init__(self, shape: Shape, *, num_features: int) -> None:
        super().__init__()
        self.embedding_dim = shape.embedding_dim
        self.front = Front(num_features=num_features, channels=shape.front_channels)
        self.entrance = nn.Conv1d(self.front.num_out, shape.initial_channels, 5, stride=2, padding=2)
        self.entrance_bn = nn.BatchNorm1d(shape.initial_channels)
        self.blocks = nn.ModuleList()
        num_channels = shape.initial_channels
        for num_layers, dilation in zip(shape.layers, DILATIONS, strict=True):
            block = DenseBlock(
                num_channels,
                num_layers=num_layers,
                bottleneck=shape.bottleneck,
                growth=shape.growth,
                dilation=dilation,
            )
            num_channels = block.num_out
            self.blocks.append(block)
        self.bn = nn.BatchNorm1d(num_channels)
        self.linear = nn.Linear(2 * num_channels, shape.embedding_dim)
        self.embedding_bn = nn.BatchNorm1d(shape.embedding_dim)

    def forward(
        self, features: Float[Tensor, "batch frames features"], lengths: Int[Tensor, " batch"] | None = None
    ) -> Float[Tensor, "batch embedding"]:
        """Returns the embeddings.

        Args:
            features: one row per frame.
            lengths: valid frames of each item, at least 1; None when all frames are valid, which is faster.
        """
        padding = None if lengths is None else padding_mask(lengths, features.shape[1])
        x = self.entrance(self.front(features, padding))
        x = F.relu(self.entrance_bn(x), inplace=True)
        if lengths is not None:
            # Every second frame is kept, the first one always.
            padding = padding_mask(-(-lengths // 2), x.shape[2])[:, None, :]
        for block in self.blocks:
            x = block(x, padding)
        x = F.relu(self.bn(x), inplace=True)
        pooled = torch.cat(mean_and_deviation(x, padding), dim=1)
        embedding: Tensor = self.embedding_bn(self.linear(pooled))
        return embedding
