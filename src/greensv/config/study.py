"""The records of a study's configuration. Their fields are the keys of study.toml; their defaults are its defaults."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Annotated, Any, Literal

from annotated_types import Ge, Gt, Le, MinLen

Fraction = Annotated[float, Ge(0), Le(1)]
Positive = Annotated[float, Gt(0)]
Count = Annotated[int, Ge(1)]


@dataclass(frozen=True, slots=True, kw_only=True)
class FeatureConfig:
    """Kaldi-compatible log-mel filterbanks. The defaults are those of the paper's network: energy and 80 bins."""

    sample_rate_hz: Count = 16_000
    """Samples per second; the corpus must have it, nothing is resampled silently."""
    num_mel_bins: Count = 80
    """Filters per frame."""
    use_energy: bool = True
    """Puts the log energy of each frame before its filterbank."""
    frame_length_ms: Positive = 25.0
    """Milliseconds in a frame."""
    frame_shift_ms: Positive = 10.0
    """Milliseconds from one frame to the next."""
    low_freq_hz: Annotated[float, Ge(0)] = 20.0
    """Lower edge of the first filter."""
    high_freq_hz: float = -400.0
    """Upper edge of the last filter; at or below zero it is counted from half the sample rate."""

    @property
    def num_features(self) -> int:
        """Values per frame."""
        return self.num_mel_bins + int(self.use_energy)


@dataclass(frozen=True, slots=True, kw_only=True)
class SpecAugment:
    """One time mask and one frequency mask, zero-filled, with a probability. Defaults: Kiwano's recipe."""

    probability: Fraction = 0.6
    """Share of the crops that are masked."""
    max_time_frames: Annotated[int, Ge(0)] = 10
    """The most frames a time mask covers."""
    max_freq_bins: Annotated[int, Ge(0)] = 8
    """The most features a frequency mask covers."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Phase:
    """One phase of a recipe: so many epochs at one crop length, with its learning-rate and margin schedules.

    The learning rate rises linearly from 0 over `warmup_fraction` of the steps, then falls exponentially from
    `learning_rate` to `final_learning_rate`. The margin is 0 up to `margin_start_fraction`, then rises linearly to
    `margin` at `margin_full_fraction`. Fractions, so that a search can run the same schedule in fewer epochs.
    """

    name: Annotated[str, MinLen(1)] = "main"
    """For people: logs and errors show it."""
    num_epochs: Count = 42
    """Passes over the training data."""
    crop_s: Positive = 3.5
    """Seconds of speech in each training example; a shorter utterance is repeated."""
    learning_rate: Positive = 0.2
    """The highest, at the end of the warm-up."""
    final_learning_rate: Positive = 1e-4
    """Reached at the last step."""
    warmup_fraction: Fraction = 0.1
    """Share of the steps in which the learning rate rises."""
    margin: Annotated[float, Ge(0), Le(1)] = 0.2
    """Additive angular margin in radians."""
    margin_start_fraction: Fraction = 0.1
    """Share of the steps before the margin rises."""
    margin_full_fraction: Fraction = 0.5
    """Share of the steps after which the margin is full."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Recipe:
    """The full training recipe. A search shares everything in it but the number of epochs."""

    batch_size: Annotated[int, Ge(2)] = 512
    """Crops per step."""
    optimizer: Literal["sgd"] = "sgd"
    """Stochastic gradient descent."""
    momentum: Annotated[float, Ge(0), Le(0.9999)] = 0.9
    """Of the gradient descent."""
    weight_decay: Annotated[float, Ge(0)] = 1e-4
    """Applied to the backbone, not to the head."""
    scale: Positive = 30.0
    """The softmax scale s of AAM-softmax."""
    precision: Literal["auto", "fp32", "bf16"] = "auto"
    """auto: bf16 autocast on GPUs and CPUs that compute in it (AVX-512 BF16, AMX), fp32 elsewhere."""
    spec_augment: SpecAugment = field(default_factory=SpecAugment)
    phases: Annotated[tuple[Phase, ...], MinLen(1)] = field(default_factory=lambda: (Phase(),))


@dataclass(frozen=True, slots=True, kw_only=True)
class SearchConfig:
    """How candidates are proposed, and how briefly each is trained."""

    num_epochs: Count = 1
    """Epochs of the short training: the recipe's first phase, its schedules compressed to these epochs."""
    sampler: Literal["tpe", "random"] = "tpe"
    """tpe: Optuna's multivariate tree-structured Parzen estimator."""
    num_startup_trials: Annotated[int, Ge(0)] = 6
    """Random candidates before the sampler's model takes over; the two ends of the space count as two of them."""
    start_with_ends: bool = True
    """The cheapest and the dearest point of the space go first."""


@dataclass(frozen=True, slots=True, kw_only=True)
class EnergyConfig:
    """What measures the energy, what it is multiplied by, and where it is generated."""

    meters: Annotated[tuple[str, ...], MinLen(1)] = ("auto",)
    """The meters to use, all of them and no other. auto, alone: the best of greensv's own for each domain."""
    options: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    """Options of each meter, by its name."""
    pue: Annotated[float, Ge(1)] = 1.0
    """Power usage effectiveness of the building; every charge is multiplied by it."""
    interval_s: Annotated[float, Gt(0), Le(10)] = 1.0
    """Seconds between two readings of the meters."""
    carbon_source: str = "static"
    """Which installed source tells grams of CO2-equivalent per kWh."""
    region: Annotated[str, MinLen(1)] = "WORLD"
    """Where the electricity comes from, as the source names it: an ISO 3166 alpha-3 code such as FRA, or WORLD."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DatasetConfig:
    """Which dataset, where it lies, and the dataset's own options."""

    name: Annotated[str, MinLen(1)]
    """An installed dataset; `greensv plugins` lists them."""
    root: str | None = None
    """The folder of the data; a relative path is relative to study.toml. Not for a dataset that makes its own audio."""
    options: Mapping[str, Any] = field(default_factory=dict)
    """The dataset's own options."""


@dataclass(frozen=True, slots=True, kw_only=True)
class StudyConfig:
    """A whole study. Written once at the edge, stored with the study, never changed afterwards."""

    name: Annotated[str, MinLen(1)]
    """Names the study in the database and its folder; made of letters, digits, '.', '_' and '-'."""
    kind: Literal["search"] = "search"
    """What the study does."""
    seed: Annotated[int, Ge(0)] = 0
    """Each trial's own seed is derived from it and from the trial's number."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    """Where to train. auto: a GPU where torch finds one, the CPU elsewhere."""
    num_threads: Annotated[int, Ge(0)] = 0
    """CPU threads of torch; 0 leaves torch's own choice."""
    dataset: DatasetConfig
    backbones: Annotated[Mapping[str, Mapping[str, Any]], MinLen(1)]
    """Each backbone's narrowing of its space: a fixed value, `[low, high]`, or a list of options."""
    features: FeatureConfig = field(default_factory=FeatureConfig)
    recipe: Recipe = field(default_factory=Recipe)
    search: SearchConfig = field(default_factory=SearchConfig)
    energy: EnergyConfig = field(default_factory=EnergyConfig)
