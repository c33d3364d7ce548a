"""What a dataset holds and what is wrong with it, found by loading it as a study does."""

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from greensv.errors import DataError
from greensv.speaker.audio.defects import NUM_EXAMPLES, Defect, find_defects
from greensv.speaker.corpora.corpus import check_disjoint
from greensv.speaker.corpora.manifest import read_headers
from greensv.speaker.corpora.trial_list import count_repetitions
from greensv.speaker.dataset import Corpus, Dataset, Progress, Protocol, Skipped, Utterances
from greensv.speaker.training.skipping import FEWEST_TOO_MANY, SHARE_TOO_MANY


@dataclass(frozen=True, slots=True, kw_only=True)
class Checking:
    """How a dataset is checked."""

    cache_dir: Path
    """Where the dataset keeps what it measured."""
    progress: Progress
    crop_s: float
    """Utterances shorter than this are counted."""
    sample_rate_hz: int | None = None
    """What the study's features need; None: whatever the dataset has."""
    is_decoded: bool = False
    """Whether all audio is decoded, not its headers alone."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PartCheck:
    """The utterances of one part: training, development, or a test."""

    num_speakers: int
    num_utterances: int
    duration_s: float
    shortest_s: float
    longest_s: float
    num_shorter_than_crop: int
    sample_rates_hz: Mapping[int, int]
    """How many files have which rate, the commonest first."""
    num_multichannel: int
    """Files with several channels, of which the first is used."""
    defects: tuple[Defect, ...]
    """What decoding found; empty where it was not asked for."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ProtocolCheck:
    """A protocol: its utterances and pairs. Repeated and contradictory pairs are kept in all results."""

    name: str
    part: PartCheck
    num_target: int
    num_nontarget: int
    num_duplicates: int
    """Pairs that were listed before with the same label; a-b and b-a are the same pair."""
    num_contradictory: int
    """Pairs that are listed with both labels; all of them count."""
    num_models: int
    """Speakers enrolled with several utterances; 0 where each pair compares two utterances."""
    conditions: Mapping[str, int]
    """Pairs of each condition."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DataCheck:
    """All that was found. `problems` keep a study from running on the dataset."""

    train: PartCheck | None
    dev: ProtocolCheck | None
    tests: tuple[ProtocolCheck, ...]
    skipped: tuple[Defect, ...]
    """Training files that are left out, by reason."""
    problems: tuple[str, ...]

    @property
    def is_usable(self) -> bool:
        """Whether a study can run on the dataset."""
        return not self.problems


def check_data(dataset: Dataset, root: Path | None, options: Any, *, checking: Checking) -> DataCheck:
    """Loads a dataset's corpus and tests, and returns what they hold. What is wrong becomes a problem, not an error."""
    problems: list[str] = []
    cache_dir, progress = checking.cache_dir, checking.progress
    try:
        corpus = dataset.load(root, options, cache_dir=cache_dir, progress=progress)
    except DataError as error:
        return DataCheck(train=None, dev=None, tests=(), skipped=(), problems=(str(error),))
    tests: tuple[Protocol, ...] = ()
    try:
        tests = dataset.load_tests(root, options, cache_dir=cache_dir, progress=progress)
    except DataError as error:
        problems.append(f"the tests cannot be used: {error}")
    train = _check_part(corpus.train, checking)
    protocols = [_check_protocol(protocol, checking) for protocol in (corpus.dev, *tests)]
    problems += _overlaps(corpus, tests)
    problems += _wrong_rates(corpus, tests, checking)
    # As many as a training leaves out before it stops.
    num_allowed = max(FEWEST_TOO_MANY, SHARE_TOO_MANY * train.num_utterances)
    problems += _undecodable("the training data", train, num_allowed=num_allowed)
    for protocol in protocols:
        problems += _undecodable(f"protocol {protocol.name}", protocol.part, num_allowed=0)
    return DataCheck(
        train=train,
        dev=protocols[0],
        tests=tuple(protocols[1:]),
        skipped=count_reasons(corpus.skipped),
        problems=tuple(problems),
    )


