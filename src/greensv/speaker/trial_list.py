"""Trial lists, in the forms in which the field publishes them, and their utterances found on disk.

A line is one verification trial, called a pair elsewhere in greensv. Three forms are known, one per file:

- VoxCeleb's, `1 enrolment test` or `0 enrolment test`, where 1 means the same speaker;
- Kaldi's, `enrolment test target` or `enrolment test nontarget`;
- CN-Celeb's, `enrolment test 1` or `enrolment test 0`.
"""

import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from greensv.errors import DataError
from greensv.speaker.corpus import build_utterances, measure_utterances
from greensv.speaker.dataset import Pairs, Progress, Protocol, ignore_progress
from greensv.speaker.kaldi_directory import KaldiDirectory, find_kaldi_directories, read_kaldi_directory, read_lines

UNKNOWN_SPEAKER = "unknown:"
"""The names of speakers that no `utt2spk` tells begin with this."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class TrialList:
    """The pairs of a trial list as written, in its order: pair i compares `enrolments[i]` with `tests[i]`."""

    path: Path
    enrolments: tuple[str, ...]
    tests: tuple[str, ...]
    is_target: NDArray[np.bool_]
    line_numbers: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.enrolments)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Form:
    label: int
    enrolment: int
    test: int
    is_target_of: Mapping[str, bool]
    example: str


_FORMS = (
    _Form(label=0, enrolment=1, test=2, is_target_of={"1": True, "0": False}, example="1 enrolment test"),
    _Form(
        label=2,
        enrolment=0,
        test=1,
        is_target_of={"target": True, "nontarget": False},
        example="enrolment test target",
    ),
    _Form(label=2, enrolment=0, test=1, is_target_of={"1": True, "0": False}, example="enrolment test 1"),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Row:
    line: int
    fields: tuple[str, str, str]


def read_trial_list(path: Path) -> TrialList:
    """Returns the pairs of a trial list; its form is recognised, and the same for all lines. Blank lines are skipped.

    No pair is dropped: one that is listed twice counts twice, as in the published results.

    Raises:
        DataError: naming the file and the line: the list is missing, empty, has a line of no or of another form, or
            holds pairs of one kind only.
    """
    rows = list(_rows(path, read_lines(path)))
    if not rows:
        raise DataError(f"trial list {path} is empty; give a line per pair, such as `{_FORMS[0].example}`")
    form = _recognise(path, rows)
    is_target = np.array([form.is_target_of[row.fields[form.label]] for row in rows], dtype=np.bool_)
    if is_target.all() or not is_target.any():
        kind, missing = ("same", "different") if is_target[0] else ("different", "same")
        raise DataError(
            f"all {len(rows)} pairs of trial list {path} are {kind}-speaker pairs; "
            f"an error rate needs {missing}-speaker pairs too"
        )
    return TrialList(
        path=path,
        enrolments=tuple(row.fields[form.enrolment] for row in rows),
        tests=tuple(row.fields[form.test] for row in rows),
        is_target=is_target,
        line_numbers=np.array([row.line for row in rows], dtype=np.int64),
    )


def resolve(
    trials: TrialList,
    root: Path,
    *,
    directories: Sequence[Path] = (),
    sample_rate_hz: int = 16_000,
    progress: Progress = ignore_progress,
) -> Protocol:
    """Returns the list's utterances, each once, in the order of first mention, and its pairs, all of them.

    A name is looked up, in this order, as an utterance of a Kaldi data directory, as an audio path of a `wav.scp`, and
    as an audio file relative to `root`. Data directories are `root`, its direct sub-folders and the list's own folder,
    where they hold a `wav.scp`.

    Speakers are those of `utt2spk`. Where it does not tell, utterances that the list's own same-speaker pairs connect
    are one speaker, named `UNKNOWN_SPEAKER` and the first of them; one person may then appear as several speakers.

    Args:
        trials: the list.
        root: the folder to which paths are relative.
        directories: further Kaldi data directories.
        sample_rate_hz: the rate the audio must have.
        progress: called while the audio headers are read.

    Raises:
        DataError: naming list, line and utterance, and where it was looked for: it is unknown, or two directories name
            different audio so; or naming an audio file that cannot be used.
    """
    base = os.path.abspath(root)  # noqa: PTH100 - paths are compared as text, links are not followed
    found = [*directories, *find_kaldi_directories(root)]
    if (trials.path.parent / "wav.scp").is_file():
        found.append(trials.path.parent)
    known = _Known.of(read_kaldi_directory(path, root=root) for path in dict.fromkeys(p.absolute() for p in found))
    lines: dict[str, int] = {}
    for line, *names in zip(trials.line_numbers.tolist(), trials.enrolments, trials.tests, strict=True):
        for name in names:
            lines.setdefault(name, line)
    entries = {name: known.find(name, base=base, where=f"{trials.path}:{line}") for name, line in lines.items()}
    number_of = {name: number for number, name in enumerate(entries)}
    pairs = Pairs(
        enrolment=np.array([number_of[name] for name in trials.enrolments], dtype=np.int32),
        test=np.array([number_of[name] for name in trials.tests], dtype=np.int32),
        is_target=trials.is_target,
    )
    names = list(entries)
    paths = [entry.audio_path for entry in entries.values()]
    utterances = build_utterances(
        ids=names,
        paths=paths,
        speaker_of=_speakers(names, [entry.speaker for entry in entries.values()], pairs),
        num_samples=measure_utterances(
            paths,
            sample_rate_hz=sample_rate_hz,
            where=lambda index: f"{trials.path}:{lines[names[index]]}",
            progress=progress,
        ),
        sample_rate_hz=sample_rate_hz,
    )
    return Protocol(name=trials.path.stem, utterances=utterances, pairs=pairs)


def _rows(path: Path, lines: Sequence[str]) -> Iterable[_Row]:
    for line, text in enumerate(lines, start=1):
        match text.split():
            case []:
                continue
            case [first, second, third]:
                yield _Row(line=line, fields=(first, second, third))
            case _:
                raise DataError(f"{path}:{line}: found {text!r}, expected three words, such as `{_FORMS[0].example}`")


def _recognise(path: Path, rows: Sequence[_Row]) -> _Form:
    misfits = {form.example: _first_misfit(rows, form) for form in _FORMS}
    fitting = [form for form in _FORMS if misfits[form.example] is None]
    if len(fitting) == 1:
        return fitting[0]
    if fitting:
        raise DataError(
            f"trial list {path} can be read both as `{fitting[0].example}` and as `{fitting[1].example}`; "
            f"write its labels as `{_FORMS[1].example}` and `enrolment test nontarget`"
        )
    example, row = max(misfits.items(), key=lambda item: item[1].line if item[1] else 0)
    assert row is not None
    found = " ".join(row.fields)
    if row is rows[0]:
        forms = "`, `".join(form.example for form in _FORMS)
        raise DataError(f"{path}:{row.line}: found {found!r}, expected a line of one of the forms `{forms}`")
    raise DataError(f"{path}:{row.line}: found {found!r}, the lines before it have the form `{example}`")


def _first_misfit(rows: Sequence[_Row], form: _Form) -> _Row | None:
    return next((row for row in rows if row.fields[form.label] not in form.is_target_of), None)


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

    def find(self, name: str, *, base: str, where: str) -> _Entry:
        if name in self.rivals:
            raise DataError(
                f"{where}: utterance {name!r} is {self.by_id[name].audio_path} in one data directory and "
                f"{self.rivals[name].audio_path} in another; name the audio files in the list instead"
            )
        path = os.path.normpath(os.path.join(base, name))  # noqa: PTH118 - millions of names; pathlib is slow
        entry = self.by_id.get(name) or self.by_path.get(path)
        if entry is not None:
            return entry
        if Path(path).is_file():
            return _Entry(audio_path=path, speaker=None)
        directories = ", ".join(str(directory) for directory in self.directories)
        looked = (
            f"an utterance or audio path of {directories}" if directories else "an utterance (no wav.scp was found)"
        )
        raise DataError(
            f"{where}: unknown utterance {name!r}; looked for {looked}, and for the file {path}; "
            "check the list, or give the folder its paths are relative to as the data root"
        )


def _speakers(names: Sequence[str], speakers: Sequence[str | None], pairs: Pairs) -> list[str]:
    """Fills in the unknown speakers: utterances connected by same-speaker pairs are one (union-find)."""
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
