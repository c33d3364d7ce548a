"""The interface of a dataset, and the records it returns: utterances, pairs, protocols, a corpus.

The test pairs are not part of the corpus: a search holds a `Corpus` and so cannot reach them. Only the final evaluation
calls `Dataset.load_tests`.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

Progress = Callable[[str, int, int], None]
"""Called with what is being done, how many items are done, and how many there are."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Utterances:
    """Recordings in columns: `ids[i]`, `paths[i]` (absolute), `speaker_names[speakers[i]]`, `num_samples[i]`.

    Columns, not objects, so that a million utterances fit in memory.
    """

    ids: tuple[str, ...]
    paths: tuple[str, ...]
    speakers: NDArray[np.int32]
    speaker_names: tuple[str, ...]
    num_samples: NDArray[np.int64]
    """At `sample_rate_hz`, whatever the rate of the file."""
    sample_rate_hz: int = 16_000
    is_resampled: bool = False
    """True where files of other rates are allowed, and resampled as they are read."""

    def __len__(self) -> int:
        return len(self.ids)

    @property
    def num_speakers(self) -> int:
        """The number of different speakers."""
        return len(self.speaker_names)

    @property
    def duration_s(self) -> float:
        """Seconds of speech in all utterances together."""
        return float(self.num_samples.sum()) / self.sample_rate_hz


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Pairs:
    """Verification trials: pair i compares utterance `enrolment[i]` with `test[i]`; `is_target[i]`: same speaker."""

    enrolment: NDArray[np.int32]
    """Index of an utterance; of a model, where the protocol has models."""
    test: NDArray[np.int32]
    is_target: NDArray[np.bool_]
    conditions: NDArray[np.int16] | None = None
    """Index into the protocol's `condition_names`, for results condition by condition; None: not told apart."""

    def __len__(self) -> int:
        return len(self.enrolment)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Protocol:
    """A named verification protocol: its utterances and the pairs among them."""

    name: str
    utterances: Utterances
    pairs: Pairs
    models: tuple[NDArray[np.int32], ...] = ()
    """Where speakers are enrolled with several utterances: model m is the mean of the embeddings of `models[m]`, not
    normalised before, and `pairs.enrolment` counts models."""
    condition_names: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Skipped:
    """A file that was left out, and why."""

    path: str
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Corpus:
    """What a search may see: training utterances, and development pairs of speakers that are not trained on."""

    train: Utterances
    dev: Protocol
    dev_rejoins_training: bool = False
    """True where the development speakers were held out of the training data and return to it for the full recipe."""
    skipped: tuple[Skipped, ...] = ()
    """Training files that cannot be used; a file of a development or test pair is an error instead."""


class Dataset(ABC):
    """A corpus of speech with training data, development pairs and test pairs, no speaker in two of them.

    A complete dataset reads its folder in `load` and its trial lists in `load_tests`; see
    `greensv.builtin.datasets.kaldi` for one.
    """

    name: ClassVar[str]
    version: ClassVar[int] = 1
    options_type: ClassVar[type]
    """A frozen dataclass whose fields are the keys of `[dataset.options]`, each with a default."""

    needs_root: ClassVar[bool] = True
    """False for a dataset that makes its own audio."""

    where_to_get: ClassVar[str] = ""
    """Where the corpus is to be had, for messages about what is missing; empty where the user brings it."""

    @abstractmethod
    def load(self, root: Path | None, options: Any, *, cache_dir: Path, progress: Progress) -> Corpus:
        """Returns the training utterances and development pairs.

        Args:
            root: the folder the user gave, or None.
            options: an instance of `options_type`.
            cache_dir: a folder for what is worth keeping between runs; created by the dataset when needed.
            progress: called as the work goes on.

        Raises:
            DataError: naming the file, and the line where there is one.
        """

    @abstractmethod
    def load_tests(
        self, root: Path | None, options: Any, *, cache_dir: Path, progress: Progress
    ) -> tuple[Protocol, ...]:
        """Returns the test protocols. Called by the final evaluation only. Arguments and errors as for `load`."""


def ignore_progress(what: str, done: int, total: int) -> None:
    """A `Progress` that shows nothing."""
