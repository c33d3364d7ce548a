"""What a scheduler hands to a worker, and whom it deals with: the account, and who writes trials down."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

from greensv.energy.books.budget import Lease
from greensv.search.candidate import Candidate
from greensv.search.cost import Prediction
from greensv.search.rungs.history import Run

if TYPE_CHECKING:
    import optuna

SAVED_AS = "saved_as"
"""In a run's data: the name of the file that holds its training."""
SEED = "seed"
"""In a run's data: of its weights and of all else that is random."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """A training that this worker holds: from the step that is saved to a rung, paid for by a lease."""

    run: Run
    """As it stands in the book, `running`."""
    after: Run | None
    """The run to the rung below, with what was measured up to it; None from the beginning."""
    candidate: Candidate
    seed: int
    from_step: int
    to_step: int
    is_top: bool
    expected: Prediction
    lease: Lease

    @property
    def trial_number(self) -> int:
        """Of the trial; a repetition's as well."""
        return self.run.key.trial_number


@dataclass(frozen=True, slots=True, kw_only=True)
class Ended:
    """There is nothing for this worker to do any more."""

    because: str


class Money(Protocol):
    """The account as a worker sees it. Joules, PUE included."""

    @property
    def cap_j(self) -> float:
        """The cap."""

    @property
    def left_j(self) -> float:
        """What can still be reserved and is not needed for ending in good order."""

    def reserve(self, energy_j: float, *, trial_number: int, within: "Callable[[Any, Lease], bool]") -> "Lease | None":
        """Takes joules out of what is left; see `Ledger.reserve`."""


class Trials(Protocol):
    """Who writes trials down and tells the user: `TrialBook` in a real search."""

    def refused(self, trial: "optuna.Trial", candidate: Candidate, reason: str) -> None:
        """A new trial's candidate may not be trained, or cannot be paid for: end the trial as PRUNED."""

    def retired(self, run: Run, reason: str) -> None:
        """A trial will not be promoted any more: end it as PRUNED, with what it showed last."""
