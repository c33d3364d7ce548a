"""A trained network as an ONNX model, and the proof that the model computes what the network computes.

The model takes batches of utterances of one length, of any length: whole waveforms, or their filterbanks.
"""

import importlib.util
import json
import logging
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from types import MappingProxyType
from typing import Literal

import numpy as np
import torch
from jaxtyping import Float, Float32
from torch import Tensor, nn

from greensv.config import FeatureConfig
from greensv.errors import CheckpointError, ConfigError
from greensv.speaker.checkpoint import CheckpointInfo
from greensv.speaker.features import Fbank, subtract_mean

Takes = Literal["features", "waveform"]
PACKAGES = ("onnx", "onnxruntime", "onnxscript")
OUTPUT = "embedding"
CHECKED_SHAPES = ((1, 3.0), (3, 1.37), (2, 8.0), (5, 0.4))
"""Utterances in a batch and their seconds; the model is traced at none of these lengths."""
_TRACED_SHAPE = (2, 2.0)


@dataclass(frozen=True, slots=True, kw_only=True)
class Parity:
    """How far the ONNX model's embeddings are from the network's, over all the batches compared."""

    max_difference: float
    """The largest absolute difference of two values."""
    largest_value: float
    """The largest absolute value of the network's embeddings."""
    min_cosine: float
    num_utterances: int

    @property
    def relative_difference(self) -> float:
        """The largest difference as a share of the largest value."""
        return self.max_difference / self.largest_value if self.largest_value else float("inf")


def check_onnx_installed() -> None:
    """Looks for the packages that export and run ONNX models.

    Raises:
        ConfigError: one is missing.
    """
    missing = [name for name in PACKAGES if importlib.util.find_spec(name) is None]
    if missing:
        raise ConfigError(
            f"to export to ONNX and check the result, {' and '.join(missing)} must be installed: "
            "pip install 'greensv[onnx]'"
        )


def export_onnx(network: nn.Module, info: CheckpointInfo, *, takes: Takes, opset: int | None = None) -> bytes:
    """Returns the network as a serialised ONNX model with inputs of any batch size and length.

    The input `features` has shape (batch, frames, features) and holds what `Fbank` computes; `waveform` has shape
    (batch, samples), with values in [-1, 1]. The features' mean over time is subtracted inside the model. The output
    `embedding` has shape (batch, embedding). The model's metadata says what it is.

    Args:
        network: on the CPU.
        info: its checkpoint's.
        takes: the input.
        opset: version of ONNX's operators; None for torch's own choice.

    Raises:
        ConfigError: a package is missing, or the network cannot be exported (at that opset).
    """
    check_onnx_installed()
    module = _INPUTS[takes](network, info.features).eval()
    num, seconds = _TRACED_SHAPE
    waveforms = _sounds(num, seconds, sample_rate_hz=info.features.sample_rate_hz)
    with _quiet(), torch.inference_mode():
        try:
            program = torch.onnx.export(
                module,
                (module.inputs_of(waveforms),),
                dynamo=True,
                dynamic_shapes=({0: "batch", 1: module.moving},),
                input_names=[takes],
                output_names=[OUTPUT],
                opset_version=opset,
                verbose=False,
            )
        except Exception as error:
            reason = next((line for line in str(error).splitlines() if line.strip()), type(error).__name__)
            raise ConfigError(f"backbone {info.backbone!r} cannot be exported to ONNX: {reason}") from error
    assert program is not None
    model = program.model
    model.producer_name, model.producer_version = "greensv", info.greensv_version
    model.metadata_props.update(_metadata(info, takes))
    written = model.opset_imports[""]
    if opset is not None and written != opset:
        raise ConfigError(f"the exporter wrote opset {written} instead of {opset}; leave --opset out")
    serialised: bytes = program.model_proto.SerializeToString()
    return serialised


