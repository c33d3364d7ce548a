"""Trial lists, in the forms in which the field publishes them, and their utterances found on disk.

A line is one verification trial, called a pair elsewhere in greensv. Three forms are known, one per file:

- VoxCeleb's, `1 enrolment test` or `0 enrolment test`, where 1 means the same speaker;
- Kaldi's and Kiwano's, `enrolment test target` or `enrolment test nontarget`;
- CN-Celeb's, `enrolment test 1` or `enrolment test 0`.
"""

import itertools
import logging
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from greensv.errors import DataError
from greensv.speaker.audio.suffixes import find_audio_file
from greensv.speaker.corpora.kaldi_directory import KaldiDirectory, find_kaldi_directories, read_kaldi_directory
from greensv.speaker.corpora.protocol import UNKNOWN_SPEAKER, Measuring, make_protocol
from greensv.speaker.corpora.trial_forms import FORMS, read_words, recognise
from greensv.speaker.dataset import Progress, Protocol, ignore_progress

__all__ = [
    "UNKNOWN_SPEAKER",
    "Repetitions",
    "TrialList",
    "count_repetitions",
    "known_utterances",
    "read_trial_list",
    "resolve",
    "trial_list_of",
]

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Repetitions:
    """How often a list says something again, or contradicts itself. a-b and b-a are the same pair."""

    num_duplicates: int
    """Pairs that were listed before, with the same label."""
    num_contradictory: int
    """Pairs that are listed with the other label, too: both lines count."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class TrialList:
    """The pairs of a trial list as written, in its order: pair i compares two of `names`, each name once.

    Columns of numbers, not of names: CN-Celeb's 3.5 million pairs take 80 MB.
    """

    path: Path
    names: tuple[str, ...]
    """In the order of their first mention."""
    enrolment: NDArray[np.int32]
    """Index into `names`."""
    test: NDArray[np.int32]
    is_target: NDArray[np.bool_]
    line_numbers: NDArray[np.int64]
    num_duplicates: int
    """See `Repetitions`. Nothing is dropped: a pair that is listed twice counts twice, as in published results."""
    num_contradictory: int

    def __len__(self) -> int:
        return len(self.enrolment)

    @property
    def enrolments(self) -> tuple[str, ...]:
        """The first name of each pair."""
        return tuple(map(self.names.__getitem__, self.enrolment.tolist()))

    @property
    def tests(self) -> tuple[str, ...]:
        """The second name of each pair."""
        return tuple(map(self.names.__getitem__, self.test.tolist()))

    def where(self, name: int) -> str:
        """Returns `file:line` of the first mention of `names[name]`, for messages."""
        first = int(np.argmax((self.enrolment == name) | (self.test == name)))
        return f"{self.path}:{self.line_numbers[first]}"


def read_trial_list(path: Path) -> TrialList:
    """Returns the pairs of a trial list; its form is recognised, and the same for all lines. Blank lines are skipped.

    No pair is dropped; duplicated and contradictory ones are counted, and a warning is logged.

    Raises:
        DataError: naming the file and the line: the list is missing, empty, has a line of no or of another form, or
            holds pairs of one kind only.
    """
    table = read_words(path)
    if not len(table.codes):
        raise DataError(f"trial list {path} is empty; give a line per pair, such as `{FORMS[0].example}`")
    form = recognise(path, table)
    return trial_list_of(
        path,
        words=table.words,
        enrolment=table.codes[:, form.enrolment],
        test=table.codes[:, form.test],
        is_target=table.has_word(form.label, [word for word, is_target in form.is_target_of.items() if is_target]),
        line_numbers=table.line_numbers,
    )


def trial_list_of(
    path: Path,
    *,
    words: Sequence[str],
    enrolment: NDArray[np.int32],
    test: NDArray[np.int32],
    is_target: NDArray[np.bool_],
    line_numbers: NDArray[np.int64],
) -> TrialList:
    """Returns a trial list of columns that index `words`, some of which may be no names; counts what is repeated.

    Raises:
        DataError: all pairs are of one kind.
    """
    if is_target.all() or not is_target.any():
        kind, missing = ("same", "different") if is_target[0] else ("different", "same")
        raise DataError(
            f"all {len(is_target)} pairs of trial list {path} are {kind}-speaker pairs; "
            f"an error rate needs {missing}-speaker pairs too"
        )
    is_name = np.zeros(len(words), dtype=np.bool_)
    is_name[enrolment] = is_name[test] = True
    number_of = (np.cumsum(is_name) - 1).astype(np.int32)
    repetitions = count_repetitions(enrolment, test, is_target)
    if repetitions.num_duplicates or repetitions.num_contradictory:
        logger.warning(
            "%s: %d of %d pairs are listed again, %d are listed with both labels; all are kept",
            path,
            repetitions.num_duplicates,
            len(is_target),
            repetitions.num_contradictory,
        )
    return TrialList(
        path=path,
        names=tuple(itertools.compress(words, is_name.tolist())),
        enrolment=number_of[enrolment],
        test=number_of[test],
        is_target=is_target,
        line_numbers=line_numbers,
        num_duplicates=repetitions.num_duplicates,
        num_contradictory=repetitions.num_contradictory,
    )


def count_repetitions(
    enrolment: NDArray[np.int32], test: NDArray[np.int32], is_target: NDArray[np.bool_]
) -> Repetitions:
    """Returns how many pairs are listed again, and how many with both labels; the order within a pair is ignored."""
    if not len(enrolment):
        return Repetitions(num_duplicates=0, num_contradictory=0)
    low, high = np.minimum(enrolment, test).astype(np.int64), np.maximum(enrolment, test)
    labelled = (low * (int(high.max()) + 1) + high) * 2 + is_target
    labelled.sort()
    is_new_label = np.diff(labelled, prepend=-1) != 0
    _, first, counts = np.unique(labelled >> 1, return_index=True, return_counts=True)
    num_labels = np.add.reduceat(is_new_label.astype(np.int64), first)
    return Repetitions(
        num_duplicates=len(labelled) - int(is_new_label.sum()),
        num_contradictory=int(counts[num_labels > 1].sum()),
    )


def resolve(
    trials: TrialList,
    root: Path,
    *,
    directories: Sequence[Path] = (),
    sample_rate_hz: int = 16_000,
    cache_dir: Path | None = None,
    progress: Progress = ignore_progress,
) -> Protocol:
    """Returns the list's utterances, each once, in the order of first mention, and its pairs, all of them.

    A name is looked up, in this order, as an utterance of a Kaldi data directory, as an audio path of a `wav.scp`, and
    as an audio file relative to `root`, with the suffix it has or another one: published lists say `.wav` of what
    comes as `.flac`. Data directories are `root`, its direct sub-folders and the list's own folder, where they hold a
    `wav.scp`.

    Speakers are those of `utt2spk`; where it does not tell, see `greensv.speaker.corpora.protocol.name_speakers`.

    Args:
        trials: the list.
        root: the folder to which paths are relative.
        directories: further Kaldi data directories.
        sample_rate_hz: the rate the audio must have.
        cache_dir: where to keep the lengths of audio files; None reads them anew.
        progress: called while the audio headers are read.

    Raises:
        DataError: naming list, line and utterance, and where it was looked for: it is unknown, or two directories name
            different audio so; or naming an audio file that cannot be used.
    """
    known, base = _known(trials, root, directories)
    entries = [known.find(name, base=base, trials=trials, number=i) for i, name in enumerate(trials.names)]
    return make_protocol(
        trials,
        paths=[entry.audio_path for entry in entries],
        speakers=[entry.speaker for entry in entries],
        measuring=Measuring(sample_rate_hz=sample_rate_hz, cache_dir=cache_dir, progress=progress),
    )


def known_utterances(trials: TrialList, root: Path) -> tuple[set[str], set[str]]:
    """Returns the speakers and the audio paths of a list's names, so far as data directories tell them.

    Looks at no audio, so that a tested speaker in the training data is found before anything is trained. Raises as
    `resolve` does for directories.
    """
    known, base = _known(trials, root, ())
    entries = [entry for entry in (known.listed(name, base=base) for name in trials.names) if entry is not None]
    return {entry.speaker for entry in entries if entry.speaker is not None}, {entry.audio_path for entry in entries}


def _known(trials: TrialList, root: Path, directories: Sequence[Path]) -> "tuple[_Known, str]":
    base = os.path.abspath(root)  # noqa: PTH100 - paths are compared as text, links are not followed
    found = [*directories, *find_kaldi_directories(root)]
    if (trials.path.parent / "wav.scp").is_file():
        found.append(trials.path.parent)
    known = _Known.of(read_kaldi_directory(path, root=root) for path in dict.fromkeys(p.absolute() for p in found))
    return known, base


@dataclass(frozen=True, slots=True, kw_only=True)
class _Entry:
    audio_path: str
    speaker: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class _Known:
    """The utterances of some data directories by name and by audio path, and names with several meanings."""

    directories: tuple[Path, ...]
    by_id: Mapping[str, _Entry]
    rivals: Mapping[str, _Entry]
    by_path: Mapping[str, _Entry]

    @classmethod
    def of(cls, directories: Iterable[KaldiDirectory]) -> "_Known":
        by_id: dict[str, _Entry] = {}
        by_path: dict[str, _Entry] = {}
        rivals: dict[str, _Entry] = {}
        paths = []
        for directory in directories:
            paths.append(directory.path)
            for name, audio_path, speaker in zip(directory.ids, directory.audio_paths, directory.speakers, strict=True):
                entry = _Entry(audio_path=audio_path, speaker=speaker)
                if by_id.setdefault(name, entry).audio_path != audio_path:
                    rivals[name] = entry
                by_path.setdefault(audio_path, entry)
        return cls(directories=tuple(paths), by_id=by_id, rivals=rivals, by_path=by_path)

    def listed(self, name: str, *, base: str) -> _Entry | None:
        """Returns the entry that a data directory has of a name or an audio path."""
        return self.by_id.get(name) or self.by_path.get(_normal(base, name))

    def find(self, name: str, *, base: str, trials: TrialList, number: int) -> _Entry:
        if name in self.rivals:
            raise DataError(
                f"{trials.where(number)}: utterance {name!r} is {self.by_id[name].audio_path} in one data directory "
                f"and {self.rivals[name].audio_path} in another; name the audio files in the list instead"
            )
        entry = self.listed(name, base=base)
        if entry is not None:
            return entry
        path = _normal(base, name)
        audio_path = find_audio_file(path)
        if audio_path is not None:
            return self.by_path.get(audio_path) or _Entry(audio_path=audio_path, speaker=None)
        directories = ", ".join(str(directory) for directory in self.directories)
        looked = (
            f"an utterance or audio path of {directories}" if directories else "an utterance (no wav.scp was found)"
        )
        raise DataError(
            f"{trials.where(number)}: unknown utterance {name!r}; looked for {looked}, and for the file {path}; "
            "check the list, or give the folder its paths are relative to as the data root"
        )


def _normal(base: str, name: str) -> str:
    return os.path.normpath(os.path.join(base, name))  # noqa: PTH118 - millions of names; pathlib is slow
