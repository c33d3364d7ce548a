"""The dataset `folder`: a folder per speaker, and all audio below it is the speaker's. In a study.toml:

    [dataset]
    name = "folder"
    root = "/data/mine"             # /data/mine/train/anna/2024/a1.flac, /data/mine/test/ben/b1.wav

    [dataset.options]
    train = "train"
    test = "test"
    tests = ["pairs.txt"]           # 1 test/ben/b1.wav test/ben/b2.wav

The folders may lie inside one another.
"""

import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Annotated

from annotated_types import Ge

from greensv.builtin.datasets.development import (
    DevelopmentOptions,
    check_list_there,
    drawn_pairs,
    existing_root,
    held_out_corpus,
    normal,
)
from greensv.errors import DataError
from greensv.hookspecs import hookimpl
from greensv.speaker.audio.suffixes import AUDIO_SUFFIXES
from greensv.speaker.dataset import Corpus, Dataset, Progress, Protocol

if TYPE_CHECKING:
    from greensv.speaker.corpora.trial_list import TrialList
    from greensv.speaker.dataset import Skipped, Utterances


@dataclass(frozen=True, slots=True, kw_only=True)
class FolderOptions(DevelopmentOptions):
    """Which folders below the root hold the speakers' folders."""

    train: str = "train"
    """The folder of the training speakers, one folder each; `.` is the root itself."""
    dev: str | None = None
    """The folder of other speakers for development; None holds some training speakers out."""
    test: str = "test"
    """The folder of the test speakers."""
    tests: tuple[str, ...] = ()
    """Trial lists for the final evaluation, whose paths are relative to the root; each is a protocol named after its
    file."""
    sample_rate_hz: Annotated[int, Ge(1)] = 16_000
    """The rate of the audio as the networks see it."""
    resample: bool = False
    """Converts audio of other rates as it is read; false refuses it."""
    leave_out_test_speakers: bool = False
    """Trains without the speakers of the tests where one folder holds both; false refuses to train on them."""


class FolderDataset(Dataset):
    """A folder per speaker, `<speaker>/**/*`, with .wav, .flac, .ogg, .opus, .mp3 and .m4a files."""

    name = "folder"
    options_type = FolderOptions

    def load(self, root: Path | None, options: FolderOptions, *, cache_dir: Path, progress: Progress) -> Corpus:
        """Returns the training utterances and development pairs; see `Dataset.load`.

        An utterance is named by its path below the root, without the suffix. Trial lists are read for the names of
        their speakers alone, who must not be trained on.
        """
        from greensv.speaker.corpora.corpus import check_disjoint

        folder = existing_root(root, dataset=self.name)
        for name in options.tests:
            check_list_there(folder / name)
        tested = {speaker for _, speakers in _tests(folder, options) for speaker in speakers}
        train, skipped = _utterances(folder, options.train, options, tested, cache_dir=cache_dir, progress=progress)
        if options.dev is None:
            return held_out_corpus(train, options, skipped=skipped)
        dev, unusable = _utterances(folder, options.dev, options, tested, cache_dir=cache_dir, progress=progress)
        first, second = f"training data {folder / options.train}", f"development data {folder / options.dev}"
        check_disjoint(train, dev, first_name=first, second_name=second)
        return Corpus(train=train, dev=drawn_pairs(dev, options), skipped=(*skipped, *unusable))

    def load_tests(
        self, root: Path | None, options: FolderOptions, *, cache_dir: Path, progress: Progress
    ) -> tuple[Protocol, ...]:
        """Returns a protocol per trial list of `options.tests`, in order; see `Dataset.load_tests`."""
        from greensv.speaker.corpora.protocol import Measuring, make_protocol

        folder = existing_root(root, dataset=self.name)
        measuring = Measuring(
            sample_rate_hz=options.sample_rate_hz,
            is_resampled=options.resample,
            cache_dir=cache_dir,
            progress=progress,
        )
        protocols = []
        for trials, speakers in _tests(folder, options):
            for part in filter(None, (options.train, options.dev)):
                _check_unseen(_speaker_folders(folder, part, options), speakers, part=folder / part, options=options)
            protocols.append(
                make_protocol(trials, paths=_audio_paths(folder, trials), speakers=speakers, measuring=measuring)
            )
        return tuple(protocols)


