"""The ONNX model, run by onnxruntime, beside the network: what a user of it would see."""

import dataclasses
import importlib.util
import json
import tomllib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
import torch
from torch import Tensor, nn

from greensv.config import FeatureConfig
from greensv.errors import CheckpointError, ConfigError
from greensv.speaker import onnx_export
from greensv.speaker.checkpoint import CheckpointInfo
from greensv.speaker.features import Fbank, subtract_mean
from greensv.speaker.onnx_export import PACKAGES, Takes, compare, export_onnx

MISSING = [name for name in PACKAGES if importlib.util.find_spec(name) is None]
needs_onnx = pytest.mark.skipif(
    bool(MISSING), reason=f"{', '.join(MISSING)} not installed: pip install 'greensv[onnx]'"
)
INFO = CheckpointInfo(
    backbone="mean",
    backbone_version=1,
    params={"width": 8},
    features=FeatureConfig(num_mel_bins=20, window="hamming"),
    embedding_dim=4,
)


class Mean(nn.Module):
    """Quick to export, and not linear in its frames: a mean of tanh."""

    embedding_dim = 4

    def __init__(self, num_features: int = 21) -> None:
        super().__init__()
        with torch.random.fork_rng():
            torch.manual_seed(3)
            self.frames = nn.Linear(num_features, 8)
            self.embedding = nn.Linear(8, 4)

    def forward(self, features: Tensor, lengths: Tensor | None) -> Tensor:
        assert lengths is None
        return self.embedding(torch.tanh(self.frames(features)).mean(1))


@pytest.fixture(scope="module")
def model_of() -> Any:
    models: dict[Takes, bytes] = {}

    def make(takes: Takes) -> bytes:
        if takes not in models:
            models[takes] = export_onnx(Mean().eval(), INFO, takes=takes)
        return models[takes]

    return make


def run(model: bytes, **inputs: np.ndarray) -> np.ndarray:
    import onnxruntime

    session = onnxruntime.InferenceSession(model, providers=["CPUExecutionProvider"])
    return np.asarray(session.run(["embedding"], inputs)[0])


@needs_onnx
@pytest.mark.parametrize(("num", "num_samples"), [(1, 16_000), (4, 7_777), (3, 400), (1, 50_001)])
def test_model_of_waveforms_computes_features_of_any_length(num: int, num_samples: int, model_of: Any) -> None:
    waveforms = 0.1 * np.random.default_rng(num_samples).standard_normal((num, num_samples)).astype(np.float32)
    with torch.inference_mode():
        features = subtract_mean(Fbank(INFO.features)(torch.from_numpy(waveforms))[0])
        expected = Mean()(features, None).numpy()
    assert run(model_of("waveform"), waveform=waveforms) == pytest.approx(expected, abs=1e-4)


@needs_onnx
@pytest.mark.parametrize(("num", "num_frames"), [(1, 100), (5, 33), (2, 1)])
def test_model_of_features_subtracts_their_mean(num: int, num_frames: int, model_of: Any) -> None:
    features = np.random.default_rng(0).standard_normal((num, num_frames, 21)).astype(np.float32)
    with torch.inference_mode():
        expected = Mean()(subtract_mean(torch.from_numpy(features)), None).numpy()
    model = model_of("features")
    assert run(model, features=features) == pytest.approx(expected, abs=1e-5)
    assert run(model, features=features + 7) == pytest.approx(expected, abs=1e-4)


@needs_onnx
@pytest.mark.parametrize("takes", ["features", "waveform"])
def test_model_says_what_it_is_and_is_sound(takes: Takes, model_of: Any) -> None:
    import onnx

    model = onnx.load_from_string(model_of(takes))
    onnx.checker.check_model(model, full_check=True)
    said = {entry.key: entry.value for entry in model.metadata_props}
    assert said["backbone"] == "mean"
    assert said["input"] == takes
    assert said["sample_rate_hz"] == "16000"
    assert json.loads(said["features"]) == dataclasses.asdict(INFO.features)
    assert json.loads(said["params"]) == {"width": 8}
    shape = model.graph.input[0].type.tensor_type.shape.dim
    assert [dim.dim_param for dim in shape][:2] == ["batch", "frames" if takes == "features" else "samples"]
    assert [entry.name for entry in model.graph.output] == ["embedding"]


