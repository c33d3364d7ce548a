"""What is kept of a trial: one record, stored as the trial's user attributes, shown in every table.

It belongs to no layer above it: the search writes it, reports and plugins read it.
"""

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True, slots=True, kw_only=True)
class TrialRecord:
    """One trial of a search. Energies include PUE; None means not measured (yet)."""

    number: int
    state: str
    backbone: str = ""
    params: Mapping[str, Any] = field(default_factory=dict)
    summary: Mapping[str, Any] = field(default_factory=dict)
    """What the backbone says of the candidate, such as blocks per stage."""
    eer: float | None = None
    """Equal error rate on the development pairs, a fraction."""
    min_dcf: float | None = None
    train_energy_kwh: float | None = None
    """Energy of the full recipe: steps × measured joules per step, summed over its phases. The second objective."""
    train_energy_uncertainty_kwh: float | None = None
    """Its standard uncertainty, the sum of its phases': the meters' scale is off in all of them alike."""
    measured_energy_kwh: float | None = None
    """Energy the short training itself was measured to use."""
    measured_uncertainty_kwh: float | None = None
    """Its standard uncertainty."""
    data_wait_s: float | None = None
    """For how long the device had nothing to do in the short training, no batch being ready."""
    data_wait_energy_kwh: float | None = None
    """The part of the measured energy that was used meanwhile, on all domains: attributed, not measured."""
    net_energy_kwh: float | None = None
    """The measured energy less what the machine draws at rest for as long; None where that is not known."""
    net_uncertainty_kwh: float | None = None
    """Its standard uncertainty."""
    reference_units: float | None = None
    """Energy of the full recipe, PUE left out, in units of the reference workload of `greensv calibrate` here."""
    reference_units_uncertainty: float | None = None
    """Its standard uncertainty, by the calibration's repetitions: the meters' scale cancels."""
    charged_energy_kwh: float | None = None
    """Everything this trial was charged: building, training, evaluation."""
    charged_uncertainty_kwh: float | None = None
    """Its standard uncertainty, by the meters' scale; None where that of a charge is not known."""
    carbon_g: float | None = None
    """Grams of CO2-equivalent of the charged energy, by the factors of its time."""
    is_carbon_incomplete: bool = False
    """Part of the energy had no carbon factor when the trial ended, and is not in `carbon_g`."""
    embed_energy_j: float | None = None
    """Joules per second of speech in embedding the development utterances, PUE included."""
    embed_energy_uncertainty_j: float | None = None
    """Its standard uncertainty."""
    latency_s: float | None = None
    """Median time to embed three seconds of speech alone, features included."""
    num_parameters: int | None = None
    macs: int | None = None
    joules_per_step: float | None = None
    seconds_per_step: float | None = None
    num_steps: int | None = None
    """Of the short training, as far as it came."""
    curve: Sequence[Mapping[str, float]] = ()
    """What each rung showed: `step`, `eer`, `train_energy_kwh` and the energy measured up to it."""
    repetitions: int | None = None
    """Trainings of the same network with other seeds to the top rung."""
    eer_mean: float | None = None
    """Over all its seeds, where it was trained with several."""
    eer_std: float | None = None
    """Standard deviation between them (n - 1)."""
    num_skipped: int | None = None
    """Training files that were left out of the corpus, or could not be read in the training."""
    duration_s: float | None = None
    meters: Mapping[str, str] = field(default_factory=dict)
    """Meter and quality of each domain: `{"cpu": "estimate (estimated)"}`."""
    device: str = ""
    """What trained it, with the number of processes before it where there were several: `4 × NVIDIA H100`."""
    precision: str = ""
    """What the network computed in: fp32, bf16 or fp16."""
    seed: int | None = None
    reason: str = ""
    """Why the trial has no values."""
    was_interrupted: bool = False
    """Ended by the user, the budget or a dying process, not by itself: its candidate may still be worth a trial."""
    versions: Mapping[str, str] = field(default_factory=dict)

    @property
    def data_wait_share(self) -> float | None:
        """The share of the measured energy that was used while the device waited for data; attributed."""
        if self.data_wait_energy_kwh is None or not self.measured_energy_kwh:
            return None
        return self.data_wait_energy_kwh / self.measured_energy_kwh

    def as_json(self) -> dict[str, Any]:
        """Returns the record as plain values, for JSON."""
        share = self.data_wait_share
        quality = None if share is None else "attributed"
        return {**dataclasses.asdict(self), "data_wait_share": share, "data_wait_quality": quality}

    def attributes(self) -> dict[str, Any]:
        """Returns what is stored as the trial's user attributes: all fields that say something."""
        skipped = {"number", "state", "params"}
        values = {f.name: getattr(self, f.name) for f in dataclasses.fields(self) if f.name not in skipped}
        # Not `in`: 0.0 equals False, and an EER of 0 was measured.
        return {k: v for k, v in values.items() if not (v is None or v is False or _is_empty(v))}


def _is_empty(value: Any) -> bool:
    return isinstance(value, str | Mapping | Sequence) and len(value) == 0
