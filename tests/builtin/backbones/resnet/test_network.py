import pytest
import torch
from torch import nn

from greensv.builtin.backbones.resnet import ResNet, greensv_backbones
from greensv.builtin.backbones.resnet.blocks import SqueezeExcitation, build_block
from greensv.builtin.backbones.resnet.network import AttentiveStatistics, ResNetNetwork
from greensv.builtin.backbones.resnet.space import Shape, shape_of
from greensv.config import FeatureConfig
from greensv.speaker.complexity import describe_network, num_parameters

# The paper's Table 1 as rebuilt elsewhere: parameters without and with a head of 5,994 speakers, GMACs of 350 × 81
# features, millions of values put out by convolutions and linear layers.
TABLE = {
    "ResNet-419-D": (132_015_616, 133_550_080, 335.92, 295.0),
    "ResNet-200-D": (59_939_328, 61_473_792, 164.46, 156.3),
    "ResNet-101-D": (36_830_208, 38_364_672, 89.87, 82.7),
    "ResNet-50-D": (15_635_968, 17_170_432, 50.76, 58.6),
    "ResNet-34-D": (14_925_056, 16_459_520, 48.07, 40.8),
    "ResNet-18-D": (8_036_352, 9_570_816, 26.19, 25.9),
    "ResNet-50-D[8,2,2,2]": (10_437_632, 11_972_096, 80.61, 101.5),
    "ResNet-50-D[2,8,2,2]": (10_437_632, 11_972_096, 41.06, 52.7),
    "ResNet-50-D[2,2,8,2]": (15_847_424, 17_381_888, 41.46, 44.7),
    "ResNet-50-D[2,2,2,8]": (15_847_424, 17_381_888, 31.27, 38.4),
    "ResNet-50-D[2,6,6,2]": (14_734_336, 16_268_800, 45.79, 52.8),
    "ResNet-50-W4": (232_410_880, 233_945_344, 811.68, 234.3),
    "ResNet-50-W2": (59_582_720, 61_117_184, 202.95, 117.2),
    "ResNet-50-W0.5": (4_279_424, 5_813_888, 12.70, 29.3),
    "ResNet-50-W0.25": (1_255_360, 2_789_824, 3.18, 14.6),
}


def closed_form(shape: Shape) -> int:
    """Parameters of the extractor for 81 features, written down without the network."""
    c, num_bins = shape.channels, 11
    total = 9 * c[0] + 2 * c[0]
    num_in = c[0]
    for stage, (channels, blocks) in enumerate(zip(shape.channels, shape.blocks, strict=True)):
        for index in range(blocks):
            total += 9 * num_in * channels + 9 * channels**2 + 2 * num_in + 2 * channels
            total += channels**2 + 2 * channels if shape.block == "basic-3" else 0
            total += 2 * channels**2 + 2 * channels if stage < 2 else 0
            total += num_in * channels + 2 * channels if index == 0 and stage > 0 else 0
            num_in = channels
    pooled, hidden = num_bins * c[3], c[3] // 2
    attention = pooled * hidden + hidden + hidden * pooled + pooled
    return total + attention + 4 * pooled + (2 * pooled + 1) * 256 + 512


@pytest.mark.parametrize("name", TABLE)
def test_a_system_has_the_size_of_the_table_to_the_last_parameter(name: str) -> None:
    backbone, features = ResNet(), FeatureConfig()
    params = backbone.systems()[name]
    counted = describe_network(lambda: backbone.build(params, features=features), features=features)
    extractor, with_head, gigamacs, megavalues = TABLE[name]
    assert counted.num_parameters == extractor == closed_form(shape_of(params))
    assert counted.num_parameters_with_head == with_head
    assert round(counted.macs / 1e9, 2) == gigamacs
    assert round(counted.activations / 1e6, 1) == megavalues


def test_a_bottleneck_has_the_documented_layers() -> None:
    block = build_block("bottleneck", 8, 4, stride=2, has_se=True)
    convolutions = [(m.in_channels, m.out_channels, m.kernel_size[0], m.stride[0]) for m in convolutions_of(block)]
    assert convolutions == [(8, 4, 1, 1), (4, 4, 3, 2), (4, 16, 1, 1), (8, 16, 1, 2)]
    # BN of 8, 4, 4, 16; convolutions; SE 16 → 4 → 16 with biases.
    assert num_parameters(block) == 2 * (8 + 4 + 4 + 16) + 32 + 144 + 64 + 128 + (16 * 4 + 4) + (4 * 16 + 16)


