"""The dataset `cnceleb`: CN-Celeb 1 and 2 for training, CN-Celeb's evaluation with both ways of enrolment.

    [dataset]
    name = "cnceleb"
    root = "/data/cnceleb"          # holds CN-Celeb_flac and CN-Celeb2_flac

    [dataset.options]
    tests = ["concat", "average"]

Published results differ in the way of enrolment; give both.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Annotated, Literal

from annotated_types import Ge, MinLen

from greensv.builtin.datasets.development import DevelopmentOptions, existing_root, held_out_corpus
from greensv.errors import DataError
from greensv.hookspecs import hookimpl
from greensv.speaker.dataset import Corpus, Dataset, Progress, Protocol

Part = Literal["cnceleb1", "cnceleb2"]
Enrolment = Literal["concat", "average"]

WHERE_TO_GET = (
    "CN-Celeb is at https://www.openslr.org/82/: cn-celeb_v2.tar.gz unpacks to CN-Celeb_flac, "
    "cn-celeb2_v2.tar.gz* to CN-Celeb2_flac; docs/how-to/corpora.md shows the folders"
)

FOLDERS: Mapping[Part, tuple[str, ...]] = MappingProxyType(
    {
        "cnceleb1": ("CN-Celeb_flac", "CN-Celeb_wav", "CN-Celeb"),
        "cnceleb2": ("CN-Celeb2_flac", "CN-Celeb2_wav", "CN-Celeb2"),
    }
)


@dataclass(frozen=True, slots=True, kw_only=True)
class CnCelebOptions(DevelopmentOptions):
    """What is trained on, and how the tests enrol their speakers."""

    num_dev_speakers: Annotated[int, Ge(2)] = 50
    """How many training speakers to hold out for development; they return for the full recipe."""
    train: Annotated[tuple[Part, ...], MinLen(1)] = ("cnceleb1", "cnceleb2")
    """Training parts: the speakers of CN-Celeb's `dev/dev.lst`, and all of CN-Celeb2."""
    tests: tuple[Enrolment, ...] = ("concat", "average")
    """Ways of enrolment: `concat` embeds the concatenated audio of `eval/enroll`, `average` takes the mean of the
    embeddings of the utterances in `eval/lists/enroll.map`. Published results differ in this."""
    sample_rate_hz: Annotated[int, Ge(1)] = 16_000
    """The rate all audio must have."""


class CnCelebDataset(Dataset):
    """CN-Celeb with both ways of enrolment and results by genre; lists that say `.wav` of `.flac` files are read."""

    name = "cnceleb"
    options_type = CnCelebOptions
    where_to_get = WHERE_TO_GET

    def load(self, root: Path | None, options: CnCelebOptions, *, cache_dir: Path, progress: Progress) -> Corpus:
        """Returns the training utterances and development pairs; see `Dataset.load`."""
        from greensv.speaker.corpora.manifest import usable_utterances

        folder = existing_root(root, dataset=self.name, where_to_get=WHERE_TO_GET)
        _check_tests(folder, options)
        ids: list[str] = []
        paths: list[str] = []
        for part in options.train:
            found = _training_files(_folder(folder, part), part, progress)
            start = len(str(_folder(folder, part) / "data")) + 1
            paths += found
            ids += [path[start:] for path in found]
        utterances, skipped = usable_utterances(
            ids=ids,
            paths=paths,
            speaker_of=[name.split("/", 1)[0] for name in ids],
            sample_rate_hz=options.sample_rate_hz,
            cache_dir=cache_dir,
            progress=progress,
        )
        return held_out_corpus(utterances, options, skipped=skipped)

    def load_tests(
        self, root: Path | None, options: CnCelebOptions, *, cache_dir: Path, progress: Progress
    ) -> tuple[Protocol, ...]:
        """Returns `CN-Celeb-concat` and `CN-Celeb-average`, as `options.tests` asks; see `Dataset.load_tests`.

        A pair's condition is the genre of its test utterance.
        """
        from greensv.builtin.datasets.cnceleb_tests import averaged, concatenated
        from greensv.speaker.corpora.protocol import Measuring
        from greensv.speaker.corpora.trial_list import read_trial_list

        folder = existing_root(root, dataset=self.name, where_to_get=WHERE_TO_GET)
        if not options.tests:
            return ()
        evaluation = _folder(folder, "cnceleb1") / "eval"
        trials = read_trial_list(evaluation / "lists/trials.lst")
        measuring = Measuring(sample_rate_hz=options.sample_rate_hz, cache_dir=cache_dir, progress=progress)
        make = {"concat": concatenated, "average": averaged}
        protocols = tuple(make[test](trials, evaluation, measuring) for test in options.tests)
        for protocol in protocols:
            _check_unseen(folder, options, protocol.utterances.speaker_names)
        return protocols


