"""The dataset `kiwano`: data prepared by the toolkit Kiwano, its `liste` files and trials. In a study.toml:

    [dataset]
    name = "kiwano"
    root = "/data/kiwano/data"

    [dataset.options]
    train = "voxceleb2"             # /data/kiwano/data/voxceleb2/liste
    test = ["voxceleb1"]
    tests = ["voxceleb1/voxceleb1-o-cleaned.trials"]
    old_prefix = "/scratch/me/db"   # where the audio was when the lists were written
    new_prefix = "/data/kiwano/db"

A line of `liste` is `<utterance> <speaker> <seconds> <audio file>`, separated by single spaces; trials are
`<enrolment> <test> target` or `nontarget`. https://github.com/mrouvier/kiwano, kiwano/dataset/base.py.
"""

import os
from collections.abc import Iterable, Mapping
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
    from greensv.speaker.dataset import Skipped, Utterances

WHERE_TO_GET = "Kiwano's recipes/speaker_verification/prepare_data.sh writes them, https://github.com/mrouvier/kiwano"
_NAME = "liste"


@dataclass(frozen=True, slots=True, kw_only=True)
class KiwanoOptions(DevelopmentOptions):
    """Which lists hold the parts of the corpus, and where their audio has moved to."""

    train: str = "voxceleb2"
    """The training list, or the folder that holds it as `liste`; relative to the root, as all paths are."""
    dev: str | None = None
    """The list of other speakers for development; None holds some training speakers out."""
    test: tuple[str, ...] = ("voxceleb1",)
    """The lists that name the audio of the tests."""
    tests: tuple[str, ...] = ()
    """Trials for the final evaluation; each is a protocol named after its file."""
    old_prefix: str = ""
    """What audio paths in the lists begin with and no longer should."""
    new_prefix: str = ""
    """What stands in its place, relative to the root where it is relative."""
    sample_rate_hz: Annotated[int, Ge(1)] = 16_000
    """The rate all audio must have."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Liste:
    """A list in columns; `lines[i]` is the number of the line. Durations are not kept: the audio files know better."""

    path: Path
    ids: tuple[str, ...]
    speakers: tuple[str, ...]
    audio_paths: tuple[str, ...]
    lines: tuple[int, ...]


class KiwanoDataset(Dataset):
    """Reads Kiwano's `liste` files and trials. The durations in the lists are ignored, audio headers are read."""

    name = "kiwano"
    options_type = KiwanoOptions
    where_to_get = WHERE_TO_GET

    def load(self, root: Path | None, options: KiwanoOptions, *, cache_dir: Path, progress: Progress) -> Corpus:
        """Returns the training utterances and development pairs; see `Dataset.load`.

        Trials are read for the names of their speakers alone, who must not be trained on.
        """
        from greensv.speaker.corpora.corpus import check_disjoint
        from greensv.speaker.corpora.trial_list import read_trial_list

        folder = existing_root(root, dataset=self.name)
        train = read_liste(folder, options.train, options)
        dev = read_liste(folder, options.dev, options) if options.dev is not None else None
        for name in options.tests:
            check_list_there(folder / name)
        if options.tests:
            known = _by_id(folder, options)
            for name in options.tests:
                tested = {known[u][0] for u in read_trial_list(folder / name).names if u in known}
                _check_unseen(tested, train, dev, name=str(folder / name))
        utterances, skipped = _usable(train, options, cache_dir=cache_dir, progress=progress)
        if dev is None:
            return held_out_corpus(utterances, options, skipped=skipped)
        held_out, unusable = _usable(dev, options, cache_dir=cache_dir, progress=progress)
        check_disjoint(utterances, held_out, first_name=f"training {train.path}", second_name=f"development {dev.path}")
        return Corpus(train=utterances, dev=drawn_pairs(held_out, options), skipped=(*skipped, *unusable))

    def load_tests(
        self, root: Path | None, options: KiwanoOptions, *, cache_dir: Path, progress: Progress
    ) -> tuple[Protocol, ...]:
        """Returns a protocol per file of `options.tests`, in order; see `Dataset.load_tests`."""
        from greensv.speaker.corpora.protocol import Measuring, make_protocol
        from greensv.speaker.corpora.trial_list import read_trial_list

        folder = existing_root(root, dataset=self.name)
        train = read_liste(folder, options.train, options)
        dev = read_liste(folder, options.dev, options) if options.dev is not None else None
        known = _by_id(folder, options) if options.tests else {}
        measuring = Measuring(sample_rate_hz=options.sample_rate_hz, cache_dir=cache_dir, progress=progress)
        protocols = []
        for name in options.tests:
            trials = read_trial_list(folder / name)
            for number, utterance in enumerate(trials.names):
                if utterance not in known:
                    raise DataError(
                        f"{trials.where(number)}: utterance {utterance!r} is in none of the lists `test` = "
                        f"{list(options.test)}; add the list that names it"
                    )
            entries = [known[utterance] for utterance in trials.names]
            speakers = [speaker for speaker, _ in entries]
            _check_unseen(set(speakers), train, dev, name=str(trials.path))
            protocols.append(
                make_protocol(trials, paths=[path for _, path in entries], speakers=speakers, measuring=measuring)
            )
        return tuple(protocols)


