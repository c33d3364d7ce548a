"""The dataset `voxceleb`: VoxCeleb2 for training, VoxCeleb1-O, -E and -H for the tests. In a study.toml:

    [dataset]
    name = "voxceleb"
    root = "/data/voxceleb"

    [dataset.options]
    tests = ["O", "E", "H"]

The folder may be laid out as the archives unpack, or as WeSpeaker, Kiwano or SpeechBrain have it; see
docs/how-to/corpora.md.
"""

import logging
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from annotated_types import Ge, MinLen

from greensv.builtin.datasets.development import DevelopmentOptions, existing_root, held_out_corpus
from greensv.builtin.datasets.voxceleb_tree import (
    PUBLISHED_LISTS,
    PUBLISHED_SIZES,
    VOXCELEB1_TEST_SPEAKERS,
    WHERE_TO_GET,
    Part,
    Test,
    check_list,
    find_list,
    speaker_folders,
)
from greensv.errors import DataError
from greensv.hookspecs import hookimpl
from greensv.speaker.dataset import Corpus, Dataset, Progress, Protocol

if TYPE_CHECKING:
    from greensv.speaker.corpora.trial_list import TrialList

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class VoxCelebOptions(DevelopmentOptions):
    """What is trained on and tested, and where it lies if not in a usual place."""

    num_dev_speakers: Annotated[int, Ge(2)] = 100
    """How many training speakers to hold out for development; they return for the full recipe."""
    train: Annotated[tuple[Part, ...], MinLen(1)] = ("voxceleb2",)
    """Training parts. `voxceleb1-dev` is refused together with the tests E and H, which hold its speakers."""
    tests: tuple[Test, ...] = ("O", "E", "H")
    """Cleaned test lists of VoxCeleb1: original, extended, hard."""
    voxceleb2: str | None = None
    """The folder of VoxCeleb2's speakers, relative to the root; None looks in the usual places."""
    voxceleb1: str | None = None
    """The folder of VoxCeleb1's speakers, development and test together; None looks in the usual places."""
    lists: str | None = None
    """The folder of the test lists; None looks in the root, `voxceleb1`, and `meta`, `lists` and `trials` of both."""
    check_lists: bool = True
    """Refuses a test list that is not the published one by its MD5; false takes any, and logs a warning."""
    sample_rate_hz: Annotated[int, Ge(1)] = 16_000
    """The rate all audio must have."""


class VoxCelebDataset(Dataset):
    """VoxCeleb2 for training, VoxCeleb1 with its cleaned lists for the tests; `.wav`, `.flac` or `.m4a`."""

    name = "voxceleb"
    options_type = VoxCelebOptions
    where_to_get = WHERE_TO_GET

    def load(self, root: Path | None, options: VoxCelebOptions, *, cache_dir: Path, progress: Progress) -> Corpus:
        """Returns the training utterances and development pairs; see `Dataset.load`."""
        from greensv.speaker.corpora.manifest import usable_utterances

        folder = existing_root(root, dataset=self.name, where_to_get=WHERE_TO_GET)
        _check_unseen(options)
        for test in options.tests:
            _accepted_list(folder, test, options)
        train = _found(folder, options, progress)
        utterances, skipped = usable_utterances(
            ids=train.ids,
            paths=train.paths,
            speaker_of=train.speakers,
            sample_rate_hz=options.sample_rate_hz,
            cache_dir=cache_dir,
            progress=progress,
        )
        return held_out_corpus(utterances, options, skipped=skipped)

    def load_tests(
        self, root: Path | None, options: VoxCelebOptions, *, cache_dir: Path, progress: Progress
    ) -> tuple[Protocol, ...]:
        """Returns the protocols `VoxCeleb1-O`, `-E` and `-H`, as `options.tests` asks; see `Dataset.load_tests`."""
        from greensv.speaker.corpora.corpus import check_nothing_shared
        from greensv.speaker.corpora.protocol import Measuring, make_protocol
        from greensv.speaker.corpora.trial_list import read_trial_list

        folder = existing_root(root, dataset=self.name, where_to_get=WHERE_TO_GET)
        _check_unseen(options)
        measuring = Measuring(sample_rate_hz=options.sample_rate_hz, cache_dir=cache_dir, progress=progress)
        protocols = []
        for test in options.tests:
            trials = read_trial_list(_accepted_list(folder, test, options))
            _tell_other_counts(trials, test)
            speakers = [_speaker(name) for name in trials.names]
            trained = {speaker for part in options.train for speaker in _train_speakers(folder, part, options)}
            check_nothing_shared("speakers", speakers, trained, names=(f"VoxCeleb1-{test}", "the training data"))
            protocols.append(
                make_protocol(
                    trials,
                    paths=_audio_paths(folder, trials, options),
                    speakers=speakers,
                    measuring=measuring,
                    name=f"VoxCeleb1-{test}",
                )
            )
        return tuple(protocols)


