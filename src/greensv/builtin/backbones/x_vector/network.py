"""The whole x-vector network, from features to a speaker embedding."""

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn

from greensv.builtin.backbones.x_vector.space import Layer, Shape
from greensv.speaker.masking import hide, padding_mask
from greensv.speaker.pooling import Frames, mean_and_deviation


class XVectorNetwork(nn.Module):
    """Layers over time, each convolution, ReLU, BN; mean and deviation; linear, ReLU, BN, linear.

    BN has neither scale nor offset, as in Kaldi. Initialised as torch initialises its layers. In training mode batch
    statistics include the padding: train on crops of one length, with `lengths` None.
    """

    def __init__(self, shape: Shape, *, num_features: int) -> None:
        super().__init__()
        self.embedding_dim = shape.embedding_dim
        self.min_frames = shape.receptive_field_frames
        self.layers = nn.ModuleList()
        num_in = num_features
        for layer in shape.layers:
            self.layers.append(ContextLayer(num_in, layer))
            num_in = layer.num_out
        self.first_linear = nn.Linear(2 * num_in, shape.embedding_dim)
        self.first_bn = nn.BatchNorm1d(shape.embedding_dim, affine=False)
        self.second_linear = nn.Linear(shape.embedding_dim, shape.embedding_dim)

    def forward(
        self, features: Float[Tensor, "batch frames features"], lengths: Int[Tensor, " batch"] | None = None
    ) -> Float[Tensor, "batch embedding"]:
        """Returns the embeddings.

        Args:
            features: one row per frame.
            lengths: valid frames of each item, at least 1; None when all frames are valid, which is faster.
        """
        num_frames = features.shape[1]
        if lengths is not None:
            # An item shorter than the context ends in zeros, here as when it is alone.
            features = hide(features, padding_mask(lengths, num_frames)[:, :, None])
        x = features.transpose(1, 2)
        if num_frames < self.min_frames:
            x = F.pad(x, (0, self.min_frames - num_frames))
        for layer in self.layers:
            x = layer(x)
        padding = None
        if lengths is not None:
            num_out = lengths.clamp(min=self.min_frames) - (self.min_frames - 1)
            padding = padding_mask(num_out, x.shape[2])[:, None, :]
        pooled = torch.cat(mean_and_deviation(x, padding), dim=1)
        embedding: Tensor = self.second_linear(self.first_bn(F.relu(self.first_linear(pooled))))
        return embedding


class ContextLayer(nn.Module):
    """A convolution without padding, with bias, then ReLU, then BN without scale and offset."""

    def __init__(self, num_in: int, layer: Layer) -> None:
        super().__init__()
        self.conv = nn.Conv1d(num_in, layer.num_out, layer.kernel, dilation=layer.dilation)
        self.bn = nn.BatchNorm1d(layer.num_out, affine=False)

    def forward(self, x: Frames) -> Float[Tensor, "batch num_out frames_after"]:
        """Returns the layer's sequence, shorter by its context."""
        y: Tensor = self.bn(F.relu(self.conv(x), inplace=True))
        return y
