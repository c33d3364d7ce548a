"""What a search policy is asked, and what it may answer. `greensv.search.scheduling.green` is ours."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from greensv.search.candidate import Candidate
from greensv.search.cost import Prediction
from greensv.search.rungs.history import History, Run


@dataclass(frozen=True, slots=True, kw_only=True)
class Propose:
    """Train a new candidate, from the beginning to `rung`. The study's sampler or its queue says which."""

    rung: int
    must_finish: bool = False
    within_j: float = math.inf
    """What its way to the top may cost, margin included; one that is dearer would not be promoted."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Promote:
    """Go on with a training that has reached a rung, from its checkpoint to `rung`."""

    run: Run
    rung: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Continue:
    """Go on with a training that its worker left behind between two rungs."""

    run: Run


@dataclass(frozen=True, slots=True, kw_only=True)
class Repeat:
    """Train a candidate again from the beginning to the top rung, with another seed."""

    run: Run
    """Its own run to the top rung."""
    repetition: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Retire:
    """Promote these no more: what they showed is so far from the front that no more training would bring them there."""

    runs: Sequence[Run]


@dataclass(frozen=True, slots=True, kw_only=True)
class Finish:
    """Nothing is worth its energy any more, or nothing fits what is left."""

    because: str


Move = Propose | Promote | Continue | Repeat | Retire | Finish


class Costs(Protocol):
    """What is known of candidates before they are trained: the cost model's answers, or a simulated problem's."""

    def rung_costs(self, candidates: Sequence[Candidate], *, from_step: int, to_step: int) -> list[Prediction]:
        """Returns what training each from one step to another will use, the evaluation at its end included."""

    def known_objectives(self, candidates: Sequence[Candidate]) -> NDArray[np.float64]:
        """Returns objectives that need no training, (candidates, objectives) in the study's order; NaN for the rest.

        The energy of a training is predicted, the number of parameters counted; the error rate is NaN.
        """

    def refusal(self, candidate: Candidate) -> str | None:
        """Says why a candidate may not be trained: a constraint it breaks, or too little memory; None if it may."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Outlook:
    """What a policy decides upon, beside the history. Energies in joules, PUE included."""

    rung_steps: Sequence[int]
    """The training steps of each rung, rising; the last is a whole short training."""
    cap_j: float
    left_j: float
    """What nobody has spent or reserved."""
    costs: Costs
    is_draining: bool = False
    """The search was told to propose no more (`--max-trials` is reached): finish what is begun."""


class Policy(Protocol):
    """Decides what runs next. A pure function of what it is given: any worker may ask at any time."""

    def next_move(self, history: History, outlook: Outlook, *, random: np.random.Generator) -> Move:
        """Returns what a free worker should do. The worker claims it; if another was faster, it asks again."""
        ...

    def is_full_fidelity(self, history: History) -> bool:
        """Whether new candidates go to the top whatever they show: the rungs below were found to mislead."""
        ...
