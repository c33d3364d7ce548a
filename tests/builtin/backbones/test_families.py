"""What the contract leaves out, of every built-in family: odd input, half precision, and a step of training."""

import pytest
import torch
from torch import Tensor, nn

from greensv.builtin.backbones.ecapa_tdnn import EcapaTdnn
from greensv.builtin.backbones.wespeaker_resnet import WeSpeakerResNet
from greensv.builtin.backbones.x_vector import XVector
from greensv.config import FeatureConfig
from greensv.speaker.backbone import Backbone
from greensv.speaker.device import place_network
from greensv.speaker.space import Params, defaults

STAGES = range(1, 5)
NARROW_RESNET = {f"blocks_{stage}": 1 for stage in STAGES} | {f"channels_{stage}": 8 * stage for stage in STAGES}
SMALL: dict[str, tuple[Backbone, Params]] = {
    "ecapa-tdnn": (EcapaTdnn(), {"channels": 32, "num_blocks": 2, "aggregated": 64, "embedding_dim": 64}),
    "ecapa-tdnn, normalised": (
        EcapaTdnn(),
        {"channels": 32, "num_blocks": 1, "num_groups": "1", "aggregated": 64, "aggregation": "normalised"},
    ),
    "x-vector": (XVector(), {"channels": 32, "pooled": 64, "embedding_dim": 64}),
    "wespeaker-resnet, basic": (WeSpeakerResNet(), {**NARROW_RESNET, "embedding_dim": 64}),
    "wespeaker-resnet, bottleneck": (WeSpeakerResNet(), {**NARROW_RESNET, "block": "bottleneck"}),
}


@pytest.fixture(params=SMALL)
def network(request: pytest.FixtureRequest) -> nn.Module:
    backbone, changes = SMALL[request.param]
    torch.manual_seed(0)
    return backbone.build({**defaults(backbone.space()), **changes}, features=FeatureConfig())


def noise(num_items: int, num_frames: int) -> Tensor:
    return torch.randn(num_items, num_frames, 81, generator=torch.Generator().manual_seed(1))


def test_padding_may_hold_anything_even_no_number(network: nn.Module) -> None:
    network.eval()
    features = noise(2, 30)
    features[1, 17:] = torch.nan
    embeddings = network(features, torch.tensor([30, 17]))
    torch.testing.assert_close(embeddings[1:], network(features[1:, :17], None), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("num_frames", [1, 2, 9])
def test_the_shortest_items_have_finite_embeddings_alone_and_padded(network: nn.Module, num_frames: int) -> None:
    network.eval()
    batch = noise(2, 40)
    alone = network(batch[1:, :num_frames], None)
    assert alone.isfinite().all()
    padded = network(batch, torch.tensor([40, num_frames]))
    torch.testing.assert_close(padded[1:], alone, rtol=1e-4, atol=1e-5)


def test_a_constant_item_has_a_finite_embedding_and_gradient(network: nn.Module) -> None:
    network.train()
    network(torch.zeros(2, 40, 81), None).square().sum().backward()
    assert all(bool(p.grad.isfinite().all()) for p in network.parameters() if p.grad is not None)


def test_half_precision_autocast_gives_the_same_embedding_nearly(network: nn.Module) -> None:
    network.train()
    features = noise(4, 60)
    full = network(features, None)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        half = network(features, None)
    assert torch.cosine_similarity(full, half.float()).min() > 0.99


def test_where_its_weights_lie_changes_no_embedding(network: nn.Module) -> None:
    network.eval()
    features = noise(2, 40)
    before = network(features, None)
    placed = place_network(network, torch.device("cpu"))
    torch.testing.assert_close(placed(features, None), before, rtol=1e-4, atol=1e-5)


def test_a_step_of_training_changes_every_weight_and_lowers_the_loss(network: nn.Module) -> None:
    network.train()
    head = nn.Linear(network.embedding_dim, 4)  # type: ignore[arg-type]
    features, speakers = noise(8, 50), torch.arange(8) % 4
    parameters = [*network.parameters(), *head.parameters()]
    optimizer = torch.optim.SGD(parameters, lr=0.01)
    before = [parameter.detach().clone() for parameter in parameters]
    losses = []
    for _ in range(2):
        loss = nn.functional.cross_entropy(head(network(features, None)), speakers)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[1] < losses[0]
    unchanged = {
        name
        for (name, new), old in zip(network.named_parameters(), before, strict=False)
        if torch.equal(new.detach(), old)
    }
    # A softmax over time does not see what is added to all times alike.
    assert unchanged <= {"pooling.attention.bias"}
