"""What one retraining is: a trial's network, its folder and seed, and its number in the books."""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from greensv.energy.grid.watch import CarbonWatch
from greensv.search.study import OpenStudy
from greensv.search.workbench import Workbench
from greensv.trial_record import TrialRecord

if TYPE_CHECKING:
    from greensv.speaker.training.loop import Training

NUMBERS_PER_SEED = 1_000_000
MAX_SEED = 2000
"""The ledger's number of a run, (1 + seed) × 10⁶ + trial, is a 32-bit integer."""


def run_name(run_number: int) -> str:
    """Returns the trial and seed of a number in the retrain account, as tables show them: `3`, or `3, seed 1`."""
    seeds, trial_number = divmod(run_number, NUMBERS_PER_SEED)
    return f"{trial_number}, seed {seeds - 1}" if seeds else str(trial_number)


@dataclass(frozen=True, slots=True, kw_only=True)
class RetrainJob:
    """The retraining of one trial's network."""

    study: OpenStudy
    bench: Workbench
    record: TrialRecord
    folder: Path
    carbon: CarbonWatch
    seed: int | None = None
    """Instead of the trial's own."""

    @property
    def name(self) -> str:
        """The retraining in words."""
        return f"trial {self.record.number}" + ("" if self.seed is None else f", seed {self.seed}")

    @property
    def run_number(self) -> int:
        """What its energy is booked under in the retrain account: the trial's number, or one for trial and seed."""
        return self.record.number if self.seed is None else (1 + self.seed) * NUMBERS_PER_SEED + self.record.number

    def computed_by(self, training: "Training") -> dict[str, Any]:
        """Returns what computes this retraining, which may be another machine than the search's."""
        return {
            "device": self.bench.device_words,
            "precision": training.precision,
            "num_processes": self.bench.crew.team.size,
        }
