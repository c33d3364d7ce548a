"""The dataset `kaldi`: Kaldi data directories for training and development, trial lists for the tests.

All paths in its options are relative to the data root, and so are the audio paths in `wav.scp`. A complete example, as
it stands in a study.toml:

    [dataset]
    name = "kaldi"
    root = "~/data/speechocean762"

    [dataset.options]
    train = "train"
    num_dev_speakers = 20
    tests = ["eval/trials_o.txt", "eval/trials_h.txt"]
"""

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from annotated_types import Ge

from greensv.builtin.datasets.development import (
    DevelopmentOptions,
    check_list_there,
    drawn_pairs,
    existing_root,
    held_out_corpus,
)
from greensv.errors import DataError
from greensv.hookspecs import hookimpl
from greensv.speaker.dataset import Corpus, Dataset, Progress, Protocol

if TYPE_CHECKING:
    from greensv.speaker.corpora.kaldi_directory import KaldiDirectory
    from greensv.speaker.dataset import Skipped, Utterances


@dataclass(frozen=True, slots=True, kw_only=True)
class KaldiOptions(DevelopmentOptions):
    """Where the parts of the corpus lie, and how development pairs are made where none are given."""

    train: str = "train"
    """The data directory of the training utterances."""
    dev: str | None = None
    """The data directory of other speakers for development; None holds some training speakers out."""
    dev_pairs: str | None = None
    """A trial list among the utterances of `dev`; None draws pairs among them."""
    tests: tuple[str, ...] = ()
    """Trial lists for the final evaluation; each is a protocol named after its file."""
    sample_rate_hz: Annotated[int, Ge(1)] = 16_000
    """The rate all audio must have."""


class KaldiDataset(Dataset):
    """Reads Kaldi data directories (`wav.scp`, `utt2spk`) and trial lists in VoxCeleb's, Kaldi's or CN-Celeb's form.

    Plain files only: a piped command in `wav.scp` and a `segments` file are refused. Training files that cannot be used
    are left out and reported.
    """

    name = "kaldi"
    options_type = KaldiOptions

    def load(self, root: Path | None, options: KaldiOptions, *, cache_dir: Path, progress: Progress) -> Corpus:
        """Returns the training utterances and development pairs; see `Dataset.load`.

        Trial lists are read for the names of their speakers alone, who must not be trained on.
        """
        from greensv.speaker.corpora.corpus import check_disjoint
        from greensv.speaker.corpora.trial_list import known_utterances, read_trial_list

        folder = existing_root(root, dataset=self.name)
        if options.dev is None and options.dev_pairs is not None:
            raise DataError(
                f"dev_pairs = {options.dev_pairs!r} needs the data directory of its utterances; give `dev` too, "
                "of speakers that are not in `train`"
            )
        for name in options.tests:
            check_list_there(folder / name)
            tested = known_utterances(read_trial_list(folder / name), folder)
            for part in filter(None, (options.train, options.dev)):
                _check_unseen(*tested, _directory(folder, part), name=str(folder / name))
        train, skipped = _utterances(folder, options.train, options, cache_dir=cache_dir, progress=progress)
        if options.dev is None:
            return held_out_corpus(train, options, skipped=skipped)
        protocol, unusable = _dev_protocol(folder, options.dev, options, cache_dir=cache_dir, progress=progress)
        check_disjoint(
            train,
            protocol.utterances,
            first_name=f"training data {folder / options.train}",
            second_name=f"development data {folder / options.dev}",
        )
        return Corpus(train=train, dev=protocol, skipped=(*skipped, *unusable))

    def load_tests(
        self, root: Path | None, options: KaldiOptions, *, cache_dir: Path, progress: Progress
    ) -> tuple[Protocol, ...]:
        """Returns a protocol per trial list of `options.tests`, in order; see `Dataset.load_tests`.

        Raises:
            DataError: also where a speaker or an audio file of a test is in the training or development data.
        """
        from greensv.speaker.corpora.trial_list import read_trial_list, resolve

        folder = existing_root(root, dataset=self.name)
        rate = options.sample_rate_hz
        protocols = []
        for name in options.tests:
            trials = read_trial_list(folder / name)
            protocol = resolve(trials, folder, sample_rate_hz=rate, cache_dir=cache_dir, progress=progress)
            utterances = protocol.utterances
            for part in filter(None, (options.train, options.dev)):
                _check_unseen(
                    utterances.speaker_names, utterances.paths, _directory(folder, part), name=str(trials.path)
                )
            protocols.append(protocol)
        return tuple(protocols)


@hookimpl
def greensv_datasets() -> Iterable[Dataset]:
    """Returns the dataset `kaldi`."""
    return (KaldiDataset(),)


def _directory(root: Path, name: str) -> "KaldiDirectory":
    from greensv.speaker.corpora.kaldi_directory import read_kaldi_directory

    return read_kaldi_directory(root / name, root=root)


def _utterances(
    root: Path, name: str, options: KaldiOptions, *, cache_dir: Path, progress: Progress
) -> "tuple[Utterances, tuple[Skipped, ...]]":
    from greensv.speaker.corpora.kaldi_directory import load_usable_utterances

    rate = options.sample_rate_hz
    return load_usable_utterances(_directory(root, name), sample_rate_hz=rate, cache_dir=cache_dir, progress=progress)


def _dev_protocol(
    root: Path, name: str, options: KaldiOptions, *, cache_dir: Path, progress: Progress
) -> "tuple[Protocol, tuple[Skipped, ...]]":
    """Returns the development pairs, and the files that no pair could be drawn of; those of given pairs are needed."""
    from greensv.speaker.corpora.trial_list import read_trial_list, resolve

    if options.dev_pairs is None:
        utterances, skipped = _utterances(root, name, options, cache_dir=cache_dir, progress=progress)
        return drawn_pairs(utterances, options), skipped
    protocol = resolve(
        read_trial_list(root / options.dev_pairs),
        root,
        directories=[root / name],
        sample_rate_hz=options.sample_rate_hz,
        cache_dir=cache_dir,
        progress=progress,
    )
    return protocol, ()


def _check_unseen(speakers: Iterable[str], paths: Iterable[str], seen: "KaldiDirectory", *, name: str) -> None:
    """Compares by name and path alone: the audio of the training data need not be opened for it."""
    from greensv.speaker.corpora.corpus import check_nothing_shared

    names = (f"test list {name}", str(seen.path))
    check_nothing_shared("speakers", speakers, filter(None, seen.speakers), names=names)
    check_nothing_shared("audio files", paths, seen.audio_paths, names=names)
