"""The records of a study's configuration. Their fields are the keys of study.toml; their defaults are its defaults."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Annotated, Any, Literal, Self

from annotated_types import Ge, Gt, Le, Lt, MinLen

from greensv.config.consistency import refuse_idle, require_milestones, require_order, require_roots, require_shares

Fraction = Annotated[float, Ge(0), Le(1)]
Positive = Annotated[float, Gt(0)]
Count = Annotated[int, Ge(1)]
MAX_RUNGS = 8


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
    window: Literal["povey", "hamming"] = "povey"
    """Shape of a frame: Kaldi's own, or Hamming's, which WeSpeaker uses."""

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
class Disturbance:
    """One way in which a crop may be disturbed, and how often."""

    kind: Literal["noise", "music", "speech", "reverb"]
    """noise, music and speech are added at a signal-to-noise ratio; reverb convolves with a room's impulse response."""
    probability: Fraction
    """Share of the crops that are disturbed in this way."""
    folders: tuple[str, ...] = ()
    """Folders below `noise_root` (for reverb: `rir_root`), searched to any depth for audio; none: the root itself."""
    snr_db: tuple[float, float] = (0.0, 15.0)
    """Lowest and highest signal-to-noise ratio, drawn uniformly; not for reverb."""
    num_files: tuple[Count, Count] = (1, 1)
    """Fewest and most files added together, each at a ratio of its own: several of speech make babble."""

    def __post_init__(self) -> None:
        require_order("snr_db", self.snr_db)
        require_order("num_files", self.num_files)
        if self.kind == "reverb":
            refuse_idle(self, ("snr_db", "num_files"), because="reverb is not added, it convolves")


@dataclass(frozen=True, slots=True, kw_only=True)
class Augmentation:
    """What training crops are disturbed with: a crop in one way or, where the probabilities leave room, in none."""

    noise_root: str | None = None
    """A folder of noise such as MUSAN; None: the built-in noise, music and (from other crops of the batch) speech."""
    rir_root: str | None = None
    """A folder of room impulse responses such as RIRS_NOISES; None: the built-in simulated rooms."""
    disturbances: tuple[Disturbance, ...] = ()
    """The ways; their probabilities add up to 1 at the most."""

    def __post_init__(self) -> None:
        require_shares("the probabilities of disturbances", [way.probability for way in self.disturbances])
        roots = {"noise_root": self.noise_root, "rir_root": self.rir_root}
        named = {"rir_root" if way.kind == "reverb" else "noise_root" for way in self.disturbances if way.folders}
        require_roots({key: roots[key] for key in sorted(named)})


@dataclass(frozen=True, slots=True, kw_only=True)
class Phase:
    """One phase of a recipe: so many epochs at one crop length, with its learning-rate and margin schedules.

    The learning rate rises linearly from 0 over `warmup_fraction` of the steps, then falls from `learning_rate` as
    `schedule` says. The margin is 0 up to `margin_start_fraction`, then rises to `margin` at `margin_full_fraction`.
    Fractions, so that a search can run the same schedule in fewer epochs.
    """

    name: Annotated[str, MinLen(1)] = "main"
    """For people: logs and errors show it."""
    num_epochs: Count = 42
    """Passes over the training data."""
    crop_s: Positive = 3.5
    """Seconds of speech in each training example; a shorter utterance is repeated."""
    learning_rate: Positive = 0.2
    """The highest, at the end of the warm-up."""
    schedule: Literal["exponential", "cosine", "multistep"] = "exponential"
    """How the learning rate falls: exponentially or as half a cosine to `final_learning_rate`, or in `milestones`."""
    final_learning_rate: Positive = 1e-4
    """Reached at the last step; not for multistep."""
    milestones: tuple[Fraction, ...] = ()
    """Shares of the steps after which the learning rate of multistep is multiplied by `gamma`."""
    gamma: Fraction = 0.2
    """What a milestone multiplies the learning rate by."""
    warmup_fraction: Fraction = 0.1
    """Share of the steps in which the learning rate rises."""
    margin: Annotated[float, Ge(0), Le(1)] = 0.2
    """Additive margin: of the angle in radians (aam-softmax), or of the cosine (am-softmax)."""
    margin_start_fraction: Fraction = 0.1
    """Share of the steps before the margin rises."""
    margin_full_fraction: Fraction = 0.5
    """Share of the steps after which the margin is full."""
    margin_rise: Literal["linear", "exponential"] = "linear"
    """How the margin rises: exponential is WeSpeaker's, steep at first."""
    speeds: Annotated[tuple[Annotated[float, Ge(0.5), Le(2)], ...], MinLen(1)] = (1.0,)
    """Speeds to play the crops at, drawn uniformly; at each speed but the first, a speaker is a speaker of its own.

    An epoch still has one crop of each utterance. A phase of one speed trains the speakers as they are, as WeSpeaker's
    fine-tuning does.
    """
    num_averaged_epochs: Annotated[int, Ge(0)] = 0
    """The weights at the ends of so many last epochs are averaged when the phase ends; 0 keeps the last ones."""

    def __post_init__(self) -> None:
        require_order(
            "margin_start_fraction, margin_full_fraction", (self.margin_start_fraction, self.margin_full_fraction)
        )
        if self.schedule == "multistep":
            refuse_idle(self, ("final_learning_rate",), because="multistep falls by gamma at each milestone")
            require_milestones(self.milestones, warmup_fraction=self.warmup_fraction)
        else:
            refuse_idle(self, ("milestones", "gamma"), because=f"{self.schedule} does not fall in steps")
            require_order("final_learning_rate, learning_rate", (self.final_learning_rate, self.learning_rate))
        if len(set(self.speeds)) < len(self.speeds):
            raise ValueError(f"a speed comes twice in speeds {list(self.speeds)}; each makes speakers of its own")
        if self.num_averaged_epochs > self.num_epochs:
            raise ValueError(
                f"num_averaged_epochs is {self.num_averaged_epochs}, more than the {self.num_epochs} epochs of the "
                "phase; lower it"
            )

    def shortened(self, num_epochs: int) -> Self:
        """Returns the phase in so many epochs: same crop, same schedules, as large a share of the epochs averaged."""
        num_averaged = self.num_averaged_epochs * num_epochs // self.num_epochs
        return replace(self, num_epochs=num_epochs, num_averaged_epochs=num_averaged)


