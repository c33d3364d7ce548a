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

from greensv.errors import DataError
from greensv.hookspecs import hookimpl
from greensv.speaker.dataset import Corpus, Dataset, Progress, Protocol, Utterances

if TYPE_CHECKING:
    from greensv.speaker.kaldi_directory import KaldiDirectory


@dataclass(frozen=True, slots=True, kw_only=True)
class KaldiOptions:
    """Where the parts of the corpus lie, and how development pairs are made where none are given."""

    train: str = "train"
    """The data directory of the training utterances."""
    dev: str | None = None
    """The data directory of other speakers for development; None holds some training speakers out."""
    dev_pairs: str | None = None
    """A trial list among the utterances of `dev`; None draws pairs among them."""
    num_dev_speakers: Annotated[int, Ge(2)] = 20
    """How many training speakers to hold out where `dev` is None; they return for the full recipe."""
    num_dev_target_pairs: Annotated[int, Ge(1)] = 5_000
    """The most same-speaker pairs to draw; all where there are fewer."""
    num_dev_nontarget_pairs: Annotated[int, Ge(1)] = 20_000
    """The most different-speaker pairs to draw."""
    seed: Annotated[int, Ge(0)] = 0
    """Chooses the held-out speakers and the pairs."""
    tests: tuple[str, ...] = ()
    """Trial lists for the final evaluation; each is a protocol named after its file."""
    sample_rate_hz: Annotated[int, Ge(1)] = 16_000
    """The rate all audio must have."""


class KaldiDataset(Dataset):
    """Reads Kaldi data directories (`wav.scp`, `utt2spk`) and trial lists in VoxCeleb's, Kaldi's or CN-Celeb's form.

    Plain files only: a piped command in `wav.scp` and a `segments` file are refused. Audio lengths are read from the
    headers of the audio files each time, which takes 0.2 ms a file.
    """

    name = "kaldi"
    options_type = KaldiOptions

    def load(self, root: Path | None, options: KaldiOptions, *, cache_dir: Path, progress: Progress) -> Corpus:
        """Returns the training utterances and development pairs; see `Dataset.load`. `cache_dir` is not used."""
        from greensv.speaker.corpus import check_disjoint, hold_out_speakers

        folder = _existing(root)
        if options.dev is None and options.dev_pairs is not None:
            raise DataError(
                f"dev_pairs = {options.dev_pairs!r} needs the data directory of its utterances; give `dev` too, "
                "of speakers that are not in `train`"
            )
        for name in options.tests:
            _check_there(folder / name)
        train = _utterances(folder, options.train, options, progress)
        if options.dev is None:
            train, dev = hold_out_speakers(train, num_speakers=options.num_dev_speakers, seed=options.seed)
            return Corpus(train=train, dev=_drawn(dev, options), dev_rejoins_training=True)
        protocol = _dev_protocol(folder, options.dev, options, progress)
        check_disjoint(
            train,
            protocol.utterances,
            first_name=f"training data {folder / options.train}",
            second_name=f"development data {folder / options.dev}",
        )
        return Corpus(train=train, dev=protocol)

    def load_tests(
        self, root: Path | None, options: KaldiOptions, *, cache_dir: Path, progress: Progress
    ) -> tuple[Protocol, ...]:
        """Returns a protocol per trial list of `options.tests`, in order; see `Dataset.load_tests`.

        Raises:
            DataError: also where a speaker or an audio file of a test is in the training or development data.
        """
        from greensv.speaker.trial_list import read_trial_list, resolve

        folder = _existing(root)
        protocols = []
        for name in options.tests:
            trials = read_trial_list(folder / name)
            protocol = resolve(trials, folder, sample_rate_hz=options.sample_rate_hz, progress=progress)
            for part in filter(None, (options.train, options.dev)):
                _check_unseen(protocol.utterances, _directory(folder, part), name=str(trials.path))
            protocols.append(protocol)
        return tuple(protocols)


def _check_there(path: Path) -> None:
    """Refuses a test list that is missing before anything is trained; its pairs are not looked at."""
    if not path.is_file():
        raise DataError(f"no trial list {path}; correct `tests` in [dataset.options], relative to the data root")


@hookimpl
def greensv_datasets() -> Iterable[Dataset]:
    """Returns the dataset `kaldi`."""
    return (KaldiDataset(),)


def _existing(root: Path | None) -> Path:
    if root is None:
        raise DataError("dataset 'kaldi' needs the folder of its data; give it as `--data-root` or `dataset.root`")
    if not root.is_dir():
        found = "it is a file" if root.exists() else "it does not exist"
        raise DataError(f"the data root {root} cannot be read: {found}; give the folder that holds the data")
    if not any(root.iterdir()):
        raise DataError(f"the data root {root} is empty; give the folder that holds the data")
    return root


def _directory(root: Path, name: str) -> "KaldiDirectory":
    from greensv.speaker.kaldi_directory import read_kaldi_directory

    return read_kaldi_directory(root / name, root=root)


def _utterances(root: Path, name: str, options: KaldiOptions, progress: Progress) -> Utterances:
    from greensv.speaker.kaldi_directory import load_utterances

    return load_utterances(_directory(root, name), sample_rate_hz=options.sample_rate_hz, progress=progress)


def _dev_protocol(root: Path, name: str, options: KaldiOptions, progress: Progress) -> Protocol:
    from greensv.speaker.trial_list import read_trial_list, resolve

    if options.dev_pairs is None:
        return _drawn(_utterances(root, name, options, progress), options)
    trials = read_trial_list(root / options.dev_pairs)
    rate = options.sample_rate_hz
    return resolve(trials, root, directories=[root / name], sample_rate_hz=rate, progress=progress)


def _drawn(utterances: Utterances, options: KaldiOptions) -> Protocol:
    from greensv.speaker.corpus import make_pairs

    pairs = make_pairs(
        utterances,
        num_target=options.num_dev_target_pairs,
        num_nontarget=options.num_dev_nontarget_pairs,
        seed=options.seed,
    )
    return Protocol(name="dev", utterances=utterances, pairs=pairs)


def _check_unseen(tested: Utterances, seen: "KaldiDirectory", *, name: str) -> None:
    """Compares by name and path alone: the audio of the training data need not be opened for it."""
    from greensv.speaker.corpus import check_nothing_shared

    names = (f"test list {name}", str(seen.path))
    check_nothing_shared("speakers", tested.speaker_names, filter(None, seen.speakers), names=names)
    check_nothing_shared("audio files", tested.paths, seen.audio_paths, names=names)
