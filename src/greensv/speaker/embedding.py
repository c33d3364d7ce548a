"""Embeddings of whole utterances, in batches of similar length; the batch does not show in the result."""

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Literal, cast

import numpy as np
import torch
from jaxtyping import Float32
from numpy.typing import NDArray
from torch import Tensor, nn

from greensv.config import FeatureConfig
from greensv.errors import DataError, TrainingError
from greensv.speaker.audio import AudioStore
from greensv.speaker.batches import check_sample_rate
from greensv.speaker.dataset import Utterances
from greensv.speaker.device import autocast, place_network
from greensv.speaker.features import Fbank, subtract_mean
from greensv.speaker.prefetch import prefetched

logger = logging.getLogger(__name__)

MAX_UTTERANCE_S = 120.0
"""Seconds of an utterance that are looked at: memory grows with length, and longer speech hardly tells more."""

OnBatch = Callable[[int, int], None]
"""Called after each batch with how many utterances are done, and how many there are. What it raises passes through."""


def embed(
    network: nn.Module,
    utterances: Utterances,
    audio: AudioStore,
    *,
    features: FeatureConfig,
    device: torch.device,
    precision: Literal["fp32", "bf16"] = "fp32",
    max_batch_s: float = 60.0,
    on_batch: OnBatch | None = None,
) -> Float32[np.ndarray, "utterances embedding"]:
    """Returns the embedding of each utterance as a whole, up to its first `MAX_UTTERANCE_S` seconds.

    The network computes in evaluation mode, its batch normalisation with the statistics of training, and is left in
    the mode it was in. Utterances share a batch with others of about their length; one longer than `max_batch_s` goes
    alone.

    Args:
        network: maps (features, lengths) to embeddings; moved to `device`.
        utterances: what to embed.
        audio: the same utterances' samples.
        features: what the network was trained on.
        device: computes.
        precision: bf16 computes under autocast; the result is float32 either way.
        max_batch_s: seconds of audio in a batch, padding counted.
        on_batch: called after each batch.

    Raises:
        DataError: an utterance cannot be read, is too short for one frame, or of another sample rate than the network.
        TrainingError: an embedding is not finite.
    """
    check_sample_rate(utterances, features)
    fbank = Fbank(features).to(device)
    num_samples = _embedded_samples(utterances, fbank)
    batches = _batches(num_samples, max_samples=int(max_batch_s * utterances.sample_rate_hz))
    result = np.empty((len(utterances), cast(int, network.embedding_dim)), dtype=np.float32)
    num_done = 0

    def load(batch: NDArray[np.intp]) -> tuple[NDArray[np.intp], Tensor, Tensor]:
        return batch, _padded(audio, batch, num_samples[batch]), torch.from_numpy(num_samples[batch])

    with _evaluation_mode(place_network(network, device)), prefetched(load, batches) as loaded, torch.inference_mode():
        for batch, waveforms, lengths in loaded:
            frames, frame_lengths = fbank(waveforms.to(device), lengths.to(device))
            with autocast(device, precision):
                embeddings = network(subtract_mean(frames, frame_lengths), frame_lengths)
            result[batch] = embeddings.float().cpu().numpy()
            num_done += len(batch)
            if on_batch is not None:
                on_batch(num_done, len(utterances))
    bad = np.flatnonzero(~np.isfinite(result).all(axis=1))
    if len(bad):
        raise TrainingError(
            f"the embedding of utterance {utterances.ids[bad[0]]!r} is not finite (so are {len(bad)} of "
            f"{len(utterances)}); the network has diverged"
        )
    return result


def _embedded_samples(utterances: Utterances, fbank: Fbank) -> NDArray[np.int64]:
    too_short = np.flatnonzero(utterances.num_samples < fbank.frame_shift)
    if len(too_short):
        index = too_short[0]
        raise DataError(
            f"{utterances.paths[index]} (utterance {utterances.ids[index]!r}) has only {utterances.num_samples[index]} "
            f"samples, fewer than the {fbank.frame_shift} of a frame; leave it out"
        )
    limit = int(MAX_UTTERANCE_S * utterances.sample_rate_hz)
    num_cut = int((utterances.num_samples > limit).sum())
    if num_cut:
        logger.warning("%d utterances are longer than %g s; their rest is not looked at", num_cut, MAX_UTTERANCE_S)
    return np.minimum(utterances.num_samples, limit)


def _batches(num_samples: NDArray[np.int64], *, max_samples: int) -> Iterator[NDArray[np.intp]]:
    """Yields indices, longest utterances first, so that what does not fit into memory fails at once."""
    order = np.argsort(-num_samples, kind="stable")
    start = 0
    while start < len(order):
        size = max(1, max_samples // int(num_samples[order[start]]))
        yield order[start : start + size]
        start += size


def _padded(
    audio: AudioStore, batch: NDArray[np.intp], num_samples: NDArray[np.int64]
) -> Float32[Tensor, "batch samples"]:
    waveforms = np.zeros((len(batch), int(num_samples.max())), dtype=np.float32)
    for waveform, index, length in zip(waveforms, batch, num_samples, strict=True):
        waveform[:length] = audio.crop(int(index), start=0, num_samples=int(length))
    return torch.from_numpy(waveforms)


@contextmanager
def _evaluation_mode(network: nn.Module) -> Iterator[None]:
    """Puts back each module's own mode: a network may hold some of its parts in evaluation mode while it trains."""
    modes = [(module, module.training) for module in network.modules()]
    network.eval()
    try:
        yield
    finally:
        for module, is_training in modes:
            module.training = is_training