@hookimpl
def greensv_datasets() -> Iterable[Dataset]:
    """Returns the dataset `kiwano`."""
    return (KiwanoDataset(),)


def read_liste(root: Path, name: str, options: KiwanoOptions) -> Liste:
    """Returns a list of Kiwano's, its audio paths absolute; a relative one is relative to the root.

    Raises:
        DataError: naming file and line: the list is missing or empty, a line has not four fields, an utterance is
            listed twice.
    """
    from greensv.speaker.corpora.text_lines import read_blocks

    path = root / name / _NAME if (root / name).is_dir() else root / name
    if not path.is_file():
        raise DataError(f"no list {path}; {WHERE_TO_GET}")
    rows: list[list[str]] = []
    lines: list[int] = []
    num_lines = 0
    for block in read_blocks(path):
        for text in block:
            num_lines += 1
            # The path is the last field, and may hold spaces.
            row = text.strip().split(" ", 3)
            if len(row) == 4 and all(row):
                rows.append(row)
                lines.append(num_lines)
            elif row != [""]:
                raise DataError(
                    f"{path}:{num_lines}: found {text.strip()!r}, expected `<utterance> <speaker> <seconds> "
                    "<audio file>`, separated by single spaces"
                )
    if not rows:
        raise DataError(f"{path} is empty; {WHERE_TO_GET}")
    ids = tuple(row[0] for row in rows)
    _check_unique(path, ids, lines)
    return Liste(
        path=path,
        ids=ids,
        speakers=tuple(row[1] for row in rows),
        audio_paths=tuple(_relocated(root, [row[3] for row in rows], options)),
        lines=tuple(lines),
    )


def _relocated(root: Path, paths: Iterable[str], options: KiwanoOptions) -> Iterable[str]:
    for path in paths:
        moved = path
        if options.old_prefix and path.startswith(options.old_prefix):
            moved = options.new_prefix + path[len(options.old_prefix) :]
        yield os.path.normpath(os.path.join(root, moved))  # noqa: PTH118 - a million paths; pathlib is slow


def _check_unique(path: Path, ids: tuple[str, ...], lines: list[int]) -> None:
    if len(set(ids)) == len(ids):
        return
    first: dict[str, int] = {}
    for utterance, line in zip(ids, lines, strict=True):
        if first.setdefault(utterance, line) != line:
            raise DataError(
                f"{path}:{line}: utterance {utterance!r} is listed twice, first in line {first[utterance]}; remove one"
            )


def _by_id(root: Path, options: KiwanoOptions) -> Mapping[str, tuple[str, str]]:
    """Returns speaker and audio path of each utterance of the test lists.

    Raises:
        DataError: two lists name an utterance alike and do not mean the same speaker and audio; or as `read_liste`.
    """
    known: dict[str, tuple[str, str]] = {}
    for name in options.test:
        listed = read_liste(root, name, options)
        entries = zip(listed.speakers, listed.audio_paths, strict=True)
        for utterance, entry, line in zip(listed.ids, entries, listed.lines, strict=True):
            if known.setdefault(utterance, entry) != entry:
                raise DataError(
                    f"{listed.path}:{line}: utterance {utterance!r} is {entry[1]} of {entry[0]}, but another list of "
                    f"`test` says {known[utterance][1]} of {known[utterance][0]}; rename it in one of the two"
                )
    return known


def _check_unseen(tested: Iterable[str], train: Liste, dev: Liste | None, *, name: str) -> None:
    from greensv.speaker.corpora.corpus import check_nothing_shared

    for part in filter(None, (train, dev)):
        check_nothing_shared("speakers", tested, part.speakers, names=(f"trials {name}", str(part.path)))


def _usable(
    listed: Liste, options: KiwanoOptions, *, cache_dir: Path, progress: Progress
) -> "tuple[Utterances, tuple[Skipped, ...]]":
    from greensv.speaker.corpora.manifest import usable_utterances

    return usable_utterances(
        ids=listed.ids,
        paths=listed.audio_paths,
        speaker_of=listed.speakers,
        sample_rate_hz=options.sample_rate_hz,
        cache_dir=cache_dir,
        progress=progress,
    )
