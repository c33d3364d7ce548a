"""Which crops of which utterances make up each step: a function of seed and epoch, so resuming needs only the step."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from greensv.config import FeatureConfig
from greensv.errors import DataError
from greensv.speaker.dataset import Utterances
from greensv.speaker.training.streams import Stream, sequence


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class EpochPlan:
    """The batches of an epoch, one row a step: `utterances[s, b]` is cropped from sample `starts[s, b]` on."""

    utterances: NDArray[np.int64]
    starts: NDArray[np.int64]
    speeds: NDArray[np.int8]
    """Which of the phase's speeds the crop is played at."""


def check_sample_rate(utterances: Utterances, features: FeatureConfig) -> None:
    """Raises DataError unless the utterances have the sample rate that the features are made for."""
    if utterances.sample_rate_hz != features.sample_rate_hz:
        raise DataError(
            f"the utterances have a sample rate of {utterances.sample_rate_hz} Hz, the features are for "
            f"{features.sample_rate_hz} Hz; resample the audio, or set features.sample_rate_hz"
        )


def steps_per_epoch(num_utterances: int, *, batch_size: int) -> int:
    """Returns how many whole batches an epoch holds; the rest of the utterances sits this epoch out.

    An utterance gives one crop an epoch, at however many speeds crops are played.

    Raises:
        DataError: there are fewer utterances than one batch holds.
    """
    if num_utterances < batch_size:
        raise DataError(
            f"the training data has {num_utterances} utterances, fewer than one batch of {batch_size}; "
            f"lower recipe.batch_size to {num_utterances} or less, or give more data"
        )
    return num_utterances // batch_size


def plan_epoch(
    num_samples: NDArray[np.int64], *, batch_size: int, crop_samples: Sequence[int], seed: int, epoch: int
) -> EpochPlan:
    """Returns a fresh permutation of the utterances, cut into batches, with a uniformly random crop of each.

    Args:
        num_samples: samples of each utterance; one shorter than the crop is taken from its beginning (and repeated).
        batch_size: utterances in a batch.
        crop_samples: samples of a crop, for each of the speeds it may be played at; all are as likely.
        seed: the training's seed.
        epoch: which epoch, counted from 0 through all phases.

    Raises:
        DataError: as `steps_per_epoch`.
    """
    num_steps = steps_per_epoch(len(num_samples), batch_size=batch_size)
    shape = num_steps, batch_size
    speeds = np.zeros(shape, dtype=np.int8)
    if len(crop_samples) > 1:
        speeds = np.random.default_rng(sequence(seed, Stream.SPEEDS, epoch)).integers(
            len(crop_samples), size=shape, dtype=np.int8
        )
    rng = np.random.default_rng(sequence(seed, Stream.CROPS, epoch))
    utterances = rng.permutation(len(num_samples))[: num_steps * batch_size].reshape(shape)
    room = np.maximum(num_samples[utterances] - np.asarray(crop_samples)[speeds], 0)
    return EpochPlan(utterances=utterances, starts=rng.integers(0, room, endpoint=True), speeds=speeds)
