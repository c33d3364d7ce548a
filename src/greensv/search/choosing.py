"""Which candidate is next: what the sampler or the queue proposes, if the budget can pay for it; else a smaller one."""

import dataclasses
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from greensv.energy.books.budget import Lease
from greensv.errors import GreensvError
from greensv.search.candidate import Candidate
from greensv.search.cost import CostModel, Prediction
from greensv.search.metering import CLOSING_S
from greensv.search.plan import predict_trial
from greensv.search.queue import enqueue, mark_held
from greensv.search.study import make_sampler
from greensv.search.trial_book import TrialBook
from greensv.units import format_energy

if TYPE_CHECKING:
    import optuna

MAX_REFUSALS = 8
"""Candidates in a row that may be refused before a search gives up: queued ones may all be too dear."""
NUM_SMALLER_DRAWS = 64
"""Random candidates looked at for one that fits what is left of the budget."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Chosen:
    """A trial that is about to run: its candidate, what it is reckoned to cost, and the lease that pays for it."""

    trial: "optuna.Trial"
    candidate: Candidate
    expected: Prediction
    lease: Lease


def choose(book: TrialBook, model: CostModel) -> Chosen | None:
    """Returns the next trial with its lease, or None when nothing that fits what is left of the budget was found.

    A candidate that does not fit is refused (a PRUNED trial without values), and a smaller one is put behind it.
    """
    bench, study = book.bench, book.study.optuna
    has_drawn = False
    for _ in range(MAX_REFUSALS):
        number = len(study.get_trials(deepcopy=False))
        study.sampler = make_sampler(bench.config, trial_number=number, num_backbones=len(bench.space.backbones))
        trial = study.ask()
        mark_held(trial)
        candidate = bench.space.suggest(trial)
        try:
            expected = predict_trial(bench, model, candidate)
        except GreensvError as error:
            _fail(trial, book, reason=str(error))
            raise
        lease = _reserve(book, expected, trial_number=trial.number)
        if lease is not None:
            return Chosen(trial=trial, candidate=candidate, expected=expected, lease=lease)
        reason = f"{format_energy(expected.upper_j)} does not fit what is left of the budget"
        book.end(trial, dataclasses.replace(book.started(trial, candidate), state="refused", reason=reason))
        if _num_waiting(study) == 0:
            smaller = None if has_drawn else _draw_affordable(book, model, number)
            if smaller is None:
                return None
            has_drawn = True
            enqueue(study, bench.space, [smaller], reason="fits what is left of the budget")
    return None


def _fail(trial: "optuna.Trial", book: TrialBook, *, reason: str) -> None:
    """Ends a trial whose network cannot even be built; it has no record beyond the reason."""
    from optuna.trial import TrialState

    trial.set_user_attr("reason", reason)
    book.study.optuna.tell(trial, state=TrialState.FAIL)


def _num_waiting(study: "optuna.Study") -> int:
    from optuna.trial import TrialState

    return len(study.get_trials(deepcopy=False, states=[TrialState.WAITING]))


def _reserve(book: TrialBook, expected: Prediction, *, trial_number: int) -> Lease | None:
    """Reserves the upper bound of a trial's energy, or what is left where that still covers the expectation."""
    metering = book.bench.metering
    left_j = metering.left_j - CLOSING_S * metering.power_w
    wanted_j = min(expected.upper_j, left_j)
    if wanted_j < 1.1 * expected.energy_j:
        return None
    return metering.reserve(wanted_j, purpose="training", trial_number=trial_number)


def _draw_affordable(book: TrialBook, model: CostModel, number: int) -> Candidate | None:
    """Returns a random candidate that fits what is left and has not been run; None when none is found."""
    random = np.random.default_rng([book.bench.config.seed, number])
    metering = book.bench.metering
    left_j = metering.left_j - CLOSING_S * metering.power_w
    tried = {tuple(sorted(r.params.items())) for r in book.study.records()}
    for _ in range(NUM_SMALLER_DRAWS):
        candidate = book.bench.space.draw(random)
        expected = predict_trial(book.bench, model, candidate)
        params = book.bench.space.trial_params(candidate)
        if expected.energy_j * 1.25 < left_j and tuple(sorted(params.items())) not in tried:
            return candidate
    return None
