"""`wespeaker-resnet`: the residual networks of WeSpeaker, narrow at first, with plain statistics pooling.

He et al. 2016, "Deep Residual Learning for Image Recognition", as WeSpeaker builds them (`wespeaker/models/resnet.py`
at revision dfa74195, its options `TSTP` and one embedding layer): a stem without pooling, stages of 32, 64, 128 and 256
channels, basic blocks in R18 and R34, bottlenecks in the deeper ones. Parameters and MACs of the seven systems equal
those of WeSpeaker's code to the last one. A number of features that is no multiple of 8 is possible here.

`resnet` is the other family: pre-activation, SiLU, squeeze-and-excitation, attentive pooling.
"""

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING

from greensv.builtin.backbones.wespeaker_resnet import space as spaces
from greensv.builtin.backbones.wespeaker_resnet.space import SPACE, SYSTEMS, shape_of
from greensv.config import FeatureConfig
from greensv.hookspecs import hookimpl
from greensv.speaker.backbone import Backbone
from greensv.speaker.space import Params, Space

if TYPE_CHECKING:
    from torch import nn


class WeSpeakerResNet(Backbone):
    """WeSpeaker's residual networks: basic blocks or bottlenecks, mean and standard deviation over time."""

    name = "wespeaker-resnet"
    version = 1
    published_features = FeatureConfig(use_energy=False, window="hamming", high_freq_hz=0.0)

    def space(self) -> Space:
        """Returns the kind of block, blocks and channels of each stage, and the size of the embedding."""
        return SPACE

    def build(self, params: Params, *, features: FeatureConfig) -> "nn.Module":
        """Returns the network at one point of the space, for features of any number per frame.

        Raises:
            ConfigError: a parameter is unknown, missing or outside the space.
        """
        from greensv.builtin.backbones.wespeaker_resnet.network import WeSpeakerResNetNetwork

        return WeSpeakerResNetNetwork(shape_of(params), num_features=features.num_features)

    def systems(self) -> Mapping[str, Params]:
        """Returns WeSpeaker's R18, R34, R50, R101, R152, R221 and R293."""
        return SYSTEMS

    def ends(self, space: Space) -> tuple[Params, Params]:
        """Returns the cheapest and the dearest point: which kind of block costs less depends on blocks and channels."""
        return spaces.ends(space)

    def summary(self, params: Params) -> dict[str, object]:
        """Returns `blocks` and `channels` of each stage, and `num_layers` as the networks' names count them."""
        shape = shape_of(params)
        return {"blocks": list(shape.blocks), "channels": list(shape.channels), "num_layers": shape.num_layers}


@hookimpl
def greensv_backbones() -> Iterable[Backbone]:
    """Provides `wespeaker-resnet`."""
    return [WeSpeakerResNet()]
