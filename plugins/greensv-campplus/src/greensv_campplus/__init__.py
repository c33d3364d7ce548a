"""`campplus`: CAM++, a densely connected time delay network whose layers mask their output by its context.

Wang et al. 2023, "CAM++: A Fast and Efficient Network for Speaker Verification Using Context-Aware Masking",
arXiv 2303.00332. Written from what is published about it, not from anybody's code; README.md says what is assumed.
"""

from collections.abc import Iterable

from greensv.hookspecs import hookimpl
from greensv.speaker.backbone import Backbone
from greensv_campplus.backbone import Campplus


@hookimpl
def greensv_backbones() -> Iterable[Backbone]:
    """Provides `campplus`."""
    return [Campplus()]
