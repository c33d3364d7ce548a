"""The dataset `commonbench`: Common Voice for training, CommonBench's pairs for the test. In a study.toml:

    [dataset]
    name = "commonbench"
    root = "/data/common-voice-16.1"    # holds en/clips, en/validated.tsv, de/clips, …

    [dataset.options]
    languages = ["en"]
    pairs = "commonbench.csv"
    enrolment_column = "enrolment"
    test_column = "test"
    label_column = "same_speaker"

CommonBench's list changes as donors of Common Voice withdraw: its SHA-256 is part of the protocol's name, and can be
pinned.
"""

import logging
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from annotated_types import Ge, MinLen

from greensv.builtin.datasets.development import DevelopmentOptions, existing_root, held_out_corpus
from greensv.errors import DataError
from greensv.hookspecs import hookimpl
from greensv.speaker.dataset import Corpus, Dataset, Progress, Protocol

if TYPE_CHECKING:
    from greensv.speaker.corpora.trial_list import TrialList

logger = logging.getLogger(__name__)

WHERE_TO_GET = (
    "Common Voice 16.1 is at https://commonvoice.mozilla.org/datasets, CommonBench and the address of its pair list at "
    "https://github.com/Mobile-Dialog-Systeme/CommonBench; docs/how-to/corpora.md shows the folders"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class CommonBenchOptions(DevelopmentOptions):
    """What is trained on, and how the pair list is to be read."""

    num_dev_speakers: Annotated[int, Ge(2)] = 100
    """How many training speakers to hold out for development; they return for the full recipe."""
    languages: Annotated[tuple[str, ...], MinLen(1)] = ("en",)
    """The languages to train on, as Common Voice names their folders."""
    train_table: str = "validated.tsv"
    """The table of each language that lists the clips to train on, with the columns `client_id` and `path`."""
    speaker_tables: tuple[str, ...] = ("validated.tsv", "invalidated.tsv", "other.tsv")
    """The tables that tell the speakers of the test's clips, those of them that are there."""
    leave_out_test_speakers: bool = False
    """Trains without the speakers of the test; false refuses to train on them."""
    pairs: str | None = None
    """The pair list, relative to the root; None does without a test."""
    sha256: str | None = None
    """The SHA-256 that the pair list must have, or the beginning of it; None takes any."""
    enrolment_column: str | Annotated[int, Ge(1)] = 1
    """The column of the first utterance: its name in the first line, or its number. Of names, the list has a header."""
    test_column: str | Annotated[int, Ge(1)] = 2
    """The column of the second utterance."""
    label_column: str | Annotated[int, Ge(1)] = 3
    """The column that says whether the speaker is the same."""
    delimiter: Literal[",", ";", "\t", "|", " "] = ","
    """What separates the columns; a space stands for any number of spaces and tabs."""
    target_labels: tuple[str, ...] = ("1", "target", "true", "True")
    """Labels of pairs of the same speaker."""
    nontarget_labels: tuple[str, ...] = ("0", "nontarget", "false", "False")
    """Labels of pairs of different speakers. Any other label is an error."""
    sample_rate_hz: Annotated[int, Ge(1)] = 16_000
    """The rate of the audio as the networks see it: clips of 32 and 48 kHz are converted as they are read."""


class CommonBenchDataset(Dataset):
    """Common Voice's tree with CommonBench's pairs, in any table of two utterances and a label; results by language."""

    name = "commonbench"
    options_type = CommonBenchOptions
    where_to_get = WHERE_TO_GET

    def load(self, root: Path | None, options: CommonBenchOptions, *, cache_dir: Path, progress: Progress) -> Corpus:
        """Returns the training utterances and development pairs; see `Dataset.load`.

        The pair list is read for the names of its speakers alone, who must not be trained on.
        """
        from greensv.builtin.datasets.common_voice import training_clips
        from greensv.speaker.corpora.manifest import usable_utterances

        folder = existing_root(root, dataset=self.name, where_to_get=WHERE_TO_GET)
        tested = _tested(folder, options)
        columns: tuple[list[str], list[str], list[str]] = ([], [], [])
        for language in options.languages:
            for column, more in zip(columns, training_clips(folder, language, options.train_table), strict=True):
                column.extend(more)
        ids, paths, speakers = columns
        if options.leave_out_test_speakers and tested:
            kept = [index for index, speaker in enumerate(speakers) if speaker not in tested]
            logger.info("%d of %d clips are left out: their speakers are tested", len(ids) - len(kept), len(ids))
            ids, paths, speakers = ([column[index] for index in kept] for column in columns)
        else:
            _check_unseen(tested, speakers)
        utterances, skipped = usable_utterances(
            ids=ids,
            paths=paths,
            speaker_of=speakers,
            sample_rate_hz=options.sample_rate_hz,
            is_resampled=True,
            cache_dir=cache_dir,
            progress=progress,
        )
        return held_out_corpus(utterances, options, skipped=skipped)

    def load_tests(
        self, root: Path | None, options: CommonBenchOptions, *, cache_dir: Path, progress: Progress
    ) -> tuple[Protocol, ...]:
        """Returns the protocol `commonbench@sha256:…`, or none without `pairs`; see `Dataset.load_tests`.

        A pair's condition is the language of its test utterance.
        """
        from greensv.builtin.datasets.common_voice import find_clip, language_of
        from greensv.builtin.datasets.pair_table import sha256_of
        from greensv.speaker.corpora.protocol import Measuring, make_protocol

        folder = existing_root(root, dataset=self.name, where_to_get=WHERE_TO_GET)
        if options.pairs is None:
            return ()
        digest = sha256_of(folder / options.pairs, pinned=options.sha256)
        trials = _trials(folder / options.pairs, options)
        speakers = _speakers(folder, trials, options)
        if not options.leave_out_test_speakers:
            _check_unseen({speaker for speaker in speakers if speaker is not None}, _trained(folder, options))
        paths = []
        for number, name in enumerate(trials.names):
            path = find_clip(folder, name)
            if path is None:
                raise DataError(
                    f"{trials.where(number)}: no clip {name!r} in {folder} or its folder `clips`; {WHERE_TO_GET}"
                )
            paths.append(path)
        return (
            make_protocol(
                trials,
                paths=paths,
                speakers=speakers,
                measuring=Measuring(
                    sample_rate_hz=options.sample_rate_hz, is_resampled=True, cache_dir=cache_dir, progress=progress
                ),
                name=f"commonbench@sha256:{digest[:8]}",
                condition_of=lambda name: language_of(name) or "unknown",
            ),
        )


@hookimpl
def greensv_datasets() -> Iterable[Dataset]:
    """Returns the dataset `commonbench`."""
    return (CommonBenchDataset(),)


def _trials(path: Path, options: CommonBenchOptions) -> "TrialList":
    from greensv.builtin.datasets.pair_table import PairColumns, read_pair_table

    return read_pair_table(
        path,
        PairColumns(
            enrolment=options.enrolment_column,
            test=options.test_column,
            label=options.label_column,
            delimiter=options.delimiter,
            target_labels=options.target_labels,
            nontarget_labels=options.nontarget_labels,
        ),
    )


def _tested(root: Path, options: CommonBenchOptions) -> set[str]:
    """Returns the speakers of the test, so far as tables tell them."""
    from greensv.builtin.datasets.pair_table import sha256_of

    if options.pairs is None:
        return set()
    sha256_of(root / options.pairs, pinned=options.sha256)
    speakers = _speakers(root, _trials(root / options.pairs, options), options)
    return {speaker for speaker in speakers if speaker is not None}


def _speakers(root: Path, trials: "TrialList", options: CommonBenchOptions) -> list[str | None]:
    from greensv.builtin.datasets.common_voice import clip_of, wanted_speakers

    found = wanted_speakers(root, trials.names, options.speaker_tables)
    speakers = [found.get(clip_of(name)) for name in trials.names]
    if num_unknown := speakers.count(None):
        logger.warning(
            "%s: no table names the speakers of %d of %d clips; they are told from the pairs, and whether they are in "
            "the training data is not known",
            trials.path,
            num_unknown,
            len(speakers),
        )
    return speakers


def _trained(root: Path, options: CommonBenchOptions) -> set[str]:
    from greensv.builtin.datasets.common_voice import read_speakers

    return {
        speaker for language in options.languages for _, speaker in read_speakers(root, language, [options.train_table])
    }


def _check_unseen(tested: Iterable[str], trained: Iterable[str]) -> None:
    from greensv.speaker.corpora.corpus import check_nothing_shared

    try:
        check_nothing_shared("speakers", tested, trained, names=("the pair list", "the training clips"))
    except DataError as error:
        raise DataError(f"{error}; leave_out_test_speakers = true trains without them") from None
