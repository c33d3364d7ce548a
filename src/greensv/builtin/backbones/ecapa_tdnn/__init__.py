"""`ecapa-tdnn`: time delay networks with Res2 convolutions, squeeze-and-excitation and channel-wise attentive pooling.

Desplanques et al. 2020, "ECAPA-TDNN: Emphasized Channel Attention, Propagation and Aggregation in TDNN Based Speaker
Verification", arXiv 2005.07143. The systems have the parameters of WeSpeaker's `ECAPA_TDNN_GLOB_c512` and `_c1024` and
of SpeechBrain's `ECAPA_TDNN` to the last one. What differs:

- The paper feeds each block the sum of all blocks before it. WeSpeaker and SpeechBrain do not, nor do we.
- The paper normalises the embedding once more (BN, 384 parameters). They do not, nor do we.
- The attention sees each frame beside the mean and the deviation of all. What it computes from these two is the same
  for all frames and is computed once, not once a frame: 138 million MACs fewer in 3.5 s, same parameters.
- SpeechBrain reflects the sequence at its ends for a convolution. The paper and WeSpeaker pad with zeros, as we do.
"""

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING

from greensv.builtin.backbones.ecapa_tdnn.space import SPACE, SYSTEMS, shape_of
from greensv.config import FeatureConfig
from greensv.hookspecs import hookimpl
from greensv.speaker.backbone import Backbone
from greensv.speaker.space import Params, Space

if TYPE_CHECKING:
    from torch import nn


class EcapaTdnn(Backbone):
    """ECAPA-TDNN: SE-Res2 blocks over time, their outputs aggregated, attentive statistics with global context."""

    name = "ecapa-tdnn"
    version = 1
    published_features = FeatureConfig(use_energy=False, window="hamming", high_freq_hz=0.0)

    def space(self) -> Space:
        """Returns channels, blocks, their convolutions, the width of the aggregation and of the embedding."""
        return SPACE

    def build(self, params: Params, *, features: FeatureConfig) -> "nn.Module":
        """Returns the network at one point of the space, for features of any number per frame.

        Raises:
            ConfigError: a parameter is unknown, missing or outside the space.
        """
        from greensv.builtin.backbones.ecapa_tdnn.network import EcapaTdnnNetwork

        return EcapaTdnnNetwork(shape_of(params), num_features=features.num_features)

    def systems(self) -> Mapping[str, Params]:
        """Returns the networks that WeSpeaker and SpeechBrain publish."""
        return SYSTEMS

    def summary(self, params: Params) -> dict[str, object]:
        """Returns the channels as they are built, each block's dilation and the frames that one of the last sees."""
        shape = shape_of(params)
        return {
            "num_channels": shape.num_channels,
            "dilations": list(shape.dilations),
            "receptive_field_frames": shape.receptive_field_frames,
        }


@hookimpl
def greensv_backbones() -> Iterable[Backbone]:
    """Provides `ecapa-tdnn`."""
    return [EcapaTdnn()]
