"""What every dataset must do, as tests. A plugin's own test file subclasses `DatasetContract`, and pytest runs it.

For a dataset `Digits` that reads a folder::

    class TestDigits(DatasetContract):
        dataset = Digits()
        options = DigitsOptions(num_dev_speakers=3)

        @pytest.fixture(scope="class")
        @classmethod
        def root(cls, tmp_path_factory):
            return write_a_few_digits(tmp_path_factory.mktemp("digits"))
"""

import dataclasses
import os
import re
import shutil
from collections.abc import Iterable
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest

from greensv.speaker.audio.store import probe_audio, read_audio, read_resampled
from greensv.speaker.corpora.corpus import check_disjoint
from greensv.speaker.dataset import Corpus, Dataset, Protocol, Utterances, ignore_progress

KEBAB_CASE = re.compile(r"[a-z0-9]+(-[a-z0-9]+)*")
NUM_FILES_CHECKED = 10


class DatasetContract:
    """Subclass it, name the subclass `Test…`, set `dataset` and `options`, and give `root` where there is one.

    `options` must make a corpus of a few seconds' work, with at least one test protocol.
    """

    dataset: ClassVar[Dataset]
    options: ClassVar[Any]

    @pytest.fixture(scope="class")
    @classmethod
    def root(cls) -> Path | None:
        """The folder of the data; None for a dataset that needs none."""
        return None

    @pytest.fixture(scope="class")
    @classmethod
    def cache_dir(cls, tmp_path_factory: pytest.TempPathFactory) -> Path:
        """An empty cache, shared by the tests of a class."""
        return tmp_path_factory.mktemp("cache")

    @pytest.fixture(scope="class")
    @classmethod
    def corpus(cls, root: Path | None, cache_dir: Path) -> Corpus:
        """The corpus, loaded once."""
        return cls.dataset.load(root, cls.options, cache_dir=cache_dir, progress=ignore_progress)

    @pytest.fixture(scope="class")
    @classmethod
    def tests(cls, root: Path | None, cache_dir: Path) -> tuple[Protocol, ...]:
        """The test protocols, loaded once."""
        return cls.dataset.load_tests(root, cls.options, cache_dir=cache_dir, progress=ignore_progress)

    def test_name_is_kebab_case_and_version_a_count(self) -> None:
        assert KEBAB_CASE.fullmatch(self.dataset.name), f"{self.dataset.name!r} is not kebab-case"
        assert isinstance(self.dataset.version, int), f"version {self.dataset.version!r} is not a whole number"
        assert self.dataset.version >= 1, f"version {self.dataset.version} is less than 1"

    def test_options_are_a_frozen_dataclass_with_defaults(self) -> None:
        defaults = self.dataset.options_type()
        with pytest.raises(dataclasses.FrozenInstanceError):
            setattr(defaults, dataclasses.fields(defaults)[0].name, None)
        assert isinstance(self.options, self.dataset.options_type)

    def test_columns_fit_together(self, corpus: Corpus, tests: tuple[Protocol, ...]) -> None:
        for part, utterances in _parts(corpus, tests):
            num = len(utterances)
            assert num > 0, f"{part} has no utterances"
            columns = (utterances.paths, utterances.speakers, utterances.num_samples)
            assert [len(column) for column in columns] == [num] * 3, f"{part}: columns of different lengths"
            assert len(set(utterances.ids)) == num, f"{part}: an utterance comes twice"
            assert len(set(utterances.speaker_names)) == utterances.num_speakers, f"{part}: a speaker comes twice"
            used = set(utterances.speakers.tolist())
            assert used == set(range(utterances.num_speakers)), f"{part}: speakers without utterances, or out of range"

    def test_audio_is_there_and_as_long_as_said(self, corpus: Corpus, tests: tuple[Protocol, ...]) -> None:
        for part, utterances in _parts(corpus, tests):
            for path in utterances.paths:
                assert Path(path).is_absolute(), f"{part}: {path} is not absolute"
                assert Path(path).is_file(), f"{part}: {path} is missing"
            for index in _sample(utterances):
                samples = _read(utterances, index)
                assert len(samples) == utterances.num_samples[index], f"{part}: num_samples of {utterances.ids[index]}"
                assert np.abs(samples).max() > 0, f"{part}: {utterances.ids[index]} is silent"
                rate = probe_audio(utterances.paths[index]).sample_rate_hz
                assert utterances.is_resampled or rate == utterances.sample_rate_hz, f"{part}: {rate} Hz"

    def test_pairs_are_in_range_of_both_kinds_and_agree_with_the_speakers(
        self, corpus: Corpus, tests: tuple[Protocol, ...]
    ) -> None:
        for protocol in (corpus.dev, *tests):
            pairs, speakers = protocol.pairs, protocol.utterances.speakers
            enrolled = _enrolled_speakers(protocol)
            for side, num in ((pairs.enrolment, len(enrolled)), (pairs.test, len(speakers))):
                assert side.min() >= 0, f"{protocol.name}: a negative index"
                assert side.max() < num, f"{protocol.name}: an index beyond the utterances or models"
            assert len(pairs.enrolment) == len(pairs.test) == len(pairs.is_target)
            assert pairs.is_target.any(), f"{protocol.name} has no same-speaker pair"
            assert not pairs.is_target.all(), f"{protocol.name} has no different-speaker pair"
            same = enrolled[pairs.enrolment] == speakers[pairs.test]
            assert (same == pairs.is_target).all(), f"{protocol.name}: a pair's label contradicts the speakers"

    def test_every_pair_has_a_condition_or_none_has(self, corpus: Corpus, tests: tuple[Protocol, ...]) -> None:
        for protocol in (corpus.dev, *tests):
            conditions, num = protocol.pairs.conditions, len(protocol.condition_names)
            if conditions is None:
                assert not num, f"{protocol.name}: conditions without pairs"
            else:
                assert len(conditions) == len(protocol.pairs)
                assert conditions.min() >= 0, f"{protocol.name}: a condition without a name"
                assert conditions.max() < num, f"{protocol.name}: a condition without a name"

    def test_train_dev_and_tests_share_no_speaker_and_no_file(
        self, corpus: Corpus, tests: tuple[Protocol, ...]
    ) -> None:
        seen = {"train": corpus.train, "dev": corpus.dev.utterances}
        check_disjoint(corpus.train, corpus.dev.utterances, first_name="train", second_name="dev")
        for protocol in tests:
            for name, part in seen.items():
                check_disjoint(part, protocol.utterances, first_name=name, second_name=protocol.name)

    def test_tests_have_names_of_their_own(self, tests: tuple[Protocol, ...]) -> None:
        names = [protocol.name for protocol in tests]
        assert names, "the options must ask for at least one test protocol"
        assert len(set(names)) == len(names), f"two protocols of one name among {names}"

    def test_another_load_gives_the_same_corpus(
        self, root: Path | None, corpus: Corpus, tests: tuple[Protocol, ...], tmp_path: Path
    ) -> None:
        again = self.dataset.load(root, self.options, cache_dir=tmp_path, progress=ignore_progress)
        tests_again = self.dataset.load_tests(root, self.options, cache_dir=tmp_path, progress=ignore_progress)
        for (part, old), (_, new) in zip(_parts(corpus, tests), _parts(again, tests_again), strict=True):
            assert old.ids == new.ids, f"{part}: other utterances"
            assert old.speaker_names == new.speaker_names, f"{part}: other speakers"
            assert (old.speakers == new.speakers).all(), f"{part}: other speakers"
            assert (old.num_samples == new.num_samples).all(), f"{part}: other lengths"
            for index in _sample(old):
                assert (_read(old, index) == _read(new, index)).all(), f"{part}: {old.ids[index]} differs"
        for one, other in zip((corpus.dev, *tests), (again.dev, *tests_again), strict=True):
            for column in ("enrolment", "test", "is_target"):
                assert (getattr(one.pairs, column) == getattr(other.pairs, column)).all(), f"{one.name}: other pairs"

    def test_load_needs_and_makes_no_test_data(
        self, root: Path | None, cache_dir: Path, corpus: Corpus, tests: tuple[Protocol, ...], tmp_path: Path
    ) -> None:
        """Loads from a copy of the data without the tests' audio, into an empty cache where none of it may appear."""
        tested = {path for protocol in tests for path in protocol.utterances.paths}
        bare = None
        if root is not None:
            bare = tmp_path / "data"
            shutil.copytree(
                root.absolute(),
                bare,
                copy_function=os.symlink,
                ignore=lambda folder, names: {name for name in names if f"{folder}/{name}" in tested},
            )
        cache = tmp_path / "cache"
        again = self.dataset.load(bare, self.options, cache_dir=cache, progress=ignore_progress)
        assert again.train.ids == corpus.train.ids
        assert again.dev.utterances.ids == corpus.dev.utterances.ids
        made = [Path(path).relative_to(cache_dir) for path in tested if Path(path).is_relative_to(cache_dir)]
        assert not [path for path in made if (cache / path).exists()], "load made test data"


def _parts(corpus: Corpus, tests: Iterable[Protocol]) -> Iterable[tuple[str, Utterances]]:
    yield "train", corpus.train
    yield corpus.dev.name, corpus.dev.utterances
    for protocol in tests:
        yield protocol.name, protocol.utterances


def _enrolled_speakers(protocol: Protocol) -> Any:
    """Returns the speaker of each model, or of each utterance where the protocol has no models."""
    speakers = protocol.utterances.speakers
    if not protocol.models:
        return speakers
    for model in protocol.models:
        assert len(set(speakers[model].tolist())) == 1, f"{protocol.name}: a model of several speakers, or of none"
    return np.array([speakers[model[0]] for model in protocol.models])


def _sample(utterances: Utterances) -> list[int]:
    return sorted({round(float(i)) for i in np.linspace(0, len(utterances) - 1, NUM_FILES_CHECKED)})


def _read(utterances: Utterances, index: int) -> Any:
    read = read_resampled if utterances.is_resampled else read_audio
    return read(utterances.paths[index], sample_rate_hz=utterances.sample_rate_hz)
