"""Embeddings of whole utterances, in batches of similar length; the batch does not show in the result."""

import logging
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import cast

import numpy as np
import torch
from jaxtyping import Float32
from numpy.typing import NDArray
from torch import Tensor, nn

from greensv.config import FeatureConfig
from greensv.errors import DataError, TrainingError
from greensv.speaker.audio.store import AudioError, AudioStore, OnUnreadable
from greensv.speaker.dataset import Utterances
from greensv.speaker.device import Precision, autocast, place_network
from greensv.speaker.features import Fbank, subtract_mean
from greensv.speaker.prefetch import prefetched
from greensv.speaker.training.batches import check_sample_rate

logger = logging.getLogger(__name__)

MAX_UTTERANCE_S = 120.0
"""Seconds of an utterance that are looked at: memory grows with length, and longer speech hardly tells more."""

OnBatch = Callable[[int, int], None]
"""Called after each batch with how many utterances are done, and how many there are. What it raises passes through."""


def embed(  # noqa: PLR0913 - the last four are seldom given
    network: nn.Module,
    utterances: Utterances,
    audio: AudioStore,
    *,
    features: FeatureConfig,
    device: torch.device,
    precision: Precision = "fp32",
    max_batch_s: float = 60.0,
    on_batch: OnBatch | None = None,
    on_unreadable: OnUnreadable | None = None,
) -> Float32[np.ndarray, "utterances embedding"]:
    """Returns the embedding of each utterance as a whole, up to its first `MAX_UTTERANCE_S` seconds.

    The network computes in evaluation mode, its batch normalisation with the statistics of training, and is left in
    the mode it was in. Utterances share a batch with others of about their length; one longer than `max_batch_s` goes
    alone. What several utterances share, a file, is computed once. Silent ones are embedded, and a warning names them.

    Args:
        network: maps (features, lengths) to embeddings; moved to `device`.
        utterances: what to embed.
        audio: the same utterances' samples.
        features: what the network was trained on.
        device: computes.
        precision: bf16 and fp16 compute under autocast; the result is float32 either way.
        max_batch_s: seconds of audio in a batch, padding counted.
        on_batch: called after each batch.
        on_unreadable: called for an utterance that cannot be read or is too short for one frame, instead of raising;
            what it raises passes through, and when it returns, the utterance's row is NaN, for the caller to leave out.

    Raises:
        DataError: an utterance cannot be read, is too short for one frame, or of another sample rate than the network.
        TrainingError: an embedding is not finite.
    """
    check_sample_rate(utterances, features)
    fbank = Fbank(features).to(device)
    num_samples = _embedded_samples(utterances)
    files, file_of = _distinct(utterances.paths)
    is_usable, is_silent = np.ones(len(files), dtype=np.bool_), np.zeros(len(files), dtype=np.bool_)

    def leave_out(file: int, error: DataError) -> None:
        if on_unreadable is None:
            raise error
        is_usable[file] = False
        for index in np.flatnonzero(file_of == file):
            on_unreadable(int(index), error)

    for short in np.flatnonzero(num_samples[files] < fbank.frame_shift):
        leave_out(int(short), _too_short(utterances, int(files[short]), least=fbank.frame_shift))
    max_samples = int(max_batch_s * utterances.sample_rate_hz)
    batches = _batches(np.flatnonzero(is_usable), num_samples[files], max_samples=max_samples)
    result = np.full((len(files), cast(int, network.embedding_dim)), np.nan, dtype=np.float32)
    num_uses, num_done = np.bincount(file_of), 0

    def load(batch: NDArray[np.intp]) -> _Loaded:
        return _load(audio, batch, files[batch], num_samples[files[batch]])

    with _evaluation_mode(place_network(network, device)), prefetched(load, batches) as loaded, torch.inference_mode():
        for part in loaded:
            for file, error in part.unreadable:
                leave_out(file, error)
            if len(part.batch):
                result[part.batch] = _compute(network, fbank, part, device=device, precision=precision)
                is_silent[part.batch] = part.is_silent
            num_done += int(num_uses[part.batch].sum())
            if on_batch is not None:
                on_batch(num_done, len(utterances))
    _check_finite(result, is_usable, [utterances.ids[index] for index in files])
    _warn_of_silence([utterances.paths[index] for index in files[is_silent]])
    embedded: Float32[np.ndarray, "utterances embedding"] = result[file_of]
    return embedded


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class _Loaded:
    """A batch as it was read: `batch` are the files that could be, and the other columns are theirs."""

    batch: NDArray[np.intp]
    waveforms: Float32[Tensor, "batch samples"]
    num_samples: Tensor
    is_silent: NDArray[np.bool_]
    unreadable: tuple[tuple[int, DataError], ...]


