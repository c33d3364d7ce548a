import pytest

from greensv.builtin.backbones.resnet import ResNet
from greensv.testing.backbone_contract import BackboneContract


class TestResNet(BackboneContract):
    backbone = ResNet()
    narrowing = {  # noqa: RUF012 - as a plugin's author writes it
        "depth": [4, 5],
        "width_log2": [-4, -3],
        "channels": "classic",
        "block": ["basic-3", "bottleneck"],
    }


def test_contract_finds_a_network_that_sees_its_padding(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("greensv.builtin.backbones.resnet.blocks.hide", lambda maps, padding: maps)
    with pytest.raises(AssertionError, match="not close"):
        TestResNet().test_embeddings_do_not_depend_on_padding()
