"""How long a million audio files are: measured once, in parallel, and remembered in a `manifest_store`.

A file of another size or modification time is measured again. Files that cannot be used are not remembered: they are
looked at each time.
"""

import os
from collections import Counter
from collections.abc import Callable, Sequence
from concurrent.futures import Executor, ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from greensv.errors import DataError
from greensv.speaker.audio.compressed import check_decoder, is_compressed
from greensv.speaker.audio.file import probe_audio, wrong_sample_rate
from greensv.speaker.audio.header import AudioError
from greensv.speaker.corpora import manifest_store
from greensv.speaker.corpora.audio_tree import find_audio
from greensv.speaker.corpora.corpus import MIN_DURATION_S, build_utterances
from greensv.speaker.corpora.manifest_store import Facts
from greensv.speaker.dataset import Progress, Skipped, Utterances, ignore_progress

__all__ = ["Headers", "Measured", "find_audio", "measure", "read_headers", "usable_utterances"]

MAX_SKIPPED_SHARE = 0.1
"""A corpus of which more cannot be used is refused: something else is wrong than a few damaged files."""

NUM_THREADS = 8
"""Threads that ask for files: they wait for a network's answers together. Where nothing is waited for, a header costs
about 10 µs with one thread as with eight, and processes are no quicker."""
FILES_PER_SEGMENT = 16_384
"""At the most so many files are measured again after a process was killed."""
_FILES_PER_TASK = 256


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Headers:
    """What the headers of files say, file by file: zeros where a file cannot be read; `problems` then says why."""

    num_samples: NDArray[np.int64]
    """Of one channel, at the file's own rate."""
    sample_rate_hz: NDArray[np.int32]
    num_channels: NDArray[np.int16]
    problems: dict[int, str]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Measured:
    """The lengths of files, in the order asked for."""

    num_samples: NDArray[np.int64]
    """At the rate asked for, after resampling; 0 where the file cannot be used."""
    skipped: tuple[Skipped, ...]
    """The files that cannot be used, with the reason."""


def usable_utterances(
    *,
    ids: Sequence[str],
    paths: Sequence[str],
    speaker_of: Sequence[str],
    sample_rate_hz: int,
    cache_dir: Path,
    is_resampled: bool = False,
    progress: Progress = ignore_progress,
) -> tuple[Utterances, tuple[Skipped, ...]]:
    """Measures files and returns those that can be used as utterances, and the others.

    Args:
        ids: a name for each utterance, no two alike.
        paths: its audio file, absolute.
        speaker_of: its speaker's name.
        sample_rate_hz: the rate of the utterances.
        cache_dir: where the lengths are remembered.
        is_resampled: whether files of other rates are resampled; else they cannot be used.
        progress: called as the work goes on.

    Raises:
        DataError: two ids are equal; no file can be used, or more than `MAX_SKIPPED_SHARE` of them cannot.
    """
    measured = measure(
        paths, sample_rate_hz=sample_rate_hz, cache_dir=cache_dir, is_resampled=is_resampled, progress=progress
    )
    is_short = (measured.num_samples > 0) & (measured.num_samples < MIN_DURATION_S * sample_rate_hz)
    reason = f"lasts less than {MIN_DURATION_S} s"
    short = (Skipped(path=paths[index], reason=reason) for index in np.flatnonzero(is_short).tolist())
    skipped = (*measured.skipped, *short)
    if not paths or len(skipped) > MAX_SKIPPED_SHARE * len(paths):
        raise DataError(_too_few(len(paths), skipped))
    num_samples, (kept_ids, kept_paths, kept_speakers) = measured.num_samples, (ids, paths, speaker_of)
    if skipped:
        kept = np.flatnonzero((num_samples > 0) & ~is_short)
        num_samples = num_samples[kept]
        rows = kept.tolist()
        kept_ids, kept_paths, kept_speakers = ([column[row] for row in rows] for column in (ids, paths, speaker_of))
    utterances = build_utterances(
        ids=kept_ids,
        paths=kept_paths,
        speaker_of=kept_speakers,
        num_samples=num_samples,
        sample_rate_hz=sample_rate_hz,
        is_resampled=is_resampled,
    )
    return utterances, skipped


