"""The interface of a backbone: a search space, and how to build the network of one point in it.

Importing this module loads no torch, so that `greensv plugins` stays quick.
"""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import TYPE_CHECKING, ClassVar

from greensv.config import FeatureConfig
from greensv.speaker import space as spaces
from greensv.speaker.space import Params, Space

if TYPE_CHECKING:
    from torch import nn


class Backbone(ABC):
    """A family of networks from features to a speaker embedding.

    The network's `forward(features, lengths)` takes `features` of shape (batch, frames, features) and `lengths` of
    shape (batch,), the number of valid frames of each item, or None when all frames are valid. It returns embeddings of
    shape (batch, embedding). The embedding of an item must not depend on the padding behind it. The network has an
    integer attribute `embedding_dim`.

    A complete backbone::

        class MeanPooling(Backbone):
            name = "mean-pooling"
            version = 1

            def space(self):
                return {"width": IntRange(low=8, high=512, default=64, log=True)}

            def build(self, params, *, features):
                return MeanPoolingNetwork(features.num_features, int(params["width"]))
    """

    name: ClassVar[str]
    version: ClassVar[int] = 1
    """Raised whenever the same parameters build a network that cannot load the older one's weights."""
    published_features: ClassVar[FeatureConfig] = FeatureConfig()
    """What the named systems read where they were published: `greensv describe` counts networks with it."""

    @abstractmethod
    def space(self) -> Space:
        """Returns the full search space, parameter by parameter; a study narrows it."""

    @abstractmethod
    def build(self, params: Params, *, features: FeatureConfig) -> "nn.Module":
        """Returns a new network for one point of the space, randomly initialised from torch's generator.

        Raises:
            ConfigError: the parameters do not make a network.
        """

    def systems(self) -> Mapping[str, Params]:
        """Returns published or named systems of this family, as points of the space."""
        return {}

    def ends(self, space: Space) -> tuple[Params, Params]:
        """Returns the cheapest and the dearest point of a (narrowed) space."""
        return spaces.lowest(space), spaces.highest(space)

    def summary(self, params: Params) -> dict[str, object]:
        """Returns what a reader wants to know of the network beside its parameters, such as blocks per stage."""
        return {}
