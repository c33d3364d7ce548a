"""`greensv export` as it is typed; what the model computes is tested where it is made."""

import importlib.util
import json
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
from click.testing import CliRunner, Result

from greensv.builtin.backbones.resnet import ResNet
from greensv.cli.export import export
from greensv.errors import CheckpointError, ConfigError, DataError, GreensvError
from greensv.speaker import onnx_export
from greensv.speaker.checkpoint import build_network, read_checkpoint
from greensv.speaker.features import Fbank, subtract_mean

MISSING = [name for name in onnx_export.PACKAGES if importlib.util.find_spec(name) is None]
needs_onnx = pytest.mark.skipif(
    bool(MISSING), reason=f"{', '.join(MISSING)} not installed: pip install 'greensv[onnx]'"
)


def run(*arguments: object) -> Result:
    return CliRunner().invoke(export, [str(argument) for argument in arguments], obj={"third_party": False})


def error_of(result: Result, kind: type[GreensvError]) -> str:
    assert isinstance(result.exception, kind), (result.exception, result.output)
    return str(result.exception)


@needs_onnx
@pytest.mark.slow
def test_model_of_the_real_network_is_written_after_its_parity_is_shown(
    small_checkpoint: Path, recordings: Path, tmp_path: Path
) -> None:
    import onnxruntime

    path = tmp_path / "voice.onnx"
    result = run(small_checkpoint, "--onnx", path, "--audio", recordings / "b.flac", "--json")
    assert result.exit_code == 0, result.exception
    record = json.loads(result.stdout)
    assert record["relative_difference"] < 1e-4
    assert record["min_cosine"] > 0.999999
    assert record["num_utterances"] == 12
    assert record["num_bytes"] == path.stat().st_size
    samples, _ = soundfile.read(recordings / "c.wav", dtype="float32")
    info, state = read_checkpoint(small_checkpoint)
    with torch.inference_mode():
        features = Fbank(info.features)(torch.from_numpy(samples)[None])[0]
        expected = build_network(ResNet(), info, state)(subtract_mean(features), None).numpy()
    found = onnxruntime.InferenceSession(path).run(["embedding"], {"features": features.numpy()})[0]
    assert np.asarray(found) == pytest.approx(expected, abs=1e-4)


@needs_onnx
def test_difference_beyond_the_tolerance_writes_nothing(
    small_checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "voice.onnx"
    path.write_text("old")
    monkeypatch.setattr(onnx_export, "export_onnx", lambda *_, **__: b"model")
    found = onnx_export.Parity(max_difference=0.2, largest_value=4.0, min_cosine=0.99, num_utterances=3)
    monkeypatch.setattr(onnx_export, "compare", lambda *_, **__: found)
    message = error_of(run(small_checkpoint, "--onnx", path, "--tolerance", "0.04"), CheckpointError)
    assert "differ from the network's by 0.2, 0.05 of the largest value (cosine 0.990000)" in message
    assert path.read_text() == "old"
    result = run(small_checkpoint, "--onnx", path, "--tolerance", "0.06")
    assert result.exit_code == 0
    assert "largest difference 0.2 (0.05 of the largest value), smallest cosine 0.99000000" in result.stdout
    assert path.read_text() == "model"
    nothing = onnx_export.Parity(max_difference=0.0, largest_value=0.0, min_cosine=float("nan"), num_utterances=3)
    monkeypatch.setattr(onnx_export, "compare", lambda *_, **__: nothing)
    assert "nothing was written" in error_of(run(small_checkpoint, "--onnx", path), CheckpointError)


def test_missing_packages_are_named_before_any_work(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(onnx_export, "PACKAGES", ("onnx_of_nowhere",))
    message = error_of(run("no-checkpoint", "--onnx", tmp_path / "a.onnx"), ConfigError)
    assert "onnx_of_nowhere must be installed: pip install 'greensv[onnx]'" in message


@needs_onnx
def test_mistakes_are_errors(small_checkpoint: Path, recordings: Path, tmp_path: Path) -> None:
    path = tmp_path / "a.onnx"
    assert "does not exist" in error_of(run(tmp_path / "nothing", "--onnx", path), CheckpointError)
    assert "it is a folder" in error_of(run(small_checkpoint, "--onnx", tmp_path), ConfigError)
    message = error_of(run(small_checkpoint, "--onnx", path, "--audio", recordings / "bad-8k.wav"), DataError)
    assert "8000 Hz" in message
    assert run(small_checkpoint).exit_code == 2
    assert run(small_checkpoint, "--onnx", path, "--opset", "3").exit_code == 2
    assert not path.exists()
