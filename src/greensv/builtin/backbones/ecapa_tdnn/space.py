"""The search space of `ecapa-tdnn`, the shape of the network at one of its points, and named ones. Loads no torch."""

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

from greensv.speaker.space import Choice, IntRange, Params, Space, check_point, defaults

CHANNEL_MULTIPLE = 16
"""Channels are a multiple of it, so that every number of Res2 groups divides them."""
FIRST_KERNEL = 5

SPACE: Space = MappingProxyType(
    {
        "channels": IntRange(low=32, high=2048, default=512, log=True),
        "num_blocks": IntRange(low=1, high=6, default=3),
        "kernel": Choice(options=("3", "5", "7"), default="3"),
        "dilation": Choice(options=("none", "linear", "doubling"), default="linear"),
        "num_groups": Choice(options=("8", "4", "2", "1"), default="8"),
        "aggregated": IntRange(low=64, high=4096, default=1536, log=True),
        "aggregation": Choice(options=("plain", "normalised"), default="plain"),
        "embedding_dim": IntRange(low=64, high=512, default=192, log=True),
    }
)
"""`channels` are rounded to multiples of 16. Dilations of the blocks: 1, 1, 1, …; 2, 3, 4, … as in the paper; or 2, 4,
8, …. `num_groups` is Res2Net's scale: all groups but one are convolved, so more of them cost less. `aggregated` counts
the channels made of all blocks' outputs; `normalised` puts BN behind them, and ReLU and BN into the attention, as
SpeechBrain does."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Shape:
    """All that fixes a network beside its input."""

    num_channels: int
    dilations: tuple[int, ...]
    """Of each block's Res2 convolutions."""
    kernel: int
    num_groups: int
    num_aggregated: int
    is_normalised: bool
    embedding_dim: int

    @property
    def receptive_field_frames(self) -> int:
        """Frames that one frame behind the last block depends on, but for the means of squeeze-and-excitation."""
        num_in_chain = max(self.num_groups - 1, 1)
        reach = sum(dilation * (self.kernel - 1) * num_in_chain for dilation in self.dilations)
        return FIRST_KERNEL + reach


def shape_of(params: Params) -> Shape:
    """Returns the shape of the network at one point of the space.

    Raises:
        ConfigError: a parameter is unknown, missing or outside the space; names all of them.
    """
    check_point(params, SPACE, name="ecapa-tdnn")
    return Shape(
        num_channels=CHANNEL_MULTIPLE * round(int(params["channels"]) / CHANNEL_MULTIPLE),
        dilations=_dilations(str(params["dilation"]), num_blocks=int(params["num_blocks"])),
        kernel=int(params["kernel"]),
        num_groups=int(params["num_groups"]),
        num_aggregated=int(params["aggregated"]),
        is_normalised=params["aggregation"] == "normalised",
        embedding_dim=int(params["embedding_dim"]),
    )


def _dilations(growth: str, *, num_blocks: int) -> tuple[int, ...]:
    match growth:
        case "linear":
            return tuple(2 + index for index in range(num_blocks))
        case "doubling":
            return tuple(2 ** (1 + index) for index in range(num_blocks))
        case _:
            return (1,) * num_blocks


SYSTEMS: Mapping[str, Params] = MappingProxyType(
    {
        "ECAPA-TDNN-512": defaults(SPACE),
        "ECAPA-TDNN-1024": {**defaults(SPACE), "channels": 1024},
        "SpeechBrain-ECAPA-TDNN": {
            **defaults(SPACE),
            "channels": 1024,
            "aggregated": 3072,
            "aggregation": "normalised",
        },
    }
)
"""WeSpeaker's c512 and c1024, which are the paper's, and SpeechBrain's recipe for VoxCeleb."""
