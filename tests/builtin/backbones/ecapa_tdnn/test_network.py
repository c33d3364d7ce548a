import pytest
import torch
from torch import nn

from greensv.builtin.backbones.ecapa_tdnn import EcapaTdnn, greensv_backbones
from greensv.builtin.backbones.ecapa_tdnn.blocks import ContextAttention, Res2Conv, SeRes2Block
from greensv.builtin.backbones.ecapa_tdnn.network import EcapaTdnnNetwork
from greensv.builtin.backbones.ecapa_tdnn.space import SPACE, Shape, shape_of
from greensv.errors import ConfigError
from greensv.speaker.complexity import Complexity, describe_network, num_parameters
from greensv.speaker.space import defaults

# Parameters and MACs of 350 × 80 features of wespeaker.models.ecapa_tdnn's ECAPA_TDNN_GLOB_c512 and _c1024 (embed_dim
# 192) built from WeSpeaker's revision dfa741957e5c11f477623b6e583d67d0af25ee88; parameters of
# speechbrain.lobes.models.ECAPA_TDNN (channels 1024 × 4 and 3072, lin_neurons 192) from SpeechBrain's revision
# 9c826ef3937bac885c8a6ca86c6889a30f256fb5. Published as 6.19 M, 14.65 M and 20.8 M.
WESPEAKER = {"ECAPA-TDNN-512": (6_190_720, 1_814_487_040), "ECAPA-TDNN-1024": (14_657_088, 4_634_771_456)}
SPEECHBRAIN = 20_767_552


def complexity(name: str) -> Complexity:
    backbone, features = EcapaTdnn(), EcapaTdnn.published_features
    params = backbone.systems()[name]
    return describe_network(lambda: backbone.build(params, features=features), features=features)


def closed_form(shape: Shape, *, num_features: int) -> int:
    """Parameters, written down without the network."""
    c, a, e, h = shape.num_channels, shape.num_aggregated, shape.embedding_dim, 128
    width, num_convs = c // shape.num_groups, max(shape.num_groups - 1, 1)

    def layer(num_in: int, num_out: int, kernel: int) -> int:
        return num_in * num_out * kernel + 3 * num_out

    block = 2 * layer(c, c, 1) + num_convs * layer(width, width, shape.kernel) + 2 * c * h + h + c
    aggregation = len(shape.dilations) * c * a + a + 2 * a * shape.is_normalised
    attention = 3 * a * h + h + 2 * h * shape.is_normalised + h * a + a
    return layer(num_features, c, 5) + len(shape.dilations) * block + aggregation + attention + 4 * a + 2 * a * e + e


@pytest.mark.parametrize("name", WESPEAKER)
def test_a_system_has_the_size_of_wespeakers_to_the_last_parameter(name: str) -> None:
    counted = complexity(name)
    parameters, macs = WESPEAKER[name]
    assert counted.num_parameters == parameters == closed_form(shape_of(EcapaTdnn().systems()[name]), num_features=80)
    # WeSpeaker applies the attention's weights for mean and deviation to each of 350 frames; once is enough.
    assert counted.macs == macs - 349 * 2 * 1536 * 128


def test_a_system_has_the_size_of_speechbrains_to_the_last_parameter() -> None:
    counted = complexity("SpeechBrain-ECAPA-TDNN")
    shape = shape_of(EcapaTdnn().systems()["SpeechBrain-ECAPA-TDNN"])
    assert counted.num_parameters == SPEECHBRAIN == closed_form(shape, num_features=80)


@pytest.mark.parametrize(
    "changes",
    [
        {"channels": 96, "num_groups": "1", "kernel": "7", "num_blocks": 6},
        {"channels": 40, "num_groups": "2", "aggregated": 100, "aggregation": "normalised"},
        {"num_groups": "4", "kernel": "5", "dilation": "doubling", "embedding_dim": 100},
    ],
)
def test_any_point_has_the_size_of_the_closed_form(changes: dict[str, int | str]) -> None:
    shape = shape_of({**defaults(SPACE), **changes})
    with torch.device("meta"):
        network = EcapaTdnnNetwork(shape, num_features=80)
    assert num_parameters(network) == closed_form(shape, num_features=80)


@pytest.mark.parametrize(
    ("growth", "expected"), [("none", (1, 1, 1, 1)), ("linear", (2, 3, 4, 5)), ("doubling", (2, 4, 8, 16))]
)
def test_dilations_grow_as_asked(growth: str, expected: tuple[int, ...]) -> None:
    assert shape_of({**defaults(SPACE), "dilation": growth, "num_blocks": 4}).dilations == expected


def test_channels_are_rounded_to_what_all_groups_divide() -> None:
    assert shape_of({**defaults(SPACE), "channels": 100}).num_channels == 96
    assert EcapaTdnn().summary({**defaults(SPACE), "channels": 105})["num_channels"] == 112


