"""The search space of `resnet`, and the shape of the network at one of its points. Loads no torch."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType

from greensv.errors import ConfigError, did_you_mean
from greensv.speaker.space import Choice, FloatRange, IntRange, Params, Space

CHANNELS: Mapping[str, tuple[int, ...]] = MappingProxyType(
    {"classic": (32, 64, 128, 256), "paper": (128, 128, 256, 256)}
)
"""Channels of the four stages at width 1."""
SHARES = ("share_1", "share_2", "share_3", "share_4")
MAX_DEPTH = 139
"""Blocks of ResNet-419-D: 4 + 44 + 87 + 4."""

SPACE: Space = MappingProxyType(
    {
        "depth": IntRange(low=4, high=MAX_DEPTH, default=16, log=True),
        "width_log2": FloatRange(low=-4.0, high=2.0, default=0.0, step=0.5),
        "share_1": FloatRange(low=0.01, high=1.0, default=0.5),
        "share_2": FloatRange(low=0.01, high=1.0, default=0.67),
        "share_3": FloatRange(low=0.01, high=1.0, default=1.0),
        "share_4": FloatRange(low=0.01, high=1.0, default=0.5),
        "channels": Choice(options=("classic", "paper"), default="classic"),
        "block": Choice(options=("basic-2", "basic-3", "bottleneck"), default="basic-2"),
    }
)
"""`depth` counts blocks, not layers. A share is relative to the other three: only their ratios matter."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Shape:
    """Blocks and channels of each stage, and the kind of block: all that fixes a network beside its input."""

    blocks: tuple[int, ...]
    channels: tuple[int, ...]
    """Of the 3×3 convolutions; a bottleneck's output has four times as many."""
    block: str

    @property
    def num_layers(self) -> int:
        """Layers as the paper counts them in a network's name: stem, convolutions in blocks, embedding."""
        return 2 + (2 if self.block == "basic-2" else 3) * sum(self.blocks)


def shape_of(params: Params) -> Shape:
    """Returns the shape of the network at one point of the space.

    Raises:
        ConfigError: a parameter is unknown, missing or outside the space; names all of them.
    """
    problems = [f"unknown parameter {name!r}{did_you_mean(name, SPACE)}" for name in params if name not in SPACE]
    for name, parameter in SPACE.items():
        problem = parameter.problem(params[name]) if name in params else "missing"
        if problem:
            problems.append(f"{name}: {problem}")
    if problems:
        raise ConfigError(f"these parameters make no resnet: {'; '.join(problems)} (parameters: {', '.join(SPACE)})")
    shares = [float(params[name]) for name in SHARES]
    return Shape(
        blocks=blocks_per_stage(int(params["depth"]), shares),
        channels=tuple(_scaled(c, float(params["width_log2"])) for c in CHANNELS[str(params["channels"])]),
        block=str(params["block"]),
    )


def blocks_per_stage(depth: int, shares: Sequence[float]) -> tuple[int, ...]:
    """Shares `depth` blocks out among the stages by largest remainder, at least one block a stage.

    Stages whose share is less than one block get one, and the others share the rest. Remainders that are equal go to
    the earlier stage. `depth` is at least the number of stages, and shares are positive.
    """
    blocks = [1] * len(shares)
    quotas = _quotas(range(len(shares)), shares, depth=depth)
    while small := [stage for stage, quota in quotas.items() if quota < 1]:
        rest = [stage for stage in quotas if stage not in small]
        quotas = _quotas(rest, shares, depth=depth - len(shares) + len(rest))
    for stage, quota in quotas.items():
        blocks[stage] = math.floor(quota)
    by_remainder = sorted(quotas, key=lambda stage: math.floor(quotas[stage]) - quotas[stage])
    for stage in by_remainder[: depth - sum(blocks)]:
        blocks[stage] += 1
    return tuple(blocks)


def _quotas(stages: Sequence[int], shares: Sequence[float], *, depth: int) -> dict[int, float]:
    total = sum(shares[stage] for stage in stages)
    return {stage: depth * shares[stage] / total for stage in stages}


def _scaled(channels: int, width_log2: float) -> int:
    """Channels at a width, in multiples of 4, which memory and vector units like."""
    return max(4, 4 * round(channels * 2**width_log2 / 4))