def convolutions_of(block: nn.Module) -> list[nn.Conv2d]:
    return [module for module in block.modules() if isinstance(module, nn.Conv2d)]


@pytest.mark.parametrize("kind", ["basic-2", "basic-3", "bottleneck"])
def test_a_block_adds_its_unnormalised_input(kind: str) -> None:
    num_in = 16 if kind == "bottleneck" else 4
    block = build_block(kind, num_in, 4, stride=1, has_se=False).eval()
    for convolution in convolutions_of(block):
        nn.init.zeros_(convolution.weight)
    x = torch.randn(2, num_in, 5, 6)
    assert torch.equal(block(x, None, None), x)


def test_squeeze_excitation_averages_valid_frames_only() -> None:
    se = SqueezeExcitation(3, num_hidden=3)
    maps = torch.randn(1, 3, 6, 4)
    padding = torch.tensor([False] * 4 + [True] * 2)[None, None, :, None]
    torch.testing.assert_close(se(maps, padding)[:, :, :4], se(maps[:, :, :4], None))


def test_even_attention_gives_plain_mean_and_standard_deviation() -> None:
    pooling = AttentiveStatistics(3, num_hidden=2)
    nn.init.zeros_(pooling.attention.weight)
    sequence = torch.randn(2, 3, 50, dtype=torch.float32)
    expected = torch.cat((sequence.mean(dim=2), sequence.std(dim=2, correction=0)), dim=1)
    torch.testing.assert_close(pooling(sequence, None), expected)


def test_attention_weighs_frames() -> None:
    pooling = AttentiveStatistics(1, num_hidden=1)
    for layer, weight in ((pooling.hidden, 1.0), (pooling.attention, 2.0)):
        nn.init.constant_(layer.weight, weight)
        nn.init.zeros_(layer.bias)
    values = torch.tensor([0.0, 1.0], dtype=torch.float64)
    odds = torch.exp(2 * torch.tanh(torch.tensor(1.0, dtype=torch.float64)))
    mean = odds / (1 + odds)
    expected = torch.stack((mean, (mean * (1 - mean)).sqrt()))
    torch.testing.assert_close(pooling.double()(values[None, None, :], None)[0], expected)


def test_a_constant_sequence_has_the_least_deviation_and_a_finite_gradient() -> None:
    pooling = AttentiveStatistics(1, num_hidden=1)
    sequence = torch.ones(1, 1, 4, requires_grad=True)
    pooled = pooling(sequence, None)
    assert pooled[0, 1].item() == pytest.approx(1e-5**0.5)
    pooled.sum().backward()
    assert sequence.grad is not None
    assert sequence.grad.isfinite().all()


def test_padding_may_hold_anything_even_no_number() -> None:
    torch.manual_seed(0)
    network = ResNetNetwork(Shape(blocks=(1, 1, 1, 1), channels=(4, 4, 8, 8), block="basic-2"), num_features=81).eval()
    features = torch.randn(2, 30, 81)
    features[1, 17:] = torch.nan
    embeddings = network(features, torch.tensor([30, 17]))
    torch.testing.assert_close(embeddings[1:], network(features[1:, :17], None), rtol=1e-4, atol=1e-5)


def test_convolutions_start_with_the_variance_he_proposes_for_fan_out() -> None:
    torch.manual_seed(0)
    shape = Shape(blocks=(1, 1, 1, 1), channels=(64, 64, 64, 64), block="basic-2")
    weight = ResNetNetwork(shape, num_features=8).stages[1][0].conv2.weight  # type: ignore[index,union-attr]
    assert weight.std().item() == pytest.approx((2 / (64 * 9)) ** 0.5, rel=0.02)


def test_other_numbers_of_features_fit() -> None:
    network = ResNet().build(
        {**ResNet().systems()["ResNet-18-D"], "width_log2": -4.0}, features=FeatureConfig(num_mel_bins=23)
    )
    assert network(torch.randn(2, 20, 24), None).shape == (2, 256)


def test_half_precision_autocast_gives_the_same_embedding_nearly() -> None:
    torch.manual_seed(0)
    shape = Shape(blocks=(1, 1, 1, 1), channels=(8, 8, 16, 16), block="basic-3")
    network = ResNetNetwork(shape, num_features=81).eval()
    features = torch.randn(2, 60, 81)
    full = network(features, None)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        half = network(features, None)
    assert torch.cosine_similarity(full, half.float()).min() > 0.99


def test_the_hook_provides_resnet() -> None:
    assert [backbone.name for backbone in greensv_backbones()] == ["resnet"]
