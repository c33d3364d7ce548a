"""The policy of `search.scheduler`: only what may reach the front is trained on, and the knee is trained again.

docs/scheduler.md tells it in words. With one rung (`scheduler = "none"`) every candidate is trained to its end.
"""

import numpy as np

from greensv.config.study import SearchConfig
from greensv.search.objectives import objectives_of
from greensv.search.rungs.history import History
from greensv.search.scheduling import trust
from greensv.search.scheduling.endgame import most_gain
from greensv.search.scheduling.policy import Continue, Finish, Move, Outlook, Promote, Propose, Repeat, Retire
from greensv.search.scheduling.promotion import promotable, promoted_share
from greensv.search.scheduling.proving import next_proof, wants_proof
from greensv.search.scheduling.replicas import next_repeat
from greensv.search.scheduling.retiring import to_retire
from greensv.search.scheduling.survey import Survey

SETTLED_PAIRS = 12
"""After so many candidates seen there and at the top, a rung that does not predict it is no longer stopped at."""


class GreenPolicy:
    """Asynchronous successive halving for several objectives, on rungs that have proved to predict the top."""

    def __init__(self, config: SearchConfig) -> None:
        self._config = config
        self._objectives = objectives_of(config.objectives)

    def next_move(self, history: History, outlook: Outlook, *, random: np.random.Generator) -> Move:
        """Returns what a free worker should do; nothing of it is left to chance."""
        survey = Survey(config=self._config, objectives=self._objectives, history=history, outlook=outlook)
        begun = _continue(survey) or next_proof(survey) or _retire(survey)
        if begun:
            return begun
        if not survey.is_endgame and (move := _promote(survey) or _propose(survey)):
            return move
        last = _gain(survey) or _propose(survey) or _repeat(survey)
        return last or Finish(because="what is left of the budget pays for nothing that would be worth it")

    def is_full_fidelity(self, history: History) -> bool:
        """Returns whether all rungs below the top were found to mislead, so that every candidate goes to the top."""
        rungs = trust.judge(history, self._objectives)
        return 0 < history.top == trust.floor(rungs, min_correlation=self._config.min_rung_correlation)


def _continue(survey: Survey) -> Continue | None:
    """What a worker left behind comes first, nearest to the top: it is in nobody's way to being judged."""
    waiting = sorted(survey.history.in_state("waiting"), key=lambda run: -run.key.rung)
    return next((Continue(run=run) for run in waiting if survey.purse.fits(run, rung=run.key.rung)), None)


def _retire(survey: Survey) -> Retire | None:
    runs = to_retire(survey)
    return Retire(runs=runs) if runs else None


def _promote(survey: Survey) -> Promote | None:
    """The highest rung first. Rungs below the floor stop nobody: all that waits there goes on, the best first."""
    floor = survey.floor
    if floor is None or floor == survey.history.top:
        return None
    for rung in range(survey.history.top - 1, -1, -1):
        level, hopeless = survey.levels[rung], survey.is_hopeless[rung]
        share = promoted_share(survey.config.eta) if rung >= floor else 1.0
        if not level.is_open.any():
            continue
        for row in promotable(survey.compared(rung), is_open=level.is_open, share=share):
            run = level.runs[row]
            if not hopeless[row] and survey.purse.reaches_top(run) and not survey.is_too_dear(run):
                return Promote(run=run, rung=rung + 1)
    return None


def _propose(survey: Survey) -> Propose | None:
    if survey.outlook.is_draining or not survey.purse.pays_for(survey.usual_j[0]):
        return None
    floor = survey.history.top if survey.floor is None else survey.floor
    first = next((n for n, r in enumerate(survey.rungs[:floor]) if r.extrapolation.num_pairs < SETTLED_PAIRS), floor)
    is_bounded = survey.history.top > 0 and survey.usual_j[1] > 0
    within_j = min(survey.purse.within_j, survey.most_j) if is_bounded else survey.purse.within_j
    return Propose(rung=first, must_finish=wants_proof(survey), within_j=within_j)


def _gain(survey: Survey) -> Promote | None:
    run = most_gain(survey.hopeful(), survey.rungs, survey.purse, survey.objectives)
    return Promote(run=run, rung=run.key.rung + 1) if run else None


def _repeat(survey: Survey) -> Repeat | None:
    kept_j = survey.outlook.left_j - max(survey.purse.within_j, 0.0)
    return next_repeat(survey.history, survey.outlook, survey.objectives, within_j=kept_j)
