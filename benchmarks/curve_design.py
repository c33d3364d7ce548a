"""The architectures of `learning_curves.py`: small ResNets, spread over depth, width and the stages' shares."""

import itertools
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

NUM_ARCHITECTURES = 24
NUM_MEL_BINS, FRAME_SHIFT_MS = 40, 20.0
"""Half the bins and half the frames of the usual: convolutions cost a quarter."""
NUM_FRAMES = 175
"""Frames of the 3.5 s for which MACs and activations are stated."""
DESIGN_SEED = 0
SHARES = ("share_1", "share_2", "share_3", "share_4")
DEPTHS, WIDTHS_LOG2 = (4, 10), (-4.0, -2.0)
ENDS = ((4, -4.0), (10, -4.0), (4, -2.0), (4, -1.5))
"""Depth and width of the ends, which the design begins with, two of them as wide as none else; all shares alike."""
MAX_MACS = 42_000_000
"""Other points beyond it, wide and deep at once, are left out: a training should take less than three minutes."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Architecture:
    """A point of the space of `resnet`, and what its network is."""

    number: int
    params: Mapping[str, Any]
    blocks: tuple[int, ...]
    channels: tuple[int, ...]
    num_parameters: int
    macs: int
    activations: int


def design() -> list[Architecture]:
    """Returns the corners, then Roberts' additive recurrence (R_6) over depth, width and shares, each network once.

    M. Roberts 2018, "The unreasonable effectiveness of quasirandom sequences": x_n = frac(s + n·φ^−j), j = 1…6, φ the
    root of φ^7 = φ + 1.
    """
    phi = max(np.roots([1, 0, 0, 0, 0, 0, -1, -1]).real)
    steps = phi ** -np.arange(1.0, 7.0)
    start = np.random.default_rng(DESIGN_SEED).random(6)
    found: list[Architecture] = []
    points = ((depth, width, dict.fromkeys(SHARES, 1.0)) for depth, width in ENDS)
    for depth, width, shares in itertools.chain(points, (_point((start + n * steps) % 1) for n in itertools.count(1))):
        params = {"depth": depth, "width_log2": width, **shares, "channels": "classic", "block": "basic-2"}
        built = _describe(len(found), params)
        is_affordable = len(found) < len(ENDS) or built.macs <= MAX_MACS
        if is_affordable and all((a.blocks, a.channels) != (built.blocks, built.channels) for a in found):
            found.append(built)
        if len(found) == NUM_ARCHITECTURES:
            break
    return found


def _point(unit: NDArray[np.float64]) -> tuple[int, float, dict[str, float]]:
    lowest, highest = DEPTHS
    depth = lowest + int(unit[0] * (highest - lowest + 1))
    num_widths = round(2 * (WIDTHS_LOG2[1] - WIDTHS_LOG2[0])) + 1
    width = WIDTHS_LOG2[0] + int(unit[1] * num_widths) / 2
    return depth, width, {name: round(0.1 + 0.9 * float(u), 3) for name, u in zip(SHARES, unit[2:], strict=True)}


def _describe(number: int, params: Mapping[str, Any]) -> Architecture:
    from greensv.plugins import load_plugins
    from greensv.speaker.complexity import describe_network

    backbone = load_plugins(third_party=False).get("backbone", "resnet")
    fed = features()
    size = describe_network(lambda: backbone.build(params, features=fed), features=fed, num_frames=NUM_FRAMES)
    summary = backbone.summary(params)
    return Architecture(
        number=number,
        params=params,
        blocks=tuple(summary["blocks"]),
        channels=tuple(summary["channels"]),
        num_parameters=size.num_parameters,
        macs=size.macs,
        activations=size.activations,
    )


def features() -> Any:
    from greensv.config import FeatureConfig

    return FeatureConfig(num_mel_bins=NUM_MEL_BINS, use_energy=False, frame_shift_ms=FRAME_SHIFT_MS)
