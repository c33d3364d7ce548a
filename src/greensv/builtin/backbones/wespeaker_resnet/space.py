"""The search space of `wespeaker-resnet`, the shape of a network, what it costs, and the systems. Loads no torch."""

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

from greensv.speaker.space import Choice, IntRange, Params, Space, check_point, defaults, highest, lowest

BLOCKS = ("blocks_1", "blocks_2", "blocks_3", "blocks_4")
CHANNELS = ("channels_1", "channels_2", "channels_3", "channels_4")
CHANNEL_MULTIPLE = 8
STRIDES = (1, 2, 2, 2)
BOTTLENECK_EXPANSION = 4

SPACE: Space = MappingProxyType(
    {
        "block": Choice(options=("basic", "bottleneck"), default="basic"),
        "blocks_1": IntRange(low=1, high=16, default=3, log=True),
        "blocks_2": IntRange(low=1, high=32, default=4, log=True),
        "blocks_3": IntRange(low=1, high=64, default=6, log=True),
        "blocks_4": IntRange(low=1, high=8, default=3, log=True),
        "channels_1": IntRange(low=8, high=128, default=32, log=True),
        "channels_2": IntRange(low=8, high=256, default=64, log=True),
        "channels_3": IntRange(low=8, high=512, default=128, log=True),
        "channels_4": IntRange(low=8, high=512, default=256, log=True),
        "embedding_dim": IntRange(low=64, high=512, default=256, log=True),
    }
)
"""Channels are rounded to multiples of 8; they are those of the 3×3 convolutions, and the stem has those of stage 1."""


def _system(block: str, *blocks: int) -> Params:
    return {**defaults(SPACE), "block": block, **dict(zip(BLOCKS, blocks, strict=True))}


SYSTEMS: Mapping[str, Params] = MappingProxyType(
    {
        "WeSpeaker-ResNet18": _system("basic", 2, 2, 2, 2),
        "WeSpeaker-ResNet34": _system("basic", 3, 4, 6, 3),
        "WeSpeaker-ResNet50": _system("bottleneck", 3, 4, 6, 3),
        "WeSpeaker-ResNet101": _system("bottleneck", 3, 4, 23, 3),
        "WeSpeaker-ResNet152": _system("bottleneck", 3, 8, 36, 3),
        "WeSpeaker-ResNet221": _system("bottleneck", 6, 16, 48, 3),
        "WeSpeaker-ResNet293": _system("bottleneck", 10, 20, 64, 3),
    }
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Shape:
    """All that fixes a network beside its input."""

    is_bottleneck: bool
    blocks: tuple[int, ...]
    channels: tuple[int, ...]
    """Of the 3×3 convolutions; a bottleneck's output has four times as many."""
    embedding_dim: int

    @property
    def num_layers(self) -> int:
        """Layers as in the networks' names: stem, convolutions in blocks, embedding."""
        return 2 + (3 if self.is_bottleneck else 2) * sum(self.blocks)

    def macs(self, *, num_features: int, num_frames: int) -> int:
        """Returns the multiply-accumulates of one item."""
        expansion = BOTTLENECK_EXPANSION if self.is_bottleneck else 1
        frames, bins, num_in = num_frames, num_features, self.channels[0]
        total = 9 * num_in * frames * bins
        for num_blocks, channels, stride in zip(self.blocks, self.channels, STRIDES, strict=True):
            num_out = expansion * channels
            for position in range(num_blocks):
                before = frames * bins
                if position == 0:
                    frames, bins = -(-frames // stride), -(-bins // stride)
                after = frames * bins
                if self.is_bottleneck:
                    total += num_in * channels * before + (9 * channels + num_out) * channels * after
                else:
                    total += 9 * (num_in + channels) * channels * after
                if position == 0 and (stride > 1 or num_in != num_out):
                    total += num_in * num_out * after
                num_in = num_out
        return total + 2 * num_in * bins * self.embedding_dim


def shape_of(params: Params) -> Shape:
    """Returns the shape of the network at one point of the space.

    Raises:
        ConfigError: a parameter is unknown, missing or outside the space; names all of them.
    """
    check_point(params, SPACE, name="wespeaker-resnet")
    return Shape(
        is_bottleneck=params["block"] == "bottleneck",
        blocks=tuple(int(params[name]) for name in BLOCKS),
        channels=tuple(CHANNEL_MULTIPLE * round(int(params[name]) / CHANNEL_MULTIPLE) for name in CHANNELS),
        embedding_dim=int(params["embedding_dim"]),
    )


def ends(space: Space) -> tuple[Params, Params]:
    """Returns the cheapest and the dearest point of a (narrowed) space by the MACs of the paper's crop."""

    def macs(params: Params) -> int:
        return shape_of(params).macs(num_features=80, num_frames=350)

    block = space["block"]
    assert isinstance(block, Choice)
    cheapest = min(({**lowest(space), "block": kind} for kind in block.options), key=macs)
    return cheapest, max(({**highest(space), "block": kind} for kind in block.options), key=macs)
