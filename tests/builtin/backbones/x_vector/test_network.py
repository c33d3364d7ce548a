import pytest
import torch

from greensv.builtin.backbones.x_vector import XVector, greensv_backbones
from greensv.builtin.backbones.x_vector.network import XVectorNetwork
from greensv.builtin.backbones.x_vector.space import SPACE, shape_of
from greensv.config import FeatureConfig
from greensv.errors import ConfigError
from greensv.speaker.complexity import describe_network, num_parameters
from greensv.speaker.space import defaults

# Of wespeaker.models.tdnn's XVEC(feat_dim=80), built from WeSpeaker's revision
# dfa741957e5c11f477623b6e583d67d0af25ee88; MACs of 350 frames.
WESPEAKER = (4_610_524, 951_988_224)


def small(num_features: int = 4) -> XVectorNetwork:
    torch.manual_seed(0)
    point = {**defaults(SPACE), "channels": 32, "pooled": 64, "embedding_dim": 64}
    return XVectorNetwork(shape_of(point), num_features=num_features).eval()


def test_the_system_has_the_size_of_wespeakers_to_the_last_parameter() -> None:
    backbone, features = XVector(), XVector.published_features
    params = backbone.systems()["X-Vector"]
    counted = describe_network(lambda: backbone.build(params, features=features), features=features)
    assert (counted.num_parameters, counted.macs) == WESPEAKER


def test_weights_of_the_paper_are_those_of_its_table() -> None:
    """Snyder et al. 2018, table 1, with the paper's 24 features: input × output of each layer up to segment7."""
    features = FeatureConfig(num_mel_bins=24, use_energy=False)
    with torch.device("meta"):
        network = XVector().build(XVector().systems()["X-Vector"], features=features)
    table = 120 * 512 + 1536 * 512 + 1536 * 512 + 512 * 512 + 512 * 1500 + 3000 * 512 + 512 * 512
    biases = 4 * 512 + 1500 + 512 + 512
    assert num_parameters(network) == table + biases
    # The 4.2 million of the text are without the second layer behind the pooling, whose output the paper does not use.
    assert round((table - 512 * 512) / 1e6, 1) == 4.2


def test_a_frame_sees_fifteen_frames() -> None:
    assert XVector().summary(defaults(SPACE))["receptive_field_frames"] == 15
    network = small()
    x = torch.randn(1, 4, 15)
    for layer in network.layers:
        x = layer(x)
    assert x.shape == (1, 64, 1)


def test_context_layers_grow_further_apart() -> None:
    shape = shape_of({**defaults(SPACE), "num_context_layers": 4, "num_dense_layers": 0})
    assert [(layer.kernel, layer.dilation) for layer in shape.layers] == [
        (5, 1),
        (3, 2),
        (3, 3),
        (3, 4),
        (3, 5),
        (1, 1),
    ]


@pytest.mark.parametrize("length", [1, 7, 14])
def test_an_item_shorter_than_the_context_ends_in_zeros(length: int) -> None:
    network = small()
    item = torch.randn(1, length, 4)
    filled = torch.cat((item, torch.zeros(1, 15 - length, 4)), dim=1)
    batch = torch.full((2, 40, 4), 100.0)
    batch[1, :length] = item[0]
    alone = network(item, None)
    assert alone.isfinite().all()
    torch.testing.assert_close(alone, network(filled, None))
    torch.testing.assert_close(network(batch, torch.tensor([40, length]))[1:], alone)
    torch.testing.assert_close(network(batch[1:, :14], torch.tensor([length])), alone)


def test_a_point_outside_the_space_is_refused() -> None:
    with pytest.raises(ConfigError, match="these parameters make no x-vector: pooled: 0 is outside 64 to 4096"):
        shape_of({**defaults(SPACE), "pooled": 0})


def test_the_hook_provides_x_vector() -> None:
    assert [backbone.name for backbone in greensv_backbones()] == ["x-vector"]