@dataclass(frozen=True, slots=True, kw_only=True)
class Recipe:
    """The full training recipe. A search shares everything in it but the number of epochs."""

    batch_size: Annotated[int, Ge(2)] = 512
    """Crops per step, of all processes and micro-batches together."""
    num_micro_batches: Count = 1
    """Parts in which each process computes its share of a batch, one after the other: less memory, same gradient."""
    optimizer: Literal["sgd", "adamw"] = "sgd"
    """Stochastic gradient descent with momentum, or Adam with decoupled weight decay."""
    momentum: Annotated[float, Ge(0), Le(0.9999)] = 0.9
    """Of the gradient descent."""
    nesterov: bool = False
    """Nesterov's momentum; for sgd."""
    betas: tuple[Fraction, Fraction] = (0.9, 0.999)
    """Decay of AdamW's averages of the gradient and of its square."""
    weight_decay: Annotated[float, Ge(0)] = 1e-4
    """Applied to the backbone, and to the head times `head_weight_decay`."""
    head_weight_decay: Fraction = 0.0
    """Share of the weight decay that the head gets: 0 in Kiwano's recipe, 1 in WeSpeaker's."""
    max_gradient_norm: Annotated[float, Ge(0)] = 0.0
    """Longer gradients are shortened to this norm; 0 leaves them."""
    loss: Literal["aam-softmax", "am-softmax"] = "aam-softmax"
    """Where the margin goes: added to the angle, or taken from the cosine."""
    scale: Positive = 30.0
    """The softmax scale s."""
    label_smoothing: Fraction = 0.0
    """Share of the target that goes to all the other speakers alike; 0.1 in Kiwano's code."""
    jeffreys_weight: Annotated[float, Ge(0)] = 0.0
    """Weight of the Jeffreys term in Kiwano's code, taken from the true speaker's share of the target: 0.025 there."""
    precision: Literal["auto", "fp32", "bf16", "fp16"] = "auto"
    """auto: bf16 autocast on GPUs and CPUs that compute in it (AVX-512 BF16, AMX), fp32 elsewhere.

    fp16 scales the loss so that small gradients survive, and leaves out a step whose gradients overflow.
    """
    dither: Annotated[float, Ge(0)] = 0.0
    """Deviation of the Gaussian noise added to each training sample, in steps of 16 bits: 1.0 in WeSpeaker's recipe."""
    augmentation: Augmentation = field(default_factory=Augmentation)
    spec_augment: SpecAugment = field(default_factory=SpecAugment)
    phases: Annotated[tuple[Phase, ...], MinLen(1)] = field(default_factory=lambda: (Phase(),))

    def __post_init__(self) -> None:
        if self.batch_size % self.num_micro_batches or self.batch_size < 2 * self.num_micro_batches:
            raise ValueError(
                f"batch_size {self.batch_size} cannot be computed in {self.num_micro_batches} micro-batches: "
                "num_micro_batches should divide it, and leave two crops or more in each"
            )
        if self.optimizer == "adamw":
            refuse_idle(self, ("momentum", "nesterov"), because="adamw has betas instead")
            if max(self.betas) >= 1:
                raise ValueError(f"betas are below 1, found {list(self.betas)}")
        else:
            refuse_idle(self, ("betas",), because="sgd has momentum instead")
            if self.nesterov and not self.momentum:
                raise ValueError("nesterov needs momentum, which is 0; raise momentum or leave out nesterov")
        if self.label_smoothing + self.jeffreys_weight >= 1:
            raise ValueError(
                f"label_smoothing {self.label_smoothing:g} and jeffreys_weight {self.jeffreys_weight:g} leave the true "
                "speaker no share of the target; lower them to less than 1 in all"
            )


