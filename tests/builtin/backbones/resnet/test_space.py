import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from greensv.builtin.backbones.resnet.space import MAX_DEPTH, SPACE, blocks_per_stage, shape_of
from greensv.builtin.backbones.resnet.systems import SYSTEMS
from greensv.errors import ConfigError
from greensv.speaker.space import Params, defaults

BLOCKS_OF_SYSTEM = {
    "ResNet-419-D": (4, 44, 87, 4),
    "ResNet-200-D": (3, 24, 36, 3),
    "ResNet-101-D": (3, 4, 23, 3),
    "ResNet-50-D": (3, 4, 6, 3),
    "ResNet-34-D": (3, 4, 6, 3),
    "ResNet-18-D": (2, 2, 2, 2),
    "ResNet-50-D[8,2,2,2]": (8, 2, 2, 2),
    "ResNet-50-D[2,8,2,2]": (2, 8, 2, 2),
    "ResNet-50-D[2,2,8,2]": (2, 2, 8, 2),
    "ResNet-50-D[2,2,2,8]": (2, 2, 2, 8),
    "ResNet-50-D[2,6,6,2]": (2, 6, 6, 2),
    "ResNet-50-W4": (3, 4, 6, 3),
    "ResNet-50-W2": (3, 4, 6, 3),
    "ResNet-50-W0.5": (3, 4, 6, 3),
    "ResNet-50-W0.25": (3, 4, 6, 3),
}

shares = st.lists(st.floats(0.01, 1.0), min_size=4, max_size=4)


def point(**changes: float | str) -> Params:
    return {**defaults(SPACE), **changes}


@given(depth=st.integers(4, MAX_DEPTH), shares=shares)
def test_every_stage_gets_a_block_and_all_blocks_are_shared_out(depth: int, shares: list[float]) -> None:
    blocks = blocks_per_stage(depth, shares)
    assert min(blocks) >= 1
    assert sum(blocks) == depth


@given(depth=st.integers(4, MAX_DEPTH), shares=shares)
def test_a_stage_with_a_larger_share_never_gets_fewer_blocks(depth: int, shares: list[float]) -> None:
    blocks = blocks_per_stage(depth, shares)
    for i in range(4):
        for j in range(4):
            if shares[i] > shares[j] * (1 + 1e-9):
                assert blocks[i] >= blocks[j]


@given(blocks=st.lists(st.integers(1, 34), min_size=4, max_size=4))
def test_shares_in_the_ratio_of_whole_blocks_give_these_blocks(blocks: list[int]) -> None:
    shares = [number / max(blocks) for number in blocks]
    assert blocks_per_stage(sum(blocks), shares) == tuple(blocks)


def test_remainders_are_shared_out_from_the_largest() -> None:
    # Quotas 1.75, 3.5, 1.05, 0.7: the last gets its one block, the others share six as 1.67, 3.33, 1.
    assert blocks_per_stage(7, [0.25, 0.5, 0.15, 0.1]) == (2, 3, 1, 1)


def test_stages_with_too_small_a_share_get_one_block_and_the_others_the_rest() -> None:
    assert blocks_per_stage(50, [0.01, 0.01, 1.0, 0.01]) == (1, 1, 47, 1)
    assert blocks_per_stage(4, [0.01, 1.0, 1.0, 1.0]) == (1, 1, 1, 1)
    assert blocks_per_stage(5, [1.0, 1.0, 1.0, 1.0]) == (2, 1, 1, 1)


@pytest.mark.parametrize("name", BLOCKS_OF_SYSTEM)
def test_a_system_has_the_blocks_of_the_paper(name: str) -> None:
    assert shape_of(SYSTEMS[name]).blocks == BLOCKS_OF_SYSTEM[name]


def test_systems_are_the_fifteen_of_the_table() -> None:
    assert list(SYSTEMS) == list(BLOCKS_OF_SYSTEM)


@pytest.mark.parametrize(("name", "num_layers"), [("ResNet-419-D", 419), ("ResNet-34-D", 34), ("ResNet-18-D", 18)])
def test_layers_are_counted_as_in_the_name(name: str, num_layers: int) -> None:
    assert shape_of(SYSTEMS[name]).num_layers == num_layers


def test_width_scales_the_channels_in_multiples_of_four() -> None:
    assert shape_of(SYSTEMS["ResNet-50-W4"]).channels == (512, 512, 1024, 1024)
    assert shape_of(SYSTEMS["ResNet-50-W0.25"]).channels == (32, 32, 64, 64)
    assert shape_of(point(channels="classic", width_log2=-4)).channels == (4, 4, 8, 16)
    # 32 · 2^-1.5 = 11.3, 22.6, 45.3, 90.5
    assert shape_of(point(channels="classic", width_log2=-1.5)).channels == (12, 24, 44, 92)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"depth": 3}, "depth: 3 is outside 4 to 139"),
        ({"depth": 8.0}, "depth: 8.0 is not a whole number"),
        ({"width_log2": 0.3}, "width_log2: 0.3 is not -4.0 plus a multiple of 0.5"),
        ({"share_2": math.nan}, "share_2: nan is not a number"),
        ({"channels": "wide"}, "channels: 'wide' is not one of classic, paper"),
        ({"blok": "basic-2"}, "unknown parameter 'blok'; did you mean 'block'?"),
    ],
)
def test_a_point_outside_the_space_is_refused(changes: dict[str, float | str], message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        shape_of(point(**changes))
    assert message in str(caught.value)


def test_all_mistakes_of_a_point_are_named_together() -> None:
    params = {name: value for name, value in point(depth=200).items() if name != "share_3"}
    with pytest.raises(ConfigError, match=r"depth: 200 is outside 4 to 139; share_3: missing"):
        shape_of(params)
