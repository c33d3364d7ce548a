from itertools import product

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from greensv.builtin.backbones.wespeaker_resnet import WeSpeakerResNet, greensv_backbones
from greensv.builtin.backbones.wespeaker_resnet.blocks import Basic, Bottleneck
from greensv.builtin.backbones.wespeaker_resnet.network import WeSpeakerResNetNetwork
from greensv.builtin.backbones.wespeaker_resnet.space import BLOCKS, CHANNELS, SPACE, SYSTEMS, shape_of
from greensv.errors import ConfigError
from greensv.speaker.complexity import count_macs, describe_network
from greensv.speaker.space import defaults, narrow

# Of wespeaker.models.resnet's ResNet18 to ResNet293 (feat_dim 80, embed_dim 256, TSTP, one embedding layer), built from
# WeSpeaker's revision dfa741957e5c11f477623b6e583d67d0af25ee88: parameters, MACs of 350 × 80 features. Published: R34
# 6.63 M, R221 23.79 M, R293 28.62 M.
WESPEAKER = {
    "WeSpeaker-ResNet18": (4_105_440, 3_804_564_480),
    "WeSpeaker-ResNet34": (6_634_336, 7_948_078_080),
    "WeSpeaker-ResNet50": (11_131_360, 8_900_643_840),
    "WeSpeaker-ResNet101": (15_892_448, 17_234_201_600),
    "WeSpeaker-ResNet152": (19_814_880, 25_556_618_240),
    "WeSpeaker-ResNet221": (23_792_224, 36_800_793_600),
    "WeSpeaker-ResNet293": (28_626_016, 48_543_534_080),
}


@pytest.mark.parametrize("name", WESPEAKER)
def test_a_system_has_the_size_of_wespeakers_to_the_last_parameter(name: str) -> None:
    backbone, features = WeSpeakerResNet(), WeSpeakerResNet.published_features
    params = backbone.systems()[name]
    counted = describe_network(lambda: backbone.build(params, features=features), features=features)
    assert (counted.num_parameters, counted.macs) == WESPEAKER[name]
    assert f"WeSpeaker-ResNet{shape_of(params).num_layers}" == name


def test_systems_are_the_seven_of_wespeaker() -> None:
    assert list(SYSTEMS) == list(WESPEAKER)


@settings(max_examples=20, deadline=None)
@given(
    block=st.sampled_from(["basic", "bottleneck"]),
    blocks=st.lists(st.integers(1, 3), min_size=4, max_size=4),
    channels=st.lists(st.integers(8, 40), min_size=4, max_size=4),
    num_features=st.integers(20, 90),
    num_frames=st.integers(10, 400),
)
def test_the_macs_worked_out_are_those_counted(
    block: str, blocks: list[int], channels: list[int], num_features: int, num_frames: int
) -> None:
    point = {**defaults(SPACE), "block": block}
    shape = shape_of({**point, **dict(zip(BLOCKS, blocks, strict=True)), **dict(zip(CHANNELS, channels, strict=True))})
    with torch.device("meta"):
        network = WeSpeakerResNetNetwork(shape, num_features=num_features)
    counted = count_macs(network, num_features=num_features, num_frames=num_frames)
    assert shape.macs(num_features=num_features, num_frames=num_frames) == counted


def test_ends_are_the_cheapest_and_the_dearest_of_all_corners() -> None:
    """Many blocks in one stage make bottlenecks cheaper than basic blocks; fewer make them dearer."""
    for blocks_1 in (1, 16):
        fixed = {"blocks_1": blocks_1, "blocks_2": 1, "blocks_3": 1, "blocks_4": 1, "embedding_dim": 64}
        fixed |= {"channels_1": 64, "channels_2": [8, 16], "channels_3": 8, "channels_4": 8}
        space = {n: narrow(p, fixed[n]) if n in fixed else p for n, p in SPACE.items()}
        corners = [
            {**defaults(space), "block": block, "channels_2": channels}
            for block, channels in product(("basic", "bottleneck"), (8, 16))
        ]
        macs = [shape_of(corner).macs(num_features=80, num_frames=350) for corner in corners]
        cheapest, dearest = WeSpeakerResNet().ends(space)
        assert shape_of(cheapest).macs(num_features=80, num_frames=350) == min(macs)
        assert shape_of(dearest).macs(num_features=80, num_frames=350) == max(macs)


def test_which_block_is_cheaper_depends_on_the_blocks() -> None:
    def cheaper(**fixed: int) -> object:
        space = {n: narrow(p, fixed[n]) if n in fixed else p for n, p in SPACE.items()}
        return WeSpeakerResNet().ends(space)[0]["block"]

    others = dict.fromkeys(("blocks_2", "blocks_3", "blocks_4"), 1) | dict.fromkeys(CHANNELS[1:], 8)
    assert cheaper(blocks_1=1, channels_1=128, **others) == "basic"
    assert cheaper(blocks_1=16, channels_1=128, **others) == "bottleneck"


@pytest.mark.parametrize("kind", [Basic, Bottleneck])
def test_a_block_adds_its_input_before_the_last_activation(kind: type[Basic | Bottleneck]) -> None:
    block = kind(16, 16 if kind is Basic else 4, stride=1).eval()
    last = block.bn2 if isinstance(block, Basic) else block.bn3
    nn.init.zeros_(last.weight)
    x = torch.randn(2, 16, 5, 6)
    assert torch.equal(block(x, None, None), x.relu())


def test_a_bottleneck_has_the_documented_layers() -> None:
    block = Bottleneck(8, 4, stride=2)
    convolutions = [m for m in block.modules() if isinstance(m, nn.Conv2d)]
    found = [(m.in_channels, m.out_channels, m.kernel_size[0], m.stride[0]) for m in convolutions]
    assert found == [(8, 4, 1, 1), (4, 4, 3, 2), (4, 16, 1, 1), (8, 16, 1, 2)]


def test_channels_are_rounded_to_multiples_of_eight() -> None:
    channels = dict(zip(CHANNELS, (9, 12, 13, 252), strict=True))
    assert WeSpeakerResNet().summary({**defaults(SPACE), **channels})["channels"] == [8, 16, 16, 256]


def test_a_point_outside_the_space_is_refused() -> None:
    with pytest.raises(ConfigError, match="make no wespeaker-resnet: block: 'basic-2' is not one of basic, bottleneck"):
        shape_of({**defaults(SPACE), "block": "basic-2"})


def test_the_hook_provides_wespeaker_resnet() -> None:
    assert [backbone.name for backbone in greensv_backbones()] == ["wespeaker-resnet"]
