import pytest

from greensv.builtin.backbones.ecapa_tdnn import EcapaTdnn
from greensv.testing.backbone_contract import BackboneContract


class TestEcapaTdnn(BackboneContract):
    backbone = EcapaTdnn()
    narrowing = {  # noqa: RUF012 - as a plugin's author writes it
        "channels": [32, 48],
        "num_blocks": [1, 3],
        "num_groups": ["8", "1"],
        "aggregated": [64, 96],
        "embedding_dim": 64,
    }


def test_contract_finds_a_network_that_sees_its_padding(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("greensv.builtin.backbones.ecapa_tdnn.blocks.hide", lambda x, padding: x)
    with pytest.raises(AssertionError, match="not close"):
        TestEcapaTdnn().test_embeddings_do_not_depend_on_padding()
