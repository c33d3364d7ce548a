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
    sample_rate_hz: int = 16_000

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
    test: NDArray[np.int32]
    is_target: NDArray[np.bool_]

    def __len__(self) -> int:
        return len(self.enrolment)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Protocol:
    """A named verification protocol: its utterances and the pairs among them."""

    name: str
    utterances: Utterances
    pairs: Pairs


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Corpus:
    """What a search may see: training utterances, and development pairs of speakers that are not trained on."""

    train: Utterances
    dev: Protocol
    dev_rejoins_training: bool = False
    """True where the development speakers were held out of the training data and return to it for the full recipe."""


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