def compare(
    model: bytes,
    network: nn.Module,
    info: CheckpointInfo,
    *,
    takes: Takes,
    recordings: Sequence[Float32[np.ndarray, " samples"]] = (),
) -> Parity:
    """Runs the ONNX model in onnxruntime, and the network as `greensv embed` does, on the same batches.

    Args:
        model: what `export_onnx` returned.
        network: on the CPU, in evaluation mode.
        info: its checkpoint's.
        takes: the model's input.
        recordings: waveforms to compare on, each in a batch of its own, beside the random ones of `CHECKED_SHAPES`.

    Raises:
        CheckpointError: onnxruntime cannot load or run the model.
    """
    import onnxruntime

    rate = info.features.sample_rate_hz
    batches = [_sounds(num, seconds, sample_rate_hz=rate) for num, seconds in CHECKED_SHAPES]
    batches += [torch.from_numpy(np.ascontiguousarray(recording))[None] for recording in recordings]
    module = _INPUTS[takes](network, info.features).eval()
    fbank = Fbank(info.features)
    expected, found = [], []
    try:
        session = onnxruntime.InferenceSession(model, providers=["CPUExecutionProvider"])
        for waveforms in batches:
            with torch.inference_mode():
                expected.append(network(subtract_mean(fbank(waveforms)[0]), None).double().numpy())
                inputs = module.inputs_of(waveforms).numpy()
            found.append(np.asarray(session.run([OUTPUT], {takes: inputs})[0], dtype=np.float64))
    except Exception as error:
        raise CheckpointError(f"onnxruntime does not run the exported model: {error}") from error
    return _parity(np.concatenate(expected), np.concatenate(found))


def _parity(expected: Float[np.ndarray, "num embedding"], found: Float[np.ndarray, "num embedding"]) -> Parity:
    norms = np.linalg.norm(expected, axis=1) * np.linalg.norm(found, axis=1)
    cosines = (expected * found).sum(axis=1) / np.where(norms > 0, norms, np.nan)
    return Parity(
        max_difference=float(np.abs(expected - found).max()),
        largest_value=float(np.abs(expected).max()),
        min_cosine=float(cosines.min()),
        num_utterances=len(expected),
    )


class _FromFeatures(nn.Module):
    moving = "frames"

    def __init__(self, network: nn.Module, features: FeatureConfig) -> None:
        super().__init__()
        self.network = network
        self.fbank = Fbank(features)

    def forward(self, features: Float[Tensor, "batch frames features"]) -> Float[Tensor, "batch embedding"]:
        embeddings: Tensor = self.network(subtract_mean(features), None)
        return embeddings

    def inputs_of(self, waveforms: Float[Tensor, "batch samples"]) -> Float[Tensor, "batch frames features"]:
        frames: Tensor = self.fbank(waveforms)[0]
        return frames


class _FromWaveform(nn.Module):
    moving = "samples"

    def __init__(self, network: nn.Module, features: FeatureConfig) -> None:
        super().__init__()
        self.network = network
        self.fbank = Fbank(features)

    def forward(self, waveform: Float[Tensor, "batch samples"]) -> Float[Tensor, "batch embedding"]:
        """`Fbank` for whole utterances, with a gather for its overlapping views, which ONNX does not have."""
        length, shift = self.fbank.frame_length, self.fbank.frame_shift
        head, tail = length // 2 - shift // 2, length - length // 2
        padded = torch.cat((waveform[:, :head].flip(1), waveform, waveform[:, -tail:].flip(1)), dim=1)
        starts = torch.arange((waveform.shape[1] + shift // 2) // shift) * shift
        frames = padded[:, starts[:, None] + torch.arange(length)]
        embeddings: Tensor = self.network(subtract_mean(self.fbank._log_mel(frames)), None)
        return embeddings

    def inputs_of(self, waveforms: Float[Tensor, "batch samples"]) -> Float[Tensor, "batch samples"]:
        return waveforms


_INPUTS: Mapping[Takes, type[_FromFeatures] | type[_FromWaveform]] = MappingProxyType(
    {"features": _FromFeatures, "waveform": _FromWaveform}
)


def _sounds(num: int, seconds: float, *, sample_rate_hz: int) -> Float[Tensor, "batch samples"]:
    """Noise that swells and fades a few times a second, as speech does; the same for the same arguments."""
    random = np.random.default_rng([num, round(1000 * seconds)])
    time_s = np.arange(round(seconds * sample_rate_hz)) / sample_rate_hz
    swell = 0.5 + 0.5 * np.sin(2 * np.pi * random.uniform(2, 6, (num, 1)) * time_s)
    return torch.from_numpy((0.1 * swell * random.standard_normal((num, len(time_s)))).astype(np.float32))


def _metadata(info: CheckpointInfo, takes: Takes) -> dict[str, str]:
    return {
        "greensv_version": info.greensv_version,
        "backbone": info.backbone,
        "backbone_version": str(info.backbone_version),
        "params": json.dumps(dict(info.params)),
        "input": takes,
        "sample_rate_hz": str(info.features.sample_rate_hz),
        "features": json.dumps(asdict(info.features)),
        "embedding_dim": str(info.embedding_dim),
    }


@contextmanager
def _quiet() -> Iterator[None]:
    """The exporter warns of its own insides, and of packages that nothing here needs."""
    loggers = [logging.getLogger(name) for name in ("torch.onnx", "onnxscript", "onnx_ir")]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)
