"""The backbone: its search space, and how to build the network of one point in it."""

from typing import TYPE_CHECKING

from greensv.config import FeatureConfig
from greensv.speaker.backbone import Backbone
from greensv.speaker.space import IntRange, Params, Space

if TYPE_CHECKING:
    from torch import nn


class MeanPooling(Backbone):
    """Frames through a small network, their mean over time through another: an x-vector without context."""

    name = "mean-pooling"
    version = 1

    def space(self) -> Space:
        """Returns the width of the layers and the size of the embedding."""
        return {
            "width": IntRange(low=8, high=512, default=64, log=True),
            "embedding_dim": IntRange(low=16, high=256, default=64, log=True),
        }

    def build(self, params: Params, *, features: FeatureConfig) -> "nn.Module":
        """Returns the network of one point of the space."""
        from greensv_template.network import MeanPoolingNetwork

        return MeanPoolingNetwork(
            num_features=features.num_features, width=int(params["width"]), embedding_dim=int(params["embedding_dim"])
        )