def _embedded_samples(utterances: Utterances) -> NDArray[np.int64]:
    limit = int(MAX_UTTERANCE_S * utterances.sample_rate_hz)
    num_cut = int((utterances.num_samples > limit).sum())
    if num_cut:
        logger.warning("%d utterances are longer than %g s; their rest is not looked at", num_cut, MAX_UTTERANCE_S)
    return np.minimum(utterances.num_samples, limit)


def _distinct(paths: tuple[str, ...]) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """Returns the index of the first utterance of each file, and for each utterance the number of its file."""
    number_of: dict[str, int] = {}
    file_of = np.array([number_of.setdefault(path, len(number_of)) for path in paths], dtype=np.intp)
    _, first = np.unique(file_of, return_index=True)
    return first, file_of


def _too_short(utterances: Utterances, index: int, *, least: int) -> DataError:
    reason = f"has only {utterances.num_samples[index]} samples, fewer than the {least} of a frame"
    path, name = utterances.paths[index], utterances.ids[index]
    return AudioError(f"{path} (utterance {name!r}) {reason}; leave it out", reason=reason)


def _batches(
    files: NDArray[np.intp], num_samples: NDArray[np.int64], *, max_samples: int
) -> Iterator[NDArray[np.intp]]:
    """Yields the files in batches, longest first, so that what does not fit into memory fails at once."""
    order = files[np.argsort(-num_samples[files], kind="stable")]
    start = 0
    while start < len(order):
        size = max(1, max_samples // int(num_samples[order[start]]))
        yield order[start : start + size]
        start += size


def _load(
    audio: AudioStore, batch: NDArray[np.intp], indices: NDArray[np.intp], num_samples: NDArray[np.int64]
) -> _Loaded:
    """Reads a batch: `indices` are the utterances to read of the files in `batch`, and `num_samples` how much."""
    waveforms = np.zeros((len(batch), int(num_samples.max())), dtype=np.float32)
    unreadable: list[tuple[int, DataError]] = []
    is_read, is_silent = np.ones(len(batch), dtype=np.bool_), np.zeros(len(batch), dtype=np.bool_)
    for row, (file, index, length) in enumerate(zip(batch, indices, num_samples, strict=True)):
        try:
            samples = audio.crop(int(index), start=0, num_samples=int(length))
        except DataError as error:
            unreadable.append((int(file), error))
            is_read[row] = False
            continue
        waveforms[row, :length] = samples
        # Constant, not only zero: some recorders leave an offset where they recorded nothing.
        is_silent[row] = np.ptp(samples) == 0
    return _Loaded(
        batch=batch[is_read],
        waveforms=torch.from_numpy(waveforms[is_read]),
        num_samples=torch.from_numpy(num_samples[is_read]),
        is_silent=is_silent[is_read],
        unreadable=tuple(unreadable),
    )


def _compute(
    network: nn.Module, fbank: Fbank, part: _Loaded, *, device: torch.device, precision: Precision
) -> NDArray[np.float32]:
    frames, frame_lengths = fbank(part.waveforms.to(device), part.num_samples.to(device))
    # Without padding there is none to hide, which is quicker.
    lengths = frame_lengths if (part.num_samples != part.num_samples[0]).any() else None
    with autocast(device, precision):
        embeddings = network(subtract_mean(frames, lengths), lengths)
    computed: NDArray[np.float32] = embeddings.float().cpu().numpy()
    return computed


def _check_finite(
    result: Float32[np.ndarray, "files embedding"], is_usable: NDArray[np.bool_], ids: Sequence[str]
) -> None:
    bad = np.flatnonzero(is_usable & ~np.isfinite(result).all(axis=1))
    if len(bad):
        raise TrainingError(
            f"the embedding of utterance {ids[bad[0]]!r} is not finite (so are {len(bad)} of {len(ids)}); "
            "the network has diverged"
        )


def _warn_of_silence(paths: Sequence[str]) -> None:
    if paths:
        examples = ", ".join(paths[:3]) + (", …" if len(paths) > 3 else "")
        logger.warning("%d files are silent, and their embeddings tell nothing: %s", len(paths), examples)


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
