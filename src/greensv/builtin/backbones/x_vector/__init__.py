"""`x-vector`: a time delay network with plain statistics pooling, the field's first deep embedding in wide use.

Snyder et al. 2018, "X-Vectors: Robust DNN Embeddings for Speaker Recognition". The system has the parameters and MACs
of WeSpeaker's `XVEC` to the last one. As there, the embedding is what the second of the two layers behind the pooling
puts out, since a head with a margin is trained on it; the paper takes the first layer's.

Convolutions do not pad: 14 frames are lost to the context. An item of fewer than 15 frames is filled up with zeros.
"""

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING

from greensv.builtin.backbones.x_vector.space import SPACE, SYSTEMS, shape_of
from greensv.config import FeatureConfig
from greensv.hookspecs import hookimpl
from greensv.speaker.backbone import Backbone
from greensv.speaker.space import Params, Space

if TYPE_CHECKING:
    from torch import nn


class XVector(Backbone):
    """x-vectors: a time delay network, mean and standard deviation over time, two layers to the embedding."""

    name = "x-vector"
    version = 1
    published_features = FeatureConfig(use_energy=False, window="hamming", high_freq_hz=0.0)

    def space(self) -> Space:
        """Returns widths of the layers, their number, and the size of the embedding."""
        return SPACE

    def build(self, params: Params, *, features: FeatureConfig) -> "nn.Module":
        """Returns the network at one point of the space, for features of any number per frame.

        Raises:
            ConfigError: a parameter is unknown, missing or outside the space.
        """
        from greensv.builtin.backbones.x_vector.network import XVectorNetwork

        return XVectorNetwork(shape_of(params), num_features=features.num_features)

    def systems(self) -> Mapping[str, Params]:
        """Returns the network of the paper, which is WeSpeaker's."""
        return SYSTEMS

    def summary(self, params: Params) -> dict[str, object]:
        """Returns the frames that one frame before the pooling depends on."""
        return {"receptive_field_frames": shape_of(params).receptive_field_frames}


@hookimpl
def greensv_backbones() -> Iterable[Backbone]:
    """Provides `x-vector`."""
    return [XVector()]
