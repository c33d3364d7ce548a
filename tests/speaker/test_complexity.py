import pytest
import torch
from torch import Tensor, nn

from greensv.config import FeatureConfig
from greensv.speaker.complexity import Complexity, count_activations, count_macs, describe_network, num_parameters


class Small(nn.Module):
    """A convolution over 4 features to 3 channels, every second frame; the mean; 3 → 5."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding_dim = 5
        self.conv = nn.Conv1d(4, 3, 3, stride=2, padding=1, bias=False)
        self.norm = nn.BatchNorm1d(5)
        self.linear = nn.Linear(3, 5)

    def forward(self, features: Tensor, lengths: Tensor | None) -> Tensor:
        out: Tensor = self.norm(self.linear(self.conv(features.transpose(1, 2)).mean(dim=2)))
        return out


def test_a_network_is_counted_by_hand() -> None:
    counted = describe_network(Small, features=FeatureConfig(num_mel_bins=4, use_energy=False), num_frames=10)
    num_extractor = 3 * 4 * 3 + (3 * 5 + 5) + 2 * 5
    assert counted == Complexity(
        num_parameters=num_extractor,
        num_parameters_with_head=num_extractor + 5_994 * 5,
        macs=3 * 4 * 3 * 5 + 3 * 5,
        activations=3 * 5 + 5,
        num_layers=2,
        embedding_dim=5,
        # What goes into the convolution, the linear layer and the normalisation; and its mean and deviation.
        kept_values=4 * 10 + 3 + 3 * 5,
        num_frames=10,
    )


def test_a_value_that_two_layers_need_is_kept_once() -> None:
    class Twice(nn.Module):
        embedding_dim = 3

        def __init__(self) -> None:
            super().__init__()
            self.linears = nn.ModuleList([nn.Linear(4, 3), nn.Linear(4, 3)])

        def forward(self, features: Tensor, lengths: Tensor | None) -> Tensor:
            first, second = (torch.sigmoid(linear(features)) for linear in self.linears)
            return (first + second).mean(1)

    counted = describe_network(Twice, features=FeatureConfig(num_mel_bins=4, use_energy=False), num_frames=10)
    # The features once, and both sigmoids' outputs.
    assert counted.kept_values == 4 * 10 + 2 * 3 * 10
    assert counted.num_layers == 2


def test_the_head_has_a_row_for_each_speaker() -> None:
    features = FeatureConfig(num_mel_bins=4, use_energy=False)
    counted = describe_network(Small, features=features, num_speakers=100)
    assert counted.num_parameters_with_head - counted.num_parameters == 500


def test_counting_leaves_the_network_as_it_was() -> None:
    network = Small()
    network.linear.eval()
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    assert count_macs(network, num_features=4, num_frames=10) == 195
    assert count_activations(network, num_features=4, num_frames=10) == 20
    assert network.training
    assert network.norm.training
    assert not network.linear.training
    assert not network.conv._forward_hooks
    assert all(torch.equal(tensor, before[name]) for name, tensor in network.state_dict().items())
    assert network.linear.weight.device.type == "cpu"


def test_a_failing_network_is_put_back_too() -> None:
    network = Small()
    with pytest.raises(RuntimeError):
        count_macs(network, num_features=7)
    assert network.training
    assert not network.conv._forward_hooks


def test_shared_weights_are_counted_once() -> None:
    network = nn.Sequential(nn.Linear(3, 3, bias=False), nn.Linear(3, 3, bias=False))
    network[1].weight = network[0].weight
    assert num_parameters(network) == 9
