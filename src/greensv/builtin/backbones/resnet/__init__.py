"""`resnet`: pre-activation residual networks with squeeze-and-excitation and attentive statistics pooling.

The family of the paper, and around it: narrower stages, bottlenecks, any distribution of blocks. Loads torch only when
a network is built.
"""

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING

from greensv.builtin.backbones.resnet.space import SPACE, shape_of
from greensv.builtin.backbones.resnet.systems import SYSTEMS
from greensv.config import FeatureConfig
from greensv.hookspecs import hookimpl
from greensv.speaker.backbone import Backbone
from greensv.speaker.space import Params, Space

if TYPE_CHECKING:
    from torch import nn


class ResNet(Backbone):
    """Pre-activation residual networks: squeeze-and-excitation in stages 1 and 2, attentive statistics pooling."""

    name = "resnet"
    version = 1

    def space(self) -> Space:
        """Returns depth, width, the stages' shares, their channels, and the kind of block."""
        return SPACE

    def build(self, params: Params, *, features: FeatureConfig) -> "nn.Module":
        """Returns the network at one point of the space, for features of any number per frame.

        Raises:
            ConfigError: a parameter is unknown, missing or outside the space.
        """
        from greensv.builtin.backbones.resnet.network import ResNetNetwork

        return ResNetNetwork(shape_of(params), num_features=features.num_features)

    def systems(self) -> Mapping[str, Params]:
        """Returns the fifteen systems of the paper's Table 1."""
        return SYSTEMS

    def summary(self, params: Params) -> dict[str, object]:
        """Returns `blocks` and `channels` of each stage, and `num_layers` as the paper counts them."""
        shape = shape_of(params)
        return {"blocks": list(shape.blocks), "channels": list(shape.channels), "num_layers": shape.num_layers}


@hookimpl
def greensv_backbones() -> Iterable[Backbone]:
    """Provides `resnet`."""
    return [ResNet()]