@hookimpl
def greensv_datasets() -> Iterable[Dataset]:
    """Returns the dataset `folder`."""
    return (FolderDataset(),)


def _tests(root: Path, options: FolderOptions) -> Iterator[tuple["TrialList", list[str]]]:
    """Yields each trial list and the speaker of each of its names, told by the name alone."""
    from greensv.speaker.corpora.trial_list import read_trial_list

    # The innermost folder first: the parts may lie inside one another.
    parts = sorted({options.test, options.train, options.dev or options.train}, key=lambda part: -len(Path(part).parts))
    for file in options.tests:
        trials = read_trial_list(root / file)
        speakers = []
        for number, name in enumerate(trials.names):
            path = PurePosixPath(os.path.normpath(name))
            inside = next((path.relative_to(part) for part in parts if path.is_relative_to(part)), path)
            if len(inside.parts) < 2 or (inside == path and "." not in parts):
                raise DataError(
                    f"{trials.where(number)}: {name!r} lies in no speaker's folder of {', '.join(map(repr, parts))}; "
                    "give the path relative to the data root, and the test speakers' folder as `test`"
                )
            speakers.append(inside.parts[0])
        yield trials, speakers


def _utterances(
    root: Path, part: str, options: FolderOptions, tested: set[str], *, cache_dir: Path, progress: Progress
) -> "tuple[Utterances, tuple[Skipped, ...]]":
    from greensv.speaker.audio.suffixes import without_suffix
    from greensv.speaker.corpora.manifest import usable_utterances

    folder = normal(root / part)
    speakers = _speaker_folders(root, part, options)
    if options.leave_out_test_speakers:
        speakers -= tested
    else:
        _check_unseen(speakers, tested, part=folder, options=options)
    start = len(str(folder)) + 1
    files = [(path[start:].split("/", 1)[0], path) for path in _audio_files(folder, progress)]
    files = [(speaker, path) for speaker, path in files if speaker in speakers]
    if not files:
        raise DataError(f"no audio file in {folder}/SPEAKER/ ({', '.join(AUDIO_SUFFIXES)}); correct the folder's name")
    return usable_utterances(
        ids=[without_suffix(path[len(str(root)) + 1 :]) for _, path in files],
        paths=[path for _, path in files],
        speaker_of=[speaker for speaker, _ in files],
        sample_rate_hz=options.sample_rate_hz,
        is_resampled=options.resample,
        cache_dir=cache_dir,
        progress=progress,
    )


def _audio_files(folder: Path, progress: Progress) -> list[str]:
    from greensv.speaker.audio.suffixes import one_file_each
    from greensv.speaker.corpora.manifest import find_audio

    return one_file_each(find_audio(str(folder), AUDIO_SUFFIXES, progress))


def _speaker_folders(root: Path, part: str, options: FolderOptions) -> set[str]:
    """Returns the names of the folders in a part, without those that hold another part."""
    folder = normal(root / part)
    if not folder.is_dir():
        found = ", ".join(sorted(entry.name for entry in root.iterdir() if entry.is_dir())[:8]) or "none"
        raise DataError(f"no folder {folder} of speakers (folders there: {found}); correct [dataset.options]")
    others = {normal(root / other) for other in (options.train, options.dev, options.test) if other not in (None, part)}
    return {
        entry.name
        for entry in os.scandir(folder)
        if entry.is_dir() and not any(other.is_relative_to(folder / entry.name) for other in others)
    }


def _check_unseen(seen: Iterable[str], tested: Iterable[str], *, part: Path, options: FolderOptions) -> None:
    from greensv.speaker.corpora.corpus import check_nothing_shared

    if not options.leave_out_test_speakers:
        check_nothing_shared("speakers", tested, seen, names=("the test lists", str(part)))


def _audio_paths(root: Path, trials: "TrialList") -> list[str]:
    from greensv.speaker.audio.suffixes import find_audio_file

    paths = []
    for number, name in enumerate(trials.names):
        path = find_audio_file(os.path.normpath(root / name))
        if path is None:
            raise DataError(f"{trials.where(number)}: no audio file {root / name}, with this or another audio suffix")
        paths.append(path)
    return paths
