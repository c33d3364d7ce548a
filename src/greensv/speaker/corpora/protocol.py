"""From the names of a trial list to a protocol: speakers, conditions, and the lengths of the audio files."""

import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from greensv.errors import DataError
from greensv.speaker.corpora.corpus import MIN_DURATION_S, build_utterances
from greensv.speaker.corpora.manifest import measure
from greensv.speaker.dataset import Pairs, Progress, Protocol, Utterances, ignore_progress

if TYPE_CHECKING:
    from greensv.speaker.corpora.trial_list import TrialList

UNKNOWN_SPEAKER = "unknown:"
"""The names of speakers that nothing tells begin with this."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Measuring:
    """How the audio of a protocol's utterances is measured, and what it must be."""

    sample_rate_hz: int = 16_000
    is_resampled: bool = False
    """Files of other rates are allowed."""
    cache_dir: Path | None = None
    """Where the lengths of audio files are kept; None reads them anew."""
    progress: Progress = ignore_progress


def make_protocol(
    trials: "TrialList",
    *,
    paths: Sequence[str],
    speakers: Sequence[str | None],
    measuring: Measuring,
    name: str | None = None,
    condition_of: Callable[[str], str] | None = None,
) -> Protocol:
    """Returns the protocol of a trial list whose audio files are known; no pair is dropped.

    Args:
        trials: the list.
        paths: the audio file of each of `trials.names`.
        speakers: the speaker of each, or None; see `name_speakers`.
        measuring: what the audio must be.
        name: the name of the protocol; None takes that of the list's file, without its suffix.
        condition_of: says for the name of a test utterance which condition it belongs to.

    Raises:
        DataError: naming list, line and audio file: it cannot be used.
    """
    codes, condition_names = conditions_of(trials, condition_of) if condition_of is not None else (None, ())
    pairs = Pairs(enrolment=trials.enrolment, test=trials.test, is_target=trials.is_target, conditions=codes)
    utterances = measured_utterances(
        ids=trials.names,
        paths=paths,
        speaker_of=name_speakers(trials.names, speakers, pairs),
        where=trials.where,
        measuring=measuring,
    )
    return Protocol(name=name or trials.path.stem, utterances=utterances, pairs=pairs, condition_names=condition_names)


def measured_utterances(
    *,
    ids: Sequence[str],
    paths: Sequence[str],
    speaker_of: Sequence[str],
    where: Callable[[int], str],
    measuring: Measuring,
) -> Utterances:
    """Returns utterances that must all be usable, as those of development and test pairs are.

    `where` says for an index which line names the file, for the message.

    Raises:
        DataError: naming that line and the first file that cannot be used.
    """
    rate = measuring.sample_rate_hz
    with tempfile.TemporaryDirectory(prefix="greensv-") as forgotten:
        measured = measure(
            paths,
            sample_rate_hz=rate,
            cache_dir=measuring.cache_dir or Path(forgotten),
            is_resampled=measuring.is_resampled,
            progress=measuring.progress,
        )
    unusable = {skip.path: skip.reason for skip in measured.skipped}
    is_short = (measured.num_samples > 0) & (measured.num_samples < MIN_DURATION_S * rate)
    for index in np.flatnonzero(is_short).tolist():
        unusable[paths[index]] = f"lasts less than {MIN_DURATION_S} s"
    if unusable:
        index = next(index for index, path in enumerate(paths) if path in unusable)
        more = f"; {len(unusable) - 1} more of the list's files cannot be used" if len(unusable) > 1 else ""
        raise DataError(
            f"{where(index)}: audio file {paths[index]} {unusable[paths[index]]}; mend or replace it: "
            f"pairs are not left out{more}"
        )
    return build_utterances(
        ids=ids,
        paths=paths,
        speaker_of=speaker_of,
        num_samples=measured.num_samples,
        sample_rate_hz=rate,
        is_resampled=measuring.is_resampled,
    )


def conditions_of(trials: "TrialList", condition_of: Callable[[str], str]) -> tuple[NDArray[np.int16], tuple[str, ...]]:
    """Returns the condition of each pair, told by its test utterance's name, and the conditions' names in order."""
    tested = np.unique(trials.test).tolist()
    conditions = [condition_of(trials.names[number]) for number in tested]
    names = tuple(sorted(set(conditions)))
    code_of = {name: code for code, name in enumerate(names)}
    codes = np.zeros(len(trials.names), dtype=np.int16)
    codes[tested] = [code_of[condition] for condition in conditions]
    return codes[trials.test], names


def name_speakers(names: Sequence[str], speakers: Sequence[str | None], pairs: Pairs) -> Sequence[str]:
    """Returns the speakers, those that are None named after the list's own same-speaker pairs.

    Utterances of unknown speakers that such pairs connect are one speaker, named `UNKNOWN_SPEAKER` and the first of
    them; one person may then appear as several speakers.
    """
    known = [speaker for speaker in speakers if speaker is not None]
    if len(known) == len(speakers):
        return known
    parent = list(range(len(names)))

    def first_of(number: int) -> int:
        while parent[number] != number:
            parent[number] = parent[parent[number]]
            number = parent[number]
        return number

    same = pairs.is_target
    for first, second in zip(pairs.enrolment[same].tolist(), pairs.test[same].tolist(), strict=True):
        low, high = sorted((first_of(first), first_of(second)))
        parent[high] = low
    return [
        speaker if speaker is not None else f"{UNKNOWN_SPEAKER}{names[first_of(number)]}"
        for number, speaker in enumerate(speakers)
    ]
