"""Makes and splits the records of a corpus: utterances from columns, held-out speakers, pairs; refuses overlap."""

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from greensv.errors import DataError
from greensv.speaker.audio.file import probe_audio, wrong_sample_rate
from greensv.speaker.dataset import Pairs, Progress, Utterances, ignore_progress

MIN_DURATION_S = 0.1
"""Shorter utterances are refused: they hold no syllable, and hardly a frame of features."""

_PROBES_AT_ONCE = 8
_PROBES_PER_PROGRESS = 500


def build_utterances(
    *,
    ids: Sequence[str],
    paths: Sequence[str],
    speaker_of: Sequence[str],
    num_samples: NDArray[np.int64],
    sample_rate_hz: int = 16_000,
    is_resampled: bool = False,
) -> Utterances:
    """Returns utterances from columns of equal length; `speaker_of[i]` names the speaker of utterance i.

    Speakers are numbered in the order of their names, so that the numbers do not depend on the order of the files.

    Raises:
        DataError: two utterances have the same id; names the first few.
    """
    assert len(ids) == len(paths) == len(speaker_of) == len(num_samples)
    if len(set(ids)) < len(ids):
        twice = [name for name, num in Counter(ids).items() if num > 1]
        raise DataError(
            f"{len(twice)} utterance ids come more than once ({_examples(twice)}); give each utterance an id of its own"
        )
    names = sorted(set(speaker_of))
    number_of = {name: number for number, name in enumerate(names)}
    return Utterances(
        ids=tuple(ids),
        paths=tuple(paths),
        speakers=np.fromiter(map(number_of.__getitem__, speaker_of), dtype=np.int32, count=len(ids)),
        speaker_names=tuple(names),
        num_samples=np.asarray(num_samples, dtype=np.int64),
        sample_rate_hz=sample_rate_hz,
        is_resampled=is_resampled,
    )


def select(utterances: Utterances, indices: Sequence[int] | NDArray[np.intp]) -> Utterances:
    """Returns the utterances at `indices`, in that order; speakers are numbered anew, without those left out."""
    chosen = np.asarray(indices, dtype=np.intp)
    order = chosen.tolist()
    speakers = utterances.speakers[chosen]
    left = sorted(np.unique(speakers).tolist(), key=utterances.speaker_names.__getitem__)
    new_number = np.zeros(utterances.num_speakers, dtype=np.int32)
    new_number[left] = np.arange(len(left), dtype=np.int32)
    return replace(
        utterances,
        ids=tuple(map(utterances.ids.__getitem__, order)),
        paths=tuple(map(utterances.paths.__getitem__, order)),
        speakers=new_number[speakers],
        speaker_names=tuple(utterances.speaker_names[number] for number in left),
        num_samples=utterances.num_samples[chosen],
    )


def join(first: Utterances, second: Utterances) -> Utterances:
    """Returns the utterances of both, in order; speakers of the same name are one speaker.

    This is the full recipe's training data where the development speakers return to it.

    Raises:
        DataError: an utterance of both has the same id.
    """
    assert first.sample_rate_hz == second.sample_rate_hz
    if shared := set(first.ids).intersection(second.ids):
        raise DataError(
            f"{len(shared)} utterance ids are in both sets ({_examples(sorted(shared))}); "
            "give each utterance an id of its own"
        )
    names = sorted({*first.speaker_names, *second.speaker_names})
    number_of = {name: number for number, name in enumerate(names)}
    numbers = [np.array([number_of[name] for name in u.speaker_names], dtype=np.int32) for u in (first, second)]
    return Utterances(
        ids=first.ids + second.ids,
        paths=first.paths + second.paths,
        speakers=np.concatenate([numbers[0][first.speakers], numbers[1][second.speakers]]),
        speaker_names=tuple(names),
        num_samples=np.concatenate([first.num_samples, second.num_samples]),
        sample_rate_hz=first.sample_rate_hz,
        is_resampled=first.is_resampled or second.is_resampled,
    )


def hold_out_speakers(utterances: Utterances, *, num_speakers: int, seed: int) -> tuple[Utterances, Utterances]:
    """Returns the utterances without `num_speakers` speakers chosen by `seed`, and those of the chosen speakers.

    The choice depends on the speakers' names and the seed alone.

    Raises:
        DataError: fewer than two speakers would remain for training.
    """
    if num_speakers > utterances.num_speakers - 2:
        raise DataError(
            f"{num_speakers} of {utterances.num_speakers} speakers cannot be held out for development: "
            "at least two must remain for training; lower num_dev_speakers, or give a development set"
        )
    chosen = np.random.default_rng(seed).choice(utterances.num_speakers, size=num_speakers, replace=False)
    is_held_out = np.isin(utterances.speakers, chosen)
    return select(utterances, np.flatnonzero(~is_held_out)), select(utterances, np.flatnonzero(is_held_out))


