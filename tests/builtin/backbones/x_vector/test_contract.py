import pytest

from greensv.builtin.backbones.x_vector import XVector
from greensv.testing.backbone_contract import BackboneContract


class TestXVector(BackboneContract):
    backbone = XVector()
    narrowing = {  # noqa: RUF012 - as a plugin's author writes it
        "channels": [32, 40],
        "num_context_layers": [0, 4],
        "pooled": [64, 72],
        "embedding_dim": 64,
    }


def test_contract_finds_a_network_that_counts_its_padding(monkeypatch: pytest.MonkeyPatch) -> None:
    network = "greensv.builtin.backbones.x_vector.network"
    monkeypatch.setattr(f"{network}.mean_and_deviation", lambda x, padding: (x.mean(dim=2), x.std(dim=2)))
    with pytest.raises(AssertionError, match="not close"):
        TestXVector().test_embeddings_do_not_depend_on_padding()
