"""The search space of `x-vector`, the shape of the network at one of its points, and the named one. Loads no torch."""

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

from greensv.speaker.space import IntRange, Params, Space, check_point, defaults

SPACE: Space = MappingProxyType(
    {
        "channels": IntRange(low=32, high=2048, default=512, log=True),
        "num_context_layers": IntRange(low=0, high=5, default=2),
        "num_dense_layers": IntRange(low=0, high=4, default=1),
        "pooled": IntRange(low=64, high=4096, default=1500, log=True),
        "embedding_dim": IntRange(low=64, high=1024, default=512, log=True),
    }
)
"""After a first layer over 5 frames, `num_context_layers` over 3 frames each that lie 2, 3, 4, … apart, then
`num_dense_layers` over one frame, all of `channels`; a last one over one frame makes the `pooled` channels."""

SYSTEMS: Mapping[str, Params] = MappingProxyType({"X-Vector": defaults(SPACE)})


@dataclass(frozen=True, slots=True, kw_only=True)
class Layer:
    """One layer over time: frames it sees, `dilation` apart from each other."""

    num_out: int
    kernel: int
    dilation: int = 1

    @property
    def num_lost_frames(self) -> int:
        """Frames by which its output is shorter than its input."""
        return self.dilation * (self.kernel - 1)


@dataclass(frozen=True, slots=True, kw_only=True)
class Shape:
    """All that fixes a network beside its input."""

    layers: tuple[Layer, ...]
    embedding_dim: int

    @property
    def receptive_field_frames(self) -> int:
        """The least frames an item must have."""
        return 1 + sum(layer.num_lost_frames for layer in self.layers)


def shape_of(params: Params) -> Shape:
    """Returns the shape of the network at one point of the space.

    Raises:
        ConfigError: a parameter is unknown, missing or outside the space; names all of them.
    """
    check_point(params, SPACE, name="x-vector")
    channels = int(params["channels"])
    layers = (
        Layer(num_out=channels, kernel=5),
        *(Layer(num_out=channels, kernel=3, dilation=2 + i) for i in range(int(params["num_context_layers"]))),
        *(Layer(num_out=channels, kernel=1) for _ in range(int(params["num_dense_layers"]))),
        Layer(num_out=int(params["pooled"]), kernel=1),
    )
    return Shape(layers=layers, embedding_dim=int(params["embedding_dim"]))
