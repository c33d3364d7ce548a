"""The contract that every backbone keeps, the published size, and the parts of the network."""

import pytest
import torch
from torch import Tensor, nn

from greensv.config import FeatureConfig
from greensv.errors import ConfigError
from greensv.plugins import load_plugins
from greensv.speaker.complexity import describe_network
from greensv.speaker.space import Params, defaults
from greensv.testing.backbone_contract import BackboneContract
from greensv_campplus import greensv_backbones
from greensv_campplus.backbone import SPACE, Campplus, Shape, shape_of
from greensv_campplus.dense import ContextMask, DenseBlock, DenseLayer, segment_means
from greensv_campplus.front import Front

SMALL: Params = {
    "front_channels": 8,
    "initial_channels": 32,
    "growth": 8,
    "bottleneck": 16,
    "layers_1": 2,
    "layers_2": 3,
    "layers_3": 2,
    "embedding_dim": 64,
}
BIASES_BEFORE_BN = ("entrance.bias", "narrow.bias", "transition.bias", "linear.bias")


class TestCampplus(BackboneContract):
    backbone = Campplus()
    narrowing = {**SMALL, "layers_2": [2, 4], "growth": [8, 10]}  # noqa: RUF012 - as a plugin's author writes it


def small(num_features: int = 81) -> nn.Module:
    torch.manual_seed(0)
    features = FeatureConfig(num_mel_bins=num_features - 1)
    return Campplus().build(SMALL, features=features)


def noise(*shape: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(1))


def closed_form(shape: Shape, *, num_bins_out: int) -> int:
    """Parameters, written down without the network."""
    c, g, b = shape.front_channels, shape.growth, shape.bottleneck
    front = 9 * c + 2 * c + 4 * (18 * c * c + 4 * c) + 3 * (c * c + 2 * c)
    total, num = (
        front + 5 * num_bins_out * c * shape.initial_channels + 3 * shape.initial_channels,
        shape.initial_channels,
    )
    for num_layers in shape.layers:
        for _ in range(num_layers):
            mask = b * (b // 2) + b // 2 + (b // 2) * g + g
            total += 2 * num + num * b + 3 * b + 3 * b * g + g + mask
            num += g
        total += 2 * num + num * (num // 2) + num // 2
        num //= 2
    return total + 2 * num + 2 * num * shape.embedding_dim + 3 * shape.embedding_dim


def test_greensv_finds_the_plugin_by_its_entry_point() -> None:
    component = load_plugins().component("backbone", "campplus")
    assert component.provider.distribution == "greensv-campplus"
    assert isinstance(component.instance, Campplus)


def test_the_system_has_the_published_size() -> None:
    """The paper's table: 7.18 M parameters, 1.72 G multiply-accumulates; of 3 s we count 1.75."""
    backbone, features = Campplus(), Campplus.published_features
    params = backbone.systems()["CAM++"]
    counted = describe_network(lambda: backbone.build(params, features=features), features=features, num_frames=300)
    assert counted.num_parameters == 7_179_296 == closed_form(shape_of(params), num_bins_out=10)
    assert counted.macs == 1_751_554_048


def test_the_front_keeps_frames_and_takes_in_eight_bins() -> None:
    front = Front(num_features=81, channels=8).eval()
    sequence = front(noise(2, 37, 81), None)
    assert sequence.shape == (2, front.num_out, 37)
    assert front.num_out == 8 * 11


@pytest.mark.parametrize("length", [1, 99, 100, 101, 250])
def test_segments_are_averaged_over_what_they_hold(length: int) -> None:
    x = noise(1, 3, length)
    expected = torch.stack([part.mean(dim=2) for part in x.split(100, dim=2)], dim=2)
    torch.testing.assert_close(segment_means(x, None), expected)
    padding = torch.arange(320)[None, None, :] >= length
    padded = torch.cat((x, torch.zeros(1, 3, 320 - length)), dim=2)
    found = segment_means(padded, padding)
    torch.testing.assert_close(found[:, :, : expected.shape[2]], expected)
    assert not found[:, :, expected.shape[2] :].any()


def test_a_mask_is_the_papers_formula_segment_by_segment() -> None:
    torch.manual_seed(0)
    context = ContextMask(6, num_masked=4)
    x = noise(2, 6, 130)
    expected = torch.empty(2, 4, 130)
    for start, end in ((0, 100), (100, 130)):
        mean = x.mean(dim=2) + x[:, :, start:end].mean(dim=2)
        expected[:, :, start:end] = context.mask(context.hidden(mean).relu()).sigmoid()[:, :, None]
    torch.testing.assert_close(context(x, None), expected)


def test_a_layer_adds_what_its_mask_lets_through() -> None:
    layer = DenseLayer(12, bottleneck=8, growth=4, dilation=2).eval()
    x = noise(2, 12, 30)
    assert layer(x, None).shape == (2, 4, 30)
    nn.init.constant_(layer.context.mask.bias, -200.0)
    assert not layer(x, None).any()


def test_each_layer_sees_all_before_it_and_half_of_the_channels_leave() -> None:
    block = DenseBlock(10, num_layers=3, bottleneck=8, growth=4, dilation=1).eval()
    assert [layer.narrow.in_channels for layer in block.layers] == [10, 14, 18]  # type: ignore[union-attr]
    assert block.transition.in_channels == 22
    assert block(noise(2, 10, 20), None).shape == (2, 11, 20)


@pytest.mark.parametrize("length", [1, 2, 201, 399, 401])
def test_embeddings_of_many_segments_do_not_depend_on_padding(length: int) -> None:
    network = small().eval()
    batch = noise(2, 430, 81)
    alone = network(batch[1:, :length], None)
    assert alone.isfinite().all()
    batch[1, length:] = torch.nan
    torch.testing.assert_close(network(batch, torch.tensor([430, length]))[1:], alone, rtol=1e-4, atol=1e-5)


def test_half_precision_autocast_gives_the_same_embedding_nearly() -> None:
    network = small()
    features = noise(4, 60, 81)
    network(features, None)
    network.eval()
    full = network(features, None)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        half = network(features, None)
    assert torch.cosine_similarity(full, half.float()).min() > 0.99


def test_a_step_of_training_changes_every_weight_and_lowers_the_loss() -> None:
    network = small().train()
    head = nn.Linear(64, 4)
    features, speakers = noise(8, 50, 81), torch.arange(8) % 4
    optimizer = torch.optim.SGD([*network.parameters(), *head.parameters()], lr=0.01)
    before = {name: parameter.detach().clone() for name, parameter in network.named_parameters()}
    losses = []
    for _ in range(2):
        loss = nn.functional.cross_entropy(head(network(features, None)), speakers)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[1] < losses[0]
    unchanged = {name for name, p in network.named_parameters() if torch.equal(p.detach(), before[name])}
    # The BN behind a bias takes it away again, and leaves rounding errors for a gradient.
    assert [name for name in unchanged if not name.endswith(BIASES_BEFORE_BN)] == []


def test_a_point_outside_the_space_is_refused() -> None:
    with pytest.raises(ConfigError, match="make no campplus: growth: 4 is outside 8 to 64"):
        shape_of({**defaults(SPACE), "growth": 4})


def test_the_hook_provides_campplus() -> None:
    assert [backbone.name for backbone in greensv_backbones()] == ["campplus"]