@hookimpl
def greensv_datasets() -> Iterable[Dataset]:
    """Returns the dataset `cnceleb`."""
    return (CnCelebDataset(),)


def _folder(root: Path, part: Part) -> Path:
    """Returns the folder of a part: below the root, the root itself, or beside it where the root is the other part."""
    candidates = [root / name for name in FOLDERS[part]]
    if root.name in {name for names in FOLDERS.values() for name in names}:
        candidates += [root.parent / name for name in FOLDERS[part]]
    elif part == "cnceleb1" and (root / "eval").is_dir():
        candidates.append(root)
    for folder in candidates:
        if (folder / "data").is_dir():
            return folder
    advice = "; leave it out of `train` to do without it" if part == "cnceleb2" else ""
    raise DataError(
        f"no folder of {part} with `data` in it; looked for {', '.join(map(str, candidates))}; {WHERE_TO_GET}{advice}"
    )


_ENROLMENT_LISTS: Mapping[Enrolment, str] = MappingProxyType({"concat": "enroll.lst", "average": "enroll.map"})


def _check_tests(root: Path, options: CnCelebOptions) -> None:
    """Refuses missing lists and enrolled training speakers before anything is trained; looks at no test audio."""
    if not options.tests:
        return
    lists = _folder(root, "cnceleb1") / "eval/lists"
    for name in ("trials.lst", *(_ENROLMENT_LISTS[test] for test in options.tests)):
        if not (lists / name).is_file():
            raise DataError(f"no list {lists / name}; {WHERE_TO_GET}, or set tests = [] to do without a test")
    for test in options.tests:
        _check_unseen(root, options, _enrolled_speakers(lists / _ENROLMENT_LISTS[test]))


def _check_unseen(root: Path, options: CnCelebOptions, tested: Iterable[str]) -> None:
    from greensv.speaker.corpora.corpus import check_nothing_shared

    for part in options.train:
        names = ("CN-Celeb's evaluation", f"the training data {part}")
        check_nothing_shared("speakers", tested, _training_speakers(_folder(root, part), part), names=names)


def _training_speakers(folder: Path, part: Part) -> list[str]:
    """Returns the training speakers: those of `dev.lst`; of CN-Celeb2 all in `spk.lst`, or all folders without it."""
    from greensv.speaker.corpora.text_lines import read_lines

    listed = folder / ("dev/dev.lst" if part == "cnceleb1" else "spk.lst")
    if part == "cnceleb2" and not listed.exists():
        return sorted(entry.name for entry in (folder / "data").iterdir() if entry.is_dir())
    if not listed.is_file():
        raise DataError(f"no list {listed} of the training speakers; {WHERE_TO_GET}")
    speakers = [line.strip() for line in read_lines(listed) if line.strip()]
    if not speakers:
        raise DataError(f"{listed} is empty; it must name a training speaker per line")
    return speakers


def _enrolled_speakers(path: Path) -> set[str]:
    """Returns the speakers of `enroll.lst` or `enroll.map`, whose lines begin with `id00800-enroll`."""
    from greensv.speaker.corpora.text_lines import read_lines

    return {line.split("-", 1)[0] for line in read_lines(path) if line.strip()}


def _training_files(folder: Path, part: Part, progress: Progress) -> Sequence[str]:
    from greensv.speaker.audio.suffixes import AUDIO_SUFFIXES, one_file_each
    from greensv.speaker.corpora.manifest import find_audio

    data = folder / "data"
    speakers = _training_speakers(folder, part)
    missing = [speaker for speaker in speakers if not (data / speaker).is_dir()]
    if missing:
        raise DataError(
            f"{len(missing)} of {len(speakers)} training speakers of {part} have no folder in {data} "
            f"({', '.join(missing[:3])}{', …' if len(missing) > 3 else ''}); unpack the archive again"
        )
    wanted = set(speakers)
    start = len(str(data)) + 1
    found = find_audio(str(data), AUDIO_SUFFIXES, progress)
    return one_file_each([path for path in found if path[start:].split("/", 1)[0] in wanted])
