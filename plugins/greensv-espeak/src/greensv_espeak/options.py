"""The options of the dataset `espeak`: the keys of `[dataset.options]`."""

from dataclasses import dataclass
from typing import Annotated, Literal

from annotated_types import Ge, Gt, Le

from greensv.errors import ConfigError

Split = Literal["train", "dev", "test"]
Level = Annotated[float, Ge(-30), Le(60)]


@dataclass(frozen=True, slots=True, kw_only=True)
class EspeakOptions:
    """How many voices speak how much, and how much recordings differ. Each option but the counts changes all audio."""

    num_train_speakers: Annotated[int, Ge(2)] = 110
    """Voices to train on."""
    num_train_utterances: Annotated[int, Ge(1)] = 20
    """Per voice."""
    num_dev_speakers: Annotated[int, Ge(2)] = 40
    """Other voices, for the development pairs."""
    num_dev_utterances: Annotated[int, Ge(2)] = 10
    """Per voice."""
    num_test_speakers: Annotated[int, Ge(2)] = 40
    """Other voices again, for the test pairs; rendered when these are first asked for."""
    num_test_utterances: Annotated[int, Ge(2)] = 10
    """Per voice."""
    num_nontarget_per_target: Annotated[int, Ge(1)] = 4
    """Different-speaker pairs per same-speaker pair; of the latter, development and test have all there are."""
    min_duration_s: Annotated[float, Ge(0.5), Le(30)] = 2.0
    """Shortest utterance aimed at."""
    max_duration_s: Annotated[float, Ge(0.5), Le(30)] = 4.0
    """A short random text may end before the duration drawn for it."""
    min_snr_db: Level = 0.0
    """Loudest noise."""
    max_snr_db: Level = 20.0
    """Softest noise; the noise is coloured at random."""
    voice_spread: Annotated[float, Gt(0), Le(3)] = 1.0
    """How much voices differ: scales the spread of all their parameters, but not the difference between the sexes."""
    seed: Annotated[int, Ge(0)] = 0
    """Of voices, texts and sessions."""

    def num_speakers(self, split: Split) -> int:
        """The number of voices of a split."""
        return {"train": self.num_train_speakers, "dev": self.num_dev_speakers, "test": self.num_test_speakers}[split]

    def num_utterances(self, split: Split) -> int:
        """The number of utterances of each voice of a split."""
        per_speaker = (self.num_train_utterances, self.num_dev_utterances, self.num_test_utterances)
        return dict(zip(("train", "dev", "test"), per_speaker, strict=True))[split]


def check_ranges(options: EspeakOptions) -> None:
    """Refuses ranges that end before they begin.

    Raises:
        ConfigError: naming the two options.
    """
    for name in ("duration_s", "snr_db"):
        low, high = getattr(options, f"min_{name}"), getattr(options, f"max_{name}")
        if low > high:
            raise ConfigError(f"dataset.options: min_{name} = {low} exceeds max_{name} = {high}; swap or change them")
