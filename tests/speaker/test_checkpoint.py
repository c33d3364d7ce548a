import hashlib
import json
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from greensv import __version__
from greensv.config import FeatureConfig, Phase, Recipe
from greensv.errors import CheckpointError
from greensv.speaker.audio.store import AudioStore
from greensv.speaker.backbone import Backbone
from greensv.speaker.checkpoint import (
    CheckpointInfo,
    DevResult,
    annotate_checkpoint,
    build_network,
    load_training_state,
    read_checkpoint,
    restore,
    save_checkpoint,
    save_training_state,
    write_whole,
)
from greensv.speaker.dataset import Utterances
from greensv.speaker.space import IntRange, Params, Space
from greensv.speaker.training.loop import Training

MakeNetwork = Callable[[], nn.Module]
INFO = CheckpointInfo(
    backbone="tiny",
    backbone_version=3,
    params={"width": 8, "share": 0.25, "block": "basic-2"},
    features=FeatureConfig(num_mel_bins=40),
    embedding_dim=12,
    provenance={"study": "a", "trial": 7, "eer": 0.05, "épreuve": [1, None]},
)


class Tiny(Backbone):
    name = "tiny"
    version = 3

    def space(self) -> Space:
        return {"width": IntRange(low=1, high=64, default=8)}

    def build(self, params: Params, *, features: FeatureConfig) -> nn.Module:
        return nn.Linear(features.num_features, int(params["width"]))


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    folder = tmp_path / "runs" / "knee"
    save_checkpoint(folder, Tiny().build(INFO.params, features=INFO.features), INFO)
    return folder


def change(folder: Path, **changes: Any) -> None:
    path = folder / "model.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


@pytest.mark.parametrize("name", ["", "model.json", "model.safetensors"])
def test_what_is_saved_is_read_back_from_folder_or_file(name: str, tmp_path: Path, make_network: MakeNetwork) -> None:
    network = make_network()
    save_checkpoint(tmp_path / "new" / "folder", network, INFO)
    assert sorted(path.name for path in (tmp_path / "new" / "folder").iterdir()) == ["model.json", "model.safetensors"]
    info, state = read_checkpoint(tmp_path / "new" / "folder" / name)
    assert info == INFO
    assert info.greensv_version == __version__
    expected = network.state_dict()
    assert state.keys() == expected.keys()
    assert all(torch.equal(state[key], expected[key]) for key in expected)


def test_network_is_built_again_with_its_weights(saved: Path) -> None:
    info, state = read_checkpoint(saved)
    network = build_network(Tiny(), info, state)
    assert torch.equal(network.weight, state["weight"])
    assert network.weight.shape == (8, 41)
    assert not network.training


def test_channels_last_and_shared_weights_are_saved_as_they_are(tmp_path: Path) -> None:
    network = nn.Sequential(nn.Conv2d(8, 8, 3), nn.Linear(4, 4), nn.Linear(4, 4)).to(memory_format=torch.channels_last)
    network[2].weight = network[1].weight
    save_checkpoint(tmp_path, network, INFO)
    _, state = read_checkpoint(tmp_path)
    assert torch.equal(state["0.weight"], network[0].weight)
    assert torch.equal(state["1.weight"], state["2.weight"])


def test_saving_again_replaces_both_files_and_leaves_nothing_else(saved: Path) -> None:
    save_checkpoint(saved, nn.Linear(2, 2), INFO)
    assert read_checkpoint(saved)[1]["weight"].shape == (2, 2)
    assert len(list(saved.iterdir())) == 2


def test_saving_that_fails_leaves_the_old_file_and_no_other(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_text("old")

    def fail(file: Any) -> None:
        file.write(b"half")
        raise OSError(28, "No space left on device")

    with pytest.raises(CheckpointError, match="file cannot be written: No space left on device"):
        write_whole(path, fail)
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_folder_that_cannot_be_created_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(CheckpointError, match=r"model\.safetensors cannot be written: "):
        save_checkpoint(tmp_path / "file", nn.Linear(2, 2), INFO)


def test_missing_checkpoint_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"nothing does not exist; give a folder"):
        read_checkpoint(tmp_path / "nothing")
    with pytest.raises(CheckpointError, match=r"no checkpoint folder .*gone"):
        read_checkpoint(tmp_path / "gone" / "model.json")
    with pytest.raises(CheckpointError, match=r"is no greensv checkpoint: it has no model\.json"):
        read_checkpoint(tmp_path)


def test_file_of_another_kind_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "model.pt").write_bytes(b"")
    with pytest.raises(CheckpointError, match=r"model\.pt is no greensv checkpoint"):
        read_checkpoint(tmp_path / "model.pt")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", r"model\.json is damaged: no JSON"),
        (b"\xff\xfe", r"model\.json is damaged: no JSON"),
        ("[1]", r"model\.json is not one of greensv's"),
        ('{"architectures": ["BERT"]}', r"model\.json is not one of greensv's"),
    ],
)
def test_description_that_is_not_ours_is_an_error(text: str | bytes, message: str, saved: Path) -> None:
    (saved / "model.json").write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(CheckpointError, match=message):
        read_checkpoint(saved)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"format_version": 2, "greensv_version": "9.0"}, r"is of checkpoint format 2, greensv .* reads 1; .*\(9\.0\)"),
        ({"sha256": None}, "damaged: no SHA-256"),
        ({"sha256": "0" * 64}, "damaged, or not the file that model.json describes"),
        (
            {"params": 3, "embeding_dim": 4},
            r"damaged \(.*params: .*embeding_dim: unknown key; did you mean 'embedding_dim'",
        ),
    ],
)
def test_damaged_description_is_an_error(changes: Mapping[str, Any], message: str, saved: Path) -> None:
    change(saved, **changes)
    with pytest.raises(CheckpointError, match=message):
        read_checkpoint(saved)