def measure(
    paths: Sequence[str],
    *,
    sample_rate_hz: int,
    cache_dir: Path,
    is_resampled: bool = False,
    progress: Progress = ignore_progress,
) -> Measured:
    """Returns how long files are, as their headers say, and which cannot be used.

    A file that is missing, damaged, cut off or empty cannot be used, nor one of another sample rate unless
    `is_resampled`. Arguments as for `usable_utterances`.

    Raises:
        DataError: there are .m4a files, and nothing to decode them.
    """
    headers = read_headers(paths, cache_dir=cache_dir, progress=progress)
    num_samples, problems = headers.num_samples.copy(), dict(headers.problems)
    rates = headers.sample_rate_hz.astype(np.int64)
    if is_resampled:
        num_samples = -(-num_samples * sample_rate_hz // np.maximum(rates, 1))
    else:
        for index in np.flatnonzero((rates != sample_rate_hz) & (rates > 0)).tolist():
            error = wrong_sample_rate(paths[index], found_hz=int(rates[index]), needed_hz=sample_rate_hz)
            problems[index] = error.reason
            num_samples[index] = 0
    skipped = tuple(Skipped(path=paths[index], reason=problems[index]) for index in sorted(problems))
    return Measured(num_samples=num_samples, skipped=skipped)


def read_headers(paths: Sequence[str], *, cache_dir: Path, progress: Progress = ignore_progress) -> Headers:
    """Returns what the headers of files say; only those are opened that were not before, or have changed since.

    Raises:
        DataError: there are .m4a files, and nothing to decode them.
    """
    if any(map(is_compressed, paths)):
        check_decoder()
    folder = cache_dir / "manifests"
    problems: dict[int, str] = {}
    with ThreadPoolExecutor(NUM_THREADS, thread_name_prefix="greensv-manifest") as pool:
        facts = _look_up(pool, paths, progress)
        if len(manifest_store.recall(folder, facts)):
            with manifest_store.alone(folder, lambda: progress("waiting for another process", 0, len(paths))):
                unknown = manifest_store.recall(folder, facts)  # another process may have measured them meanwhile
                for begin in range(0, len(unknown), FILES_PER_SEGMENT):
                    segment = unknown[begin : begin + FILES_PER_SEGMENT]
                    tell = partial(_tell_from, progress, "reading audio headers", begin, len(unknown))
                    problems |= _open_files(pool, paths, facts, segment, tell)
                    manifest_store.remember(folder, facts[segment][facts["num_samples"][segment] > 0])
                manifest_store.compact(folder)
    return Headers(
        num_samples=facts["num_samples"].copy(),
        sample_rate_hz=facts["sample_rate_hz"].copy(),
        num_channels=facts["num_channels"].copy(),
        problems=problems,
    )


def _look_up(pool: Executor, paths: Sequence[str], progress: Progress) -> Facts:
    """Returns facts with key, size and time; a size of -1 where there is no such file."""

    def look_up(begin: int) -> list[tuple[int, int]]:
        found = []
        for path in paths[begin : begin + _FILES_PER_TASK]:
            try:
                status = os.stat(path)  # noqa: PTH116 - a million files; pathlib is slow
                found.append((status.st_size, status.st_mtime_ns))
            except OSError:
                found.append((-1, 0))
        return found

    facts = np.zeros(len(paths), dtype=manifest_store.FACTS)
    facts["key"] = manifest_store.path_keys(paths)
    begins = range(0, len(paths), _FILES_PER_TASK)
    for begin, found in zip(begins, pool.map(look_up, begins), strict=True):
        part = facts[begin : begin + len(found)]
        part["size"], part["mtime_ns"] = np.array(found, dtype=np.int64).T
        progress("looking up audio files", begin + len(found), len(paths))
    return facts


def _open_files(
    pool: Executor, paths: Sequence[str], facts: Facts, indices: NDArray[np.intp], tell: Callable[[int], None]
) -> dict[int, str]:
    """Fills in what the headers of the files at `indices` say; returns why some cannot be read."""

    def probe(some: list[int]) -> list[tuple[int, int, int] | str]:
        results: list[tuple[int, int, int] | str] = []
        for index in some:
            try:
                info = probe_audio(paths[index])
                results.append((info.num_samples, info.sample_rate_hz, info.num_channels))
            except AudioError as error:
                results.append(error.reason)
        return results

    problems: dict[int, str] = {}
    tasks = [indices[i : i + _FILES_PER_TASK].tolist() for i in range(0, len(indices), _FILES_PER_TASK)]
    num_done = 0
    for task, results in zip(tasks, pool.map(probe, tasks), strict=True):
        for index, result in zip(task, results, strict=True):
            if isinstance(result, str):
                problems[index] = result
            else:
                facts["num_samples"][index], facts["sample_rate_hz"][index], facts["num_channels"][index] = result
        num_done += len(task)
        tell(num_done)
    return problems


def _tell_from(progress: Progress, what: str, begin: int, total: int, done: int) -> None:
    progress(what, begin + done, total)


def _too_few(num_files: int, skipped: Sequence[Skipped]) -> str:
    if not num_files:
        return "there are no audio files; check the folder and the list"
    reasons = Counter(item.reason for item in skipped)
    example = {item.reason: item.path for item in reversed(skipped)}
    commonest = "; ".join(
        f"{num:,} times: {reason}, such as {example[reason]}" for reason, num in reasons.most_common(3)
    )
    return (
        f"{len(skipped):,} of {num_files:,} audio files cannot be used, "
        f"{MAX_SKIPPED_SHARE:.0%} may be left out at most: {commonest}; mend them, or take them off the list"
    )
