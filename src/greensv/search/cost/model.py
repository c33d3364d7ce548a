"""What a training will cost, before it runs: joules and seconds, from a prior, a probe, and all that was measured."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from greensv.search.cost.log_model import NO_OFFSETS, LogModel
from greensv.search.cost.priors import CPU
from greensv.search.cost.work import Prior, Work

NUM_STDS = 1.96
"""A 95 % interval reaches so many standard deviations of ln to either side."""
MIN_MARGIN, MAX_MARGIN = 1.15, math.exp(1.5)
"""An upper bound exceeds its prediction by so much at least, and at most: a lease wants to be neither short nor all."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Measured:
    """A measured training: joules and seconds per second of training speech."""

    work: Work
    joules: float
    seconds: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Prediction:
    """Joules and seconds for so many seconds of training speech, and an upper bound of the joules."""

    energy_j: float
    upper_j: float
    duration_s: float
    log_std: float = 0.0
    """Standard deviation of ln(energy): of what a measurement would find."""
    duration_log_std: float = 0.0
    """Of ln(duration)."""

    @property
    def energy_interval_j(self) -> tuple[float, float]:
        """The 95 % interval of the energy."""
        return interval(self.energy_j, self.log_std)

    @property
    def duration_interval_s(self) -> tuple[float, float]:
        """The 95 % interval of the duration."""
        return interval(self.duration_s, self.duration_log_std)


def interval(value: float, log_std: float) -> tuple[float, float]:
    """Returns the 95 % interval of a quantity whose ln is normal."""
    return value * math.exp(-NUM_STDS * log_std), value * math.exp(NUM_STDS * log_std)


@dataclass(slots=True)
class CostModel:
    """Predicts the cost of training from `Work`, by two `LogModel`s.

    Attributes:
        measured: the study's own measurements, in order.
        prior: what the work costs in proportion; `priors.of_device` knows.
        is_prior_absolute: the prior's joules are taken for this machine's, with its wide uncertainty, so that energies
            can be predicted before anything is measured. Durations cannot.
    """

    measured: list[Measured] = field(default_factory=list)
    prior: Prior = CPU
    is_prior_absolute: bool = False
    joules: LogModel = field(init=False)
    seconds: LogModel = field(init=False)

    def __post_init__(self) -> None:
        self.joules = LogModel(self.prior, log_level=0.0 if self.is_prior_absolute else None)
        self.seconds = LogModel(self.prior)
        for measured in self.measured:
            self._learn(measured, NO_OFFSETS)

    def add(self, measured: Measured) -> None:
        """Learns from a measured training of this study."""
        self.measured.append(measured)
        self._learn(measured, NO_OFFSETS)

    def add_elsewhere(self, measured: Measured, *, offsets: Mapping[str, float]) -> None:
        """Learns from a training of another study on the same hardware, whose recipe or moment had a scale of its own.

        Args:
            measured: the training.
            offsets: as of `LogModel.add`.
        """
        self._learn(measured, offsets)

    @property
    def num_measured(self) -> int:
        """Measurements it has learned from, those of other studies counted."""
        return self.joules.num_points

    def predict(self, work: Work, *, speech_s: float) -> Prediction:
        """Returns the cost of training on `speech_s` seconds of speech.

        Needs one measurement at least. The upper bound is two standard deviations above the prediction, and 15 % at
        least.
        """
        return self.predict_many([work], speech_s=[speech_s])[0]

    def predict_many(self, works: Sequence[Work], *, speech_s: Sequence[float]) -> list[Prediction]:
        """Returns the costs of many trainings at once, each of its own work on its own seconds of speech."""
        joules, log_stds = self.joules.predict_many(works)
        seconds, duration_log_stds = self.seconds.predict_many(works)
        energies_j = joules * np.asarray(speech_s)
        uppers_j = energies_j * np.clip(np.exp(2 * log_stds), MIN_MARGIN, MAX_MARGIN)
        durations_s = seconds * np.asarray(speech_s)
        columns = (energies_j, uppers_j, durations_s, log_stds, duration_log_stds)
        return [
            Prediction(energy_j=energy_j, upper_j=upper_j, duration_s=duration_s, log_std=std, duration_log_std=std_s)
            for energy_j, upper_j, duration_s, std, std_s in zip(*(c.tolist() for c in columns), strict=True)
        ]

    def _learn(self, measured: Measured, offsets: Mapping[str, float]) -> None:
        self.joules.add(measured.work, measured.joules, offsets=offsets)
        self.seconds.add(measured.work, measured.seconds, offsets=offsets)