@hookimpl
def greensv_datasets() -> Iterable[Dataset]:
    """Returns the dataset `voxceleb`."""
    return (VoxCelebDataset(),)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Found:
    ids: list[str]
    paths: list[str]
    speakers: list[str]


def _check_unseen(options: VoxCelebOptions) -> None:
    extended = [test for test in options.tests if test != "O"]
    if "voxceleb1-dev" in options.train and extended:
        tests = " and ".join(f"VoxCeleb1-{test}" for test in extended)
        raise DataError(
            f"training on voxceleb1-dev and testing on {tests} is refused: the test holds the speakers trained on; "
            'set tests = ["O"], or train = ["voxceleb2"]'
        )


def _accepted_list(root: Path, test: Test, options: VoxCelebOptions) -> Path:
    path = find_list(root, test, given=options.lists)
    difference = check_list(path, test)
    if difference is None:
        return path
    if options.check_lists:
        raise DataError(f"{difference}; download it again, or set check_lists = false to test on this one")
    logger.warning("%s; used all the same (check_lists = false)", difference)
    return path


def _tell_other_counts(trials: "TrialList", test: Test) -> None:
    published = PUBLISHED_LISTS[test]
    num_target = int(trials.is_target.sum())
    found = (num_target, len(trials) - num_target)
    if found != (published.num_target, published.num_nontarget):
        logger.warning(
            "%s has %d target and %d nontarget pairs; the published VoxCeleb1-%s has %d and %d",
            trials.path,
            *found,
            test,
            published.num_target,
            published.num_nontarget,
        )


def _train_speakers(root: Path, part: Part, options: VoxCelebOptions) -> dict[str, str]:
    """Returns the folder of each training speaker of a part; see `speaker_folders`."""
    if part == "voxceleb2":
        return speaker_folders(root, "voxceleb2", given=options.voxceleb2)
    found = speaker_folders(root, "voxceleb1", given=options.voxceleb1)
    return {speaker: folder for speaker, folder in found.items() if speaker not in VOXCELEB1_TEST_SPEAKERS}


def _found(root: Path, options: VoxCelebOptions, progress: Progress) -> _Found:
    found = _Found(ids=[], paths=[], speakers=[])
    for part in options.train:
        speakers = _train_speakers(root, part, options)
        before = len(found.paths)
        for folder in dict.fromkeys(speakers.values()):
            _add(found, folder, {speaker for speaker, place in speakers.items() if place == folder}, progress)
        size = (len(set(found.speakers[before:])), len(found.paths) - before)
        if size != PUBLISHED_SIZES[part]:
            logger.warning(
                "%s: found %d speakers and %d utterances; published are %d and %d", part, *size, *PUBLISHED_SIZES[part]
            )
    if not found.paths:
        raise DataError(f"no audio file of {' or '.join(options.train)} below {root}; {WHERE_TO_GET}")
    return found


def _add(found: _Found, folder: str, wanted: set[str], progress: Progress) -> None:
    from greensv.speaker.audio.suffixes import AUDIO_SUFFIXES, one_file_each, without_suffix
    from greensv.speaker.corpora.manifest import find_audio

    start = len(folder) + 1
    # A folder may hold both corpora.
    paths = [path for path in find_audio(folder, AUDIO_SUFFIXES, progress) if _speaker(path[start:]) in wanted]
    paths = one_file_each(paths)
    found.paths.extend(paths)
    found.ids.extend(without_suffix(path[start:]) for path in paths)
    found.speakers.extend(_speaker(path[start:]) for path in paths)


def _speaker(name: str) -> str:
    return name.split("/", 1)[0]


def _audio_paths(root: Path, trials: "TrialList", options: VoxCelebOptions) -> list[str]:
    from greensv.speaker.audio.suffixes import find_audio_file

    folders = speaker_folders(root, "voxceleb1", given=options.voxceleb1)
    paths = []
    for number, name in enumerate(trials.names):
        folder = folders.get(_speaker(name))
        path = find_audio_file(f"{folder}/{name}") if folder is not None else None
        if path is None:
            looked = f"{folder or 'a folder of its speaker'}/{name}, with any audio suffix"
            raise DataError(f"{trials.where(number)}: no audio of {name!r}; looked for {looked}; {WHERE_TO_GET}")
        paths.append(path)
    return paths
