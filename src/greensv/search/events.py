"""What a search says while it runs. The command line shows it; the search never prints."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from greensv.trial_record import TrialRecord

if TYPE_CHECKING:
    from greensv.energy.grid.watch import CarbonWatch
    from greensv.search.metering import Metering


@dataclass(frozen=True, slots=True, kw_only=True)
class Progressed:
    """A longish job has come so far: `done` of `total` items (total 0: unknown)."""

    what: str
    done: int
    total: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Noted:
    """A sentence for the user: what is measured, what was found, what was continued."""

    text: str


@dataclass(frozen=True, slots=True, kw_only=True)
class MetersChosen:
    """What measures what: one line per meter, such as `estimate: cpu, dram (estimated, ±50 %)`."""

    lines: Sequence[str]


@dataclass(frozen=True, slots=True, kw_only=True)
class BudgetMoved:
    """The account now: what has been spent, is reserved, and is left, in joules; and the power just now."""

    cap_j: float
    spent_j: float
    reserved_j: float
    power_w: float


@dataclass(frozen=True, slots=True, kw_only=True)
class TrialStarted:
    """A candidate is about to be trained; `expected_j` is what its short training is reckoned to use."""

    number: int
    candidate: str
    num_parameters: int
    macs: int
    expected_j: float
    expected_s: float
    part: str = ""
    """Which part of the training, where it has several."""
    repetition: int = 0
    """With another seed."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Stepped:
    """Training has come so far. `loss` is None between two readings (reading it makes a GPU wait)."""

    what: str
    epoch: int
    num_epochs: int
    step: int
    num_steps: int
    loss: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class TrialEnded:
    """A trial has ended, and what the front is now."""

    record: TrialRecord
    front: Sequence[TrialRecord]


@dataclass(frozen=True, slots=True, kw_only=True)
class RungEnded:
    """A training has reached a rung below the top, and waits to be promoted."""

    record: TrialRecord
    rung: int
    num_rungs: int


@dataclass(frozen=True, slots=True, kw_only=True)
class FrontKnown:
    """The front that a continued study starts with."""

    front: Sequence[TrialRecord]


@dataclass(frozen=True, slots=True, kw_only=True)
class RetrainingStarted:
    """The network of a trial is about to be trained with the full recipe, or to go on with that."""

    number: int
    """Of the trial."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RetrainingEnded:
    """That has ended: well, or for this time."""

    number: int
    """Of the trial."""


@dataclass(frozen=True, slots=True, kw_only=True)
class JobOpened:
    """Meters and books are open. Who watches the job from outside may read them from now on, from any thread."""

    study: str
    records: Sequence[TrialRecord]
    """The study's trials so far."""
    metering: "Metering"
    carbon: "CarbonWatch"


Event = (
    JobOpened
    | FrontKnown
    | Progressed
    | Noted
    | MetersChosen
    | BudgetMoved
    | TrialStarted
    | Stepped
    | TrialEnded
    | RungEnded
    | RetrainingStarted
    | RetrainingEnded
)
Listener = Callable[[Event], None]


def ignore(event: Event) -> None:
    """A listener that shows nothing."""