def test_damaged_or_missing_weights_are_an_error(saved: Path) -> None:
    weights = (saved / "model.safetensors").read_bytes()
    (saved / "model.safetensors").write_bytes(weights[:-1])
    with pytest.raises(CheckpointError, match=r"model\.safetensors is damaged"):
        read_checkpoint(saved)
    (saved / "model.safetensors").unlink()
    with pytest.raises(CheckpointError, match=r"it has no model\.safetensors"):
        read_checkpoint(saved)


def test_weights_that_are_no_safetensors_are_an_error(saved: Path) -> None:
    (saved / "model.safetensors").write_bytes(b"nonsense")
    change(saved, sha256=hashlib.sha256(b"nonsense").hexdigest())
    with pytest.raises(CheckpointError, match="holds no safetensors"):
        read_checkpoint(saved)


def test_weights_and_description_of_two_savings_are_not_mixed(saved: Path) -> None:
    description = (saved / "model.json").read_bytes()
    save_checkpoint(saved, nn.Linear(2, 2), INFO)
    (saved / "model.json").write_bytes(description)
    with pytest.raises(CheckpointError, match="its SHA-256 differs"):
        read_checkpoint(saved)


def test_another_version_of_the_backbone_is_an_error(saved: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Tiny, "version", 4)
    with pytest.raises(CheckpointError, match=r"saved with version 3 of backbone 'tiny' .* installed is version 4"):
        build_network(Tiny(), *read_checkpoint(saved))


def test_weights_that_do_not_fit_are_an_error(saved: Path) -> None:
    info, state = read_checkpoint(saved)
    with pytest.raises(CheckpointError, match=r"do not fit backbone 'tiny' .*size mismatch for weight"):
        restore(nn.Linear(3, 3), state, info)


DEV = DevResult(eer=0.04, eer_threshold=0.31, num_target=300, num_nontarget=700)


@pytest.mark.parametrize("name", ["", "model.json", "model.safetensors"])
def test_development_result_is_added_and_all_else_stays(name: str, saved: Path) -> None:
    weights = (saved / "model.safetensors").read_bytes()
    annotate_checkpoint(saved / name, dev=replace(DEV, eer_threshold=0.9))
    annotate_checkpoint(saved / name, dev=DEV)
    assert read_checkpoint(saved)[0] == replace(INFO, dev=DEV)
    assert (saved / "model.safetensors").read_bytes() == weights
    assert len(list(saved.iterdir())) == 2


def test_checkpoint_of_before_there_were_development_results_is_read(saved: Path) -> None:
    path = saved / "model.json"
    description = json.loads(path.read_text())
    assert description.pop("dev") is None
    path.write_text(json.dumps(description))
    assert read_checkpoint(saved)[0] == INFO


def test_damaged_checkpoint_is_not_annotated(saved: Path) -> None:
    (saved / "model.safetensors").write_bytes(b"")
    before = (saved / "model.json").read_bytes()
    with pytest.raises(CheckpointError, match="damaged"):
        annotate_checkpoint(saved, dev=DEV)
    assert (saved / "model.json").read_bytes() == before


@pytest.fixture
def training(tones: Utterances, make_network: MakeNetwork) -> Training:
    return Training(
        network=make_network(),
        utterances=tones,
        audio=AudioStore(tones),
        recipe=Recipe(batch_size=12),
        phases=(Phase(num_epochs=2, crop_s=0.3),),
        features=FeatureConfig(),
        seed=0,
        device=torch.device("cpu"),
    )


def test_training_state_keeps_what_the_caller_adds(training: Training, tmp_path: Path) -> None:
    extra = {"spent_uj": 10**12, "curve": [0.5, 0.25], "best": {"weights": torch.arange(3)}}
    training.run(until_step=1)
    save_training_state(tmp_path / "sub" / "training.pt", training, extra)
    state, found = load_training_state(tmp_path / "sub" / "training.pt")
    assert state["step"] == 1
    assert (found["spent_uj"], found["curve"]) == (10**12, [0.5, 0.25])
    assert torch.equal(found["best"]["weights"], torch.arange(3))
    assert [path.name for path in (tmp_path / "sub").iterdir()] == ["training.pt"]


def test_training_state_that_is_missing_damaged_or_not_ours_is_an_error(training: Training, tmp_path: Path) -> None:
    path = tmp_path / "training.pt"
    with pytest.raises(CheckpointError, match="no training state"):
        load_training_state(path)
    with pytest.raises(CheckpointError, match="cannot be read"):
        load_training_state(tmp_path)
    save_training_state(path, training, {})
    whole = path.read_bytes()
    for damaged in (b"", b"nonsense", whole[: len(whole) // 2], whole[:-10]):
        path.write_bytes(damaged)
        with pytest.raises(CheckpointError, match="is damaged"):
            load_training_state(path)
    torch.save({"weights": torch.zeros(2)}, path)
    with pytest.raises(CheckpointError, match="no training state of this version"):
        load_training_state(path)


def test_training_state_runs_no_code_when_it_is_loaded(tmp_path: Path) -> None:
    torch.save({"format": "greensv-training-1", "training": np.random.default_rng, "extra": {}}, tmp_path / "t.pt")
    with pytest.raises(CheckpointError, match="is damaged"):
        load_training_state(tmp_path / "t.pt")