@needs_onnx
def test_opset_is_what_was_asked_for() -> None:
    import onnx

    model = export_onnx(Mean().eval(), INFO, takes="features", opset=19)
    assert {entry.domain: entry.version for entry in onnx.load_from_string(model).opset_import}[""] == 19


@needs_onnx
@pytest.mark.parametrize("takes", ["features", "waveform"])
def test_parity_of_a_network_with_its_own_model_is_near(takes: Takes, model_of: Any) -> None:
    recording = np.sin(np.arange(12_345) / 7).astype(np.float32)
    found = compare(model_of(takes), Mean().eval(), INFO, takes=takes, recordings=[recording])
    assert found.relative_difference < 1e-4
    assert found.min_cosine > 1 - 1e-6
    assert found.num_utterances == 12
    assert found.largest_value > 0.01


@needs_onnx
def test_parity_with_other_weights_is_not(model_of: Any) -> None:
    other = Mean().eval()
    with torch.no_grad():
        other.embedding.bias[0] += 0.25
    found = compare(model_of("features"), other, INFO, takes="features")
    assert found.max_difference == pytest.approx(0.25, abs=1e-4)
    assert found.relative_difference == pytest.approx(0.25 / found.largest_value, abs=1e-3)
    assert found.min_cosine < 0.999


@needs_onnx
def test_network_that_cannot_be_exported_is_an_error() -> None:
    class Branching(Mean):
        def forward(self, features: Tensor, lengths: Tensor | None) -> Tensor:
            return super().forward(features if features.sum() > 0 else -features, lengths)

    with pytest.raises(ConfigError, match=r"backbone 'mean' cannot be exported to ONNX: \S"):
        export_onnx(Branching().eval(), INFO, takes="features")


@needs_onnx
def test_model_that_onnxruntime_refuses_is_an_error() -> None:
    with pytest.raises(CheckpointError, match="onnxruntime does not run the exported model"):
        compare(b"nonsense", Mean().eval(), INFO, takes="features")


@needs_onnx
def test_the_caller_shown_in_the_documentation_runs_it(
    model_of: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    page = (Path(__file__).parents[2] / "docs" / "how-to" / "verify.md").read_text()
    blocks = [block.split("```")[0] for block in page.split("```python\n")[1:]]
    shown = next(block for block in blocks if "InferenceSession(" in block)
    monkeypatch.chdir(tmp_path)
    Path("voice.onnx").write_bytes(model_of("waveform"))
    soundfile.write("monday.wav", np.sin(np.arange(9_000) / 5) / 2, 16_000)
    found: dict[str, Any] = {}
    exec(shown, found)
    assert found["embedding"].shape == (4,)


def test_missing_packages_are_named_with_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(onnx_export, "PACKAGES", ("json", "onnx_of_nowhere", "runtime_of_nowhere"))
    with pytest.raises(ConfigError, match=r"onnx_of_nowhere and runtime_of_nowhere .* pip install 'greensv\[onnx\]'"):
        export_onnx(Mean(), INFO, takes="features")


def test_network_whose_embeddings_are_all_zero_proves_nothing() -> None:
    zero = onnx_export.Parity(max_difference=0.0, largest_value=0.0, min_cosine=float("nan"), num_utterances=1)
    assert zero.relative_difference == float("inf")


def test_extra_holds_the_packages_looked_for() -> None:
    text = (Path(__file__).parents[2] / "pyproject.toml").read_text()
    extra = tomllib.loads(text)["project"]["optional-dependencies"]["onnx"]
    assert {requirement.split(">")[0] for requirement in extra} == set(PACKAGES)
