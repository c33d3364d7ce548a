import pytest

from greensv.builtin.backbones.wespeaker_resnet import WeSpeakerResNet
from greensv.testing.backbone_contract import BackboneContract


class TestWeSpeakerResNet(BackboneContract):
    backbone = WeSpeakerResNet()
    narrowing = {  # noqa: RUF012 - as a plugin's author writes it
        **{f"blocks_{stage}": [1, 2] for stage in range(1, 5)},
        **{f"channels_{stage}": 8 for stage in range(1, 5)},
        "embedding_dim": 64,
    }


def test_contract_finds_a_network_that_sees_its_padding(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("greensv.builtin.backbones.wespeaker_resnet.blocks.hide", lambda maps, padding: maps)
    with pytest.raises(AssertionError, match="not close"):
        TestWeSpeakerResNet().test_embeddings_do_not_depend_on_padding()