def make_pairs(utterances: Utterances, *, num_target: int, num_nontarget: int, seed: int) -> Pairs:
    """Returns same-speaker pairs, then different-speaker pairs, each drawn uniformly without repetition.

    Args:
        utterances: what to compare; no utterance is paired with itself, no pair comes twice.
        num_target: the most same-speaker pairs; all are taken where there are fewer.
        num_nontarget: the most different-speaker pairs, likewise.
        seed: the same seed and utterances give the same pairs.

    Raises:
        DataError: there is no same-speaker pair, or no different-speaker pair.
    """
    rng = np.random.default_rng(seed)
    order = np.argsort(utterances.speakers, kind="stable")
    groups = np.split(order, np.flatnonzero(np.diff(utterances.speakers[order])) + 1)
    num_possible = np.array([len(group) * (len(group) - 1) // 2 for group in groups])
    if num_target < 1 or num_nontarget < 1 or not num_possible.sum() or len(groups) < 2:
        raise DataError(
            f"{len(utterances)} utterances of {utterances.num_speakers} speakers make no pairs of both kinds; "
            "two speakers are needed, one of them with two utterances"
        )
    same_first, same_second = _same_speaker_pairs(rng, groups, num_possible, num=num_target)
    first, second = _different_speaker_pairs(rng, utterances.speakers, int(num_possible.sum()), num=num_nontarget)
    return Pairs(
        enrolment=np.concatenate([same_first, first]).astype(np.int32),
        test=np.concatenate([same_second, second]).astype(np.int32),
        is_target=np.arange(len(same_first) + len(first)) < len(same_first),
    )


def check_disjoint(first: Utterances, second: Utterances, *, first_name: str, second_name: str) -> None:
    """Refuses two sets that share a speaker or an audio file.

    Raises:
        DataError: naming the sets and the first few speakers or files they share.
    """
    check_nothing_shared("speakers", first.speaker_names, second.speaker_names, names=(first_name, second_name))
    check_nothing_shared("audio files", first.paths, second.paths, names=(first_name, second_name))


def check_nothing_shared(what: str, first: Iterable[str], second: Iterable[str], *, names: tuple[str, str]) -> None:
    """Refuses two sets of `names` that have some speakers or audio files (`what`) in common. Raises as above."""
    shared = set(first).intersection(second)
    if shared:
        raise DataError(
            f"{names[0]} and {names[1]} share {len(shared)} {what} ({_examples(sorted(shared))}); "
            "remove them from one of the two: results on speakers that were trained on say nothing about unseen ones"
        )


def measure_utterances(
    paths: Sequence[str],
    *,
    sample_rate_hz: int,
    where: Callable[[int], str],
    progress: Progress = ignore_progress,
) -> NDArray[np.int64]:
    """Returns the number of samples of each file, as its header says, and does not remember them (see `manifest`).

    Args:
        paths: the audio files.
        sample_rate_hz: the rate they must have.
        where: says for an index which line names the file, for the message.
        progress: called every few hundred files.

    Raises:
        DataError: naming the line and the file: it is missing, damaged, empty, of another sample rate, or too short.
    """

    def measure(index: int) -> int:
        try:
            info = probe_audio(paths[index])
            if info.sample_rate_hz != sample_rate_hz:
                raise wrong_sample_rate(paths[index], found_hz=info.sample_rate_hz, needed_hz=sample_rate_hz)
        except DataError as error:
            raise DataError(f"{where(index)}: {error}") from error
        if info.num_samples < MIN_DURATION_S * sample_rate_hz:
            raise DataError(
                f"{where(index)}: {paths[index]} lasts {info.num_samples / sample_rate_hz:.3f} s, at least "
                f"{MIN_DURATION_S} s are needed; remove the utterance"
            )
        return info.num_samples

    num_samples: list[int] = []
    with ThreadPoolExecutor(_PROBES_AT_ONCE) as pool:
        for start in range(0, len(paths), _PROBES_PER_PROGRESS):
            num_samples += pool.map(measure, range(start, min(start + _PROBES_PER_PROGRESS, len(paths))))
            progress("reading audio headers", len(num_samples), len(paths))
    return np.array(num_samples, dtype=np.int64)


def _examples(names: Sequence[str]) -> str:
    return ", ".join(names[:3]) + (", …" if len(names) > 3 else "")


def _same_speaker_pairs(
    rng: np.random.Generator, groups: Sequence[NDArray[np.intp]], num_possible: NDArray[np.int64], *, num: int
) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    ends = np.cumsum(num_possible)
    ranks = np.sort(rng.choice(ends[-1], size=min(num, int(ends[-1])), replace=False))
    group_of = np.searchsorted(ends, ranks, side="right")
    low, high = _pair_of_rank(ranks - (ends - num_possible)[group_of])
    starts = np.cumsum([0, *(len(group) for group in groups[:-1])])[group_of]
    order = np.concatenate(groups)
    return order[starts + low], order[starts + high]


def _different_speaker_pairs(
    rng: np.random.Generator, speakers: NDArray[np.int32], num_same: int, *, num: int
) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """Draws more pairs of any kind than are needed, until enough of them are of different speakers."""
    num_all = len(speakers) * (len(speakers) - 1) // 2
    num = min(num, num_all - num_same)
    num_drawn = min(num_all, num + num // 4 + 16)
    while True:
        low, high = _pair_of_rank(rng.choice(num_all, size=num_drawn, replace=False))
        differs = speakers[low] != speakers[high]
        if differs.sum() >= num:
            return low[differs][:num], high[differs][:num]
        num_drawn = min(num_all, 2 * num_drawn)


def _pair_of_rank(ranks: NDArray[np.int64]) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """Returns (low, high), low < high, of the rank high·(high - 1)/2 + low; exact for ranks below 2^52."""
    high = ((1.0 + np.sqrt(1.0 + 8.0 * ranks)) / 2.0).astype(np.intp)
    high -= high * (high - 1) // 2 > ranks
    high += high * (high + 1) // 2 <= ranks
    return ranks - high * (high - 1) // 2, high
