"""The fifteen systems of the paper's Table 1 as points of the space. Loads no torch."""

import math
from collections.abc import Mapping
from types import MappingProxyType

from greensv.builtin.backbones.resnet.space import SHARES
from greensv.speaker.space import Params


def _system(*blocks: int, block: str = "basic-3", width: float = 1.0) -> Params:
    shares = {name: number / max(blocks) for name, number in zip(SHARES, blocks, strict=True)}
    return {"depth": sum(blocks), "width_log2": math.log2(width), **shares, "channels": "paper", "block": block}


# The counts published for 18-D and 34-D are those of blocks with two convolutions; all others have three.
SYSTEMS: Mapping[str, Params] = MappingProxyType(
    {
        "ResNet-419-D": _system(4, 44, 87, 4),
        "ResNet-200-D": _system(3, 24, 36, 3),
        "ResNet-101-D": _system(3, 4, 23, 3),
        "ResNet-50-D": _system(3, 4, 6, 3),
        "ResNet-34-D": _system(3, 4, 6, 3, block="basic-2"),
        "ResNet-18-D": _system(2, 2, 2, 2, block="basic-2"),
        "ResNet-50-D[8,2,2,2]": _system(8, 2, 2, 2),
        "ResNet-50-D[2,8,2,2]": _system(2, 8, 2, 2),
        "ResNet-50-D[2,2,8,2]": _system(2, 2, 8, 2),
        "ResNet-50-D[2,2,2,8]": _system(2, 2, 2, 8),
        "ResNet-50-D[2,6,6,2]": _system(2, 6, 6, 2),
        "ResNet-50-W4": _system(3, 4, 6, 3, width=4.0),
        "ResNet-50-W2": _system(3, 4, 6, 3, width=2.0),
        "ResNet-50-W0.5": _system(3, 4, 6, 3, width=0.5),
        "ResNet-50-W0.25": _system(3, 4, 6, 3, width=0.25),
    }
)