@dataclass(frozen=True, slots=True, kw_only=True)
class SearchConfig:
    """How candidates are proposed, and how briefly each is trained."""

    num_epochs: Count = 1
    """Epochs of a whole short training, the top rung: the recipe's first phase, its schedules compressed to these."""
    scheduler: Literal["rungs", "none"] = "rungs"
    """rungs: trainings are compared on their way, and only promising ones go on; none: each goes to its end."""
    num_rungs: Annotated[int, Ge(1), Le(MAX_RUNGS)] = 4
    """Rungs of a short training, the whole one counted; one that would have fewer than `min_rung_steps` is left out."""
    min_rung_steps: Count = 20
    """A rung of fewer steps would be judged on warm-up, and measured badly."""
    eta: Annotated[int, Ge(2), Le(9)] = 3
    """A rung has so many times the steps of the one below it; 1.5/eta of a rung's candidates go on."""
    min_rung_correlation: Annotated[float, Ge(-1), Le(1)] = 0.6
    """A rung stops nobody unless the ranks of its error rates predict those of the top rung so well (Spearman)."""
    energy_tolerance: Annotated[float, Ge(0), Lt(1)] = 0.1
    """Energies that differ by less than this share are alike when candidates are compared on their way."""
    repeat_share: Annotated[float, Ge(0), Le(0.5)] = 0.1
    """Share of the budget that trains the knee of the front again with other seeds."""
    objectives: Annotated[tuple[str, ...], MinLen(1)] = ("eer", "train_energy")
    """Two or three of eer, train_energy, embed_energy, params and latency; all are minimised."""
    constraints: tuple[str, ...] = ()
    """Bounds on these, such as "params < 5M"; what is known to break one is not trained."""
    sampler: Literal["greensv", "tpe", "tpe-default", "gp", "nsga2", "random"] = "greensv"
    """greensv: hypervolume expected per kWh; tpe: Optuna's multivariate estimator; tpe-default: as Optuna has it."""
    num_startup_trials: Annotated[int, Ge(0)] = 6
    """Random candidates before a sampler's model takes over; those put first count among them."""
    start_with_ends: bool = True
    """The cheapest and the dearest point of the space go first."""
    start_with_published: bool = True
    """The backbones' published systems that lie in the space go first, the cheapest six of them."""
    start_with_studies: tuple[str, ...] = ()
    """Earlier studies in the same database whose front goes first, where it lies in the space."""


@dataclass(frozen=True, slots=True, kw_only=True)
class EnergyConfig:
    """What measures the energy, what it is multiplied by, and where it is generated."""

    meters: Annotated[tuple[str, ...], MinLen(1)] = ("auto",)
    """The meters to use, all of them and no other. auto, alone: the best of greensv's own for each domain."""
    options: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    """Options of each meter, by its name."""
    also_meters: tuple[str, ...] = ()
    """Meters to record beside those above, and never to charge: for figures in the terms of other tools."""
    pue: Annotated[float, Ge(1)] = 1.0
    """Power usage effectiveness of the building; every charge is multiplied by it."""
    interval_s: Annotated[float, Gt(0), Le(10)] = 1.0
    """Seconds between two readings of the meters."""
    idle_s: Annotated[float, Ge(0), Le(3600)] = 30.0
    """Seconds for which the machine's idle power is measured before a study's first search on it; 0: not at all.
    Meters that know it by themselves (the model of `estimate`) need none."""
    telemetry_interval_s: Annotated[float, Ge(0)] = 5.0
    """Seconds between two records of utilisation, clocks and temperature; 0: none."""
    is_shared: bool = True
    """Whether processes of greensv on one machine share what meters read of the whole of it, by their CPU time."""
    carbon_options: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    """Options of each carbon source, by its name."""
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