def test_receptive_field_is_what_reaches_a_frame() -> None:
    """A change of one frame reaches as far as the summary says, without the means that see everything."""
    torch.manual_seed(0)
    point = {**defaults(SPACE), "channels": 32, "num_blocks": 2, "aggregated": 64}
    network = EcapaTdnnNetwork(shape_of(point), num_features=4).eval()
    for block in network.blocks:
        nn.init.zeros_(block.se.excite.weight)  # type: ignore[union-attr, arg-type]
    for module in network.modules():
        if isinstance(module, nn.Conv1d):
            # With positive weights no ReLU stops a change on its way.
            nn.init.constant_(module.weight, 0.1)
            nn.init.zeros_(module.bias)  # type: ignore[arg-type]

    def last_block(features: torch.Tensor) -> torch.Tensor:
        x = network.first(features.transpose(1, 2), None)
        for block in network.blocks:
            x = block(x, None)
        return x

    features = torch.rand(1, 201, 4, dtype=torch.float64)
    network.double()
    changed = features.clone()
    changed[0, 100] += 1
    reached = (last_block(features) != last_block(changed)).any(dim=1)[0].nonzero().flatten()
    # 5, then 7 convolutions of kernel 3 in a chain, 2 and 3 frames apart: 5 + 2 · 7 · 2 + 2 · 7 · 3.
    assert EcapaTdnn().summary(point)["receptive_field_frames"] == 75
    assert (int(reached.min()), int(reached.max())) == (100 - 37, 100 + 37)


def test_groups_feed_the_next_one_and_the_last_passes() -> None:
    res2 = Res2Conv(6, num_groups=3, kernel=3, dilation=1).eval()
    x = torch.randn(2, 6, 9)
    first = res2.layers[0](x[:, :2], None)
    second = res2.layers[1](first + x[:, 2:4], None)
    torch.testing.assert_close(res2(x, None), torch.cat((first, second, x[:, 4:]), dim=1))


def test_a_single_group_is_convolved() -> None:
    res2 = Res2Conv(4, num_groups=1, kernel=3, dilation=1).eval()
    x = torch.randn(2, 4, 9)
    torch.testing.assert_close(res2(x, None), res2.layers[0](x, None))


def test_a_block_adds_its_input() -> None:
    block = SeRes2Block(16, num_groups=8, kernel=3, dilation=2).eval()
    nn.init.zeros_(block.after.bn.weight)
    x = torch.randn(2, 16, 9)
    assert torch.equal(block(x, None), x)


@pytest.mark.parametrize("is_normalised", [False, True])
def test_attention_equals_one_layer_over_frame_mean_and_deviation(is_normalised: bool) -> None:
    """What the paper writes down: concatenate the statistics to each frame, and use one layer."""
    torch.manual_seed(0)
    pooling = ContextAttention(3, is_normalised=is_normalised).eval()
    x = torch.randn(2, 3, 20)
    mean, deviation = x.mean(dim=2, keepdim=True), (x.var(dim=2, keepdim=True) + 1e-7).sqrt()
    beside = torch.cat((x, mean.expand_as(x), deviation.expand_as(x)), dim=1)
    weight = torch.cat((pooling.hidden.weight[:, :, 0], pooling.context.weight), dim=1)
    hidden = torch.einsum("hc,bct->bht", weight, beside) + pooling.hidden.bias[:, None]
    if pooling.hidden_bn is not None:
        hidden = pooling.hidden_bn(hidden.relu())
    weights = pooling.attention(hidden.tanh()).softmax(dim=2)
    mean = (weights * x).sum(dim=2)
    deviation = ((weights * x.square()).sum(dim=2) - mean.square()).sqrt()
    torch.testing.assert_close(pooling(x, None), torch.cat((mean, deviation), dim=1))


def test_attention_starts_as_one_layer_over_all_three_would() -> None:
    torch.manual_seed(0)
    pooling = ContextAttention(300, is_normalised=False)
    for weight in (pooling.hidden.weight, pooling.context.weight):
        assert weight.std().item() == pytest.approx(1 / (3 * 900) ** 0.5, rel=0.02)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"channels": 16}, "channels: 16 is outside 32 to 2048"),
        ({"num_groups": "3"}, "num_groups: '3' is not one of 8, 4, 2, 1"),
        ({"chanels": 64}, "unknown parameter 'chanels'; did you mean 'channels'?"),
    ],
)
def test_a_point_outside_the_space_is_refused(changes: dict[str, int | str], message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        shape_of({**defaults(SPACE), **changes})
    assert message in str(caught.value)


def test_the_hook_provides_ecapa_tdnn() -> None:
    assert [backbone.name for backbone in greensv_backbones()] == ["ecapa-tdnn"]
