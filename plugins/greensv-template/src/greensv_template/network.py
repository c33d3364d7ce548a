"""The network: torch is imported here, and only when a network is built."""

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn


class MeanPoolingNetwork(nn.Module):
    """Two layers per frame, the mean over the valid frames, and a linear layer to the embedding."""

    def __init__(self, *, num_features: int, width: int, embedding_dim: int) -> None:
        super().__init__()
        self.embedding_dim = embedding_dim
        self.frame_layers = nn.Sequential(nn.Linear(num_features, width), nn.ReLU(), nn.Linear(width, width), nn.ReLU())
        self.embedding_layer = nn.Linear(width, embedding_dim)

    def forward(
        self, features: Float[Tensor, "batch frames features"], lengths: Int[Tensor, " batch"] | None = None
    ) -> Float[Tensor, "batch embedding"]:
        """Returns one embedding per item; frames at and beyond an item's length do not count."""
        hidden = self.frame_layers(features)
        if lengths is None:
            mean = hidden.mean(dim=1)
        else:
            is_valid = torch.arange(hidden.shape[1], device=hidden.device) < lengths[:, None]
            mean = hidden.masked_fill(~is_valid[:, :, None], 0.0).sum(dim=1) / lengths[:, None]
        embedding: Tensor = self.embedding_layer(mean)
        return embedding