def count_reasons(skipped: Iterable[Skipped]) -> tuple[Defect, ...]:
    """Returns skipped files by reason, the commonest first."""
    paths: dict[str, list[str]] = {}
    for item in skipped:
        paths.setdefault(item.reason, []).append(item.path)
    return tuple(
        Defect(reason=reason, num_files=len(some), examples=tuple(some[:NUM_EXAMPLES]), is_unusable=True)
        for reason, some in sorted(paths.items(), key=lambda item: -len(item[1]))
    )


def _check_part(utterances: Utterances, checking: Checking) -> PartCheck:
    durations_s = utterances.num_samples / utterances.sample_rate_hz
    headers = read_headers(utterances.paths, cache_dir=checking.cache_dir, progress=checking.progress)
    rates = Counter(headers.sample_rate_hz[headers.sample_rate_hz > 0].tolist())
    defects = find_defects(utterances, progress=checking.progress) if checking.is_decoded else ()
    return PartCheck(
        num_speakers=utterances.num_speakers,
        num_utterances=len(utterances),
        duration_s=utterances.duration_s,
        shortest_s=float(durations_s.min()),
        longest_s=float(durations_s.max()),
        num_shorter_than_crop=int((durations_s < checking.crop_s).sum()),
        sample_rates_hz=dict(rates.most_common()),
        num_multichannel=int((headers.num_channels > 1).sum()),
        defects=defects,
    )


def _check_protocol(protocol: Protocol, checking: Checking) -> ProtocolCheck:
    pairs = protocol.pairs
    num_target = int(pairs.is_target.sum())
    # A model is another thing than the utterance of the same number.
    first = pairs.enrolment + len(protocol.utterances) if protocol.models else pairs.enrolment
    repetitions = count_repetitions(first, pairs.test, pairs.is_target)
    counts = (
        np.bincount(pairs.conditions, minlength=len(protocol.condition_names)) if pairs.conditions is not None else ()
    )
    return ProtocolCheck(
        name=protocol.name,
        part=_check_part(protocol.utterances, checking),
        num_target=num_target,
        num_nontarget=len(pairs) - num_target,
        num_duplicates=repetitions.num_duplicates,
        num_contradictory=repetitions.num_contradictory,
        num_models=len(protocol.models),
        conditions=dict(zip(protocol.condition_names, map(int, counts), strict=bool(len(counts)))),
    )


def _overlaps(corpus: Corpus, tests: Iterable[Protocol]) -> list[str]:
    dev, tested = "the development data", {f"test {test.name}": test.utterances for test in tests}
    comparisons = [("the training data", corpus.train, dev, corpus.dev.utterances)]
    for name, utterances in tested.items():
        comparisons += [("the training data", corpus.train, name, utterances)]
        comparisons += [(dev, corpus.dev.utterances, name, utterances)]
    problems = []
    for first_name, first, second_name, second in comparisons:
        try:
            check_disjoint(first, second, first_name=first_name, second_name=second_name)
        except DataError as error:
            problems.append(str(error))
    return problems


def _wrong_rates(corpus: Corpus, tests: Iterable[Protocol], checking: Checking) -> list[str]:
    parts = {"the training data": corpus.train, corpus.dev.name: corpus.dev.utterances}
    parts |= {protocol.name: protocol.utterances for protocol in tests}
    return [
        f"{name} has a sample rate of {part.sample_rate_hz} Hz, the study's features are for "
        f"{checking.sample_rate_hz} Hz; set features.sample_rate_hz, or the dataset's options"
        for name, part in parts.items()
        if checking.sample_rate_hz not in (None, part.sample_rate_hz)
    ]


def _undecodable(name: str, part: PartCheck, *, num_allowed: float) -> list[str]:
    unusable = [defect for defect in part.defects if defect.is_unusable]
    num_files = sum(defect.num_files for defect in unusable)
    if num_files <= num_allowed:
        return []
    return [
        f"{num_files:,} of {part.num_utterances:,} files of {name} cannot be decoded, such as "
        f"{unusable[0].examples[0]}, which {unusable[0].reason}; replace them, or remove them, also from the lists"
    ]
