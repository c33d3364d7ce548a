"""The backbone: its search space, the shape of the network at one of its points, and the published one."""

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import TYPE_CHECKING

from greensv.config import FeatureConfig
from greensv.speaker.backbone import Backbone
from greensv.speaker.space import IntRange, Params, Space, check_point, defaults

if TYPE_CHECKING:
    from torch import nn

LAYERS = ("layers_1", "layers_2", "layers_3")

SPACE: Space = MappingProxyType(
    {
        "front_channels": IntRange(low=8, high=64, default=32, log=True),
        "initial_channels": IntRange(low=32, high=256, default=128, log=True),
        "growth": IntRange(low=8, high=64, default=32, log=True),
        "bottleneck": IntRange(low=16, high=256, default=128, log=True),
        "layers_1": IntRange(low=2, high=24, default=12, log=True),
        "layers_2": IntRange(low=2, high=48, default=24, log=True),
        "layers_3": IntRange(low=2, high=32, default=16, log=True),
        "embedding_dim": IntRange(low=64, high=512, default=512, log=True),
    }
)
"""Channels of the two-dimensional front, and at the entrance of the dense blocks; `layers_N` layers in block N, each of
which adds `growth` channels through a `bottleneck`."""

SYSTEMS: Mapping[str, Params] = MappingProxyType({"CAM++": defaults(SPACE)})


@dataclass(frozen=True, slots=True, kw_only=True)
class Shape:
    """All that fixes a network beside its input."""

    front_channels: int
    initial_channels: int
    growth: int
    bottleneck: int
    layers: tuple[int, ...]
    embedding_dim: int


def shape_of(params: Params) -> Shape:
    """Returns the shape of the network at one point of the space.

    Raises:
        ConfigError: a parameter is unknown, missing or outside the space; names all of them.
    """
    check_point(params, SPACE, name="campplus")
    return Shape(
        front_channels=int(params["front_channels"]),
        initial_channels=int(params["initial_channels"]),
        growth=int(params["growth"]),
        bottleneck=int(params["bottleneck"]),
        layers=tuple(int(params[name]) for name in LAYERS),
        embedding_dim=int(params["embedding_dim"]),
    )


class Campplus(Backbone):
    """CAM++: convolutions over time and frequency, then densely connected layers that mask what they add."""

    name = "campplus"
    version = 1
    published_features = FeatureConfig(use_energy=False)

    def space(self) -> Space:
        """Returns channels of the front and of the entrance, growth, bottleneck, layers of the blocks, embedding."""
        return SPACE

    def build(self, params: Params, *, features: FeatureConfig) -> "nn.Module":
        """Returns the network at one point of the space, for features of any number per frame.

        Raises:
            ConfigError: a parameter is unknown, missing or outside the space.
        """
        from greensv_campplus.network import CampplusNetwork

        return CampplusNetwork(shape_of(params), num_features=features.num_features)

    def systems(self) -> Mapping[str, Params]:
        """Returns the network of the paper."""
        return SYSTEMS

    def summary(self, params: Params) -> dict[str, object]:
        """Returns the layers of each dense block."""
        return {"num_layers": list(shape_of(params).layers)}
