"""Candidates that go through all rungs whatever they show: by them the rungs themselves are judged."""

from greensv.search.rungs.history import Run
from greensv.search.scheduling.policy import Promote
from greensv.search.scheduling.purse import whole_j
from greensv.search.scheduling.survey import Survey

NUM_PROOFS = 6
"""The first so many candidates, which are the published systems where a study starts with them."""
PROOF_SHARE = 0.2
"""Of the budget: when proofs have been given as much, there is no further one."""


def next_proof(survey: Survey) -> Promote | None:
    """Returns the next step of a candidate that goes through all rungs; None when each is done, running or too dear."""
    for rung in range(survey.history.top - 1, -1, -1):
        for run in survey.open_runs(rung):
            if run.must_finish and (rung > 0 or _may_go_on(run, survey)) and survey.purse.reaches_top(run):
                return Promote(run=run, rung=rung + 1)
    return None


def wants_proof(survey: Survey) -> bool:
    """Returns whether the next new candidate should go through all rungs."""
    if survey.history.top == 0:
        return False
    if is_proved_by_all(survey):
        return True
    begun = sum(run.must_finish and run.state != "failed" for run in survey.history.at_rung(0))
    return begun < NUM_PROOFS and _left_j(survey) > 0 and survey.rungs[0].extrapolation.num_pairs < NUM_PROOFS


def is_proved_by_all(survey: Survey) -> bool:
    """Returns whether every candidate goes to the top: the rungs mislead, or all proofs are done and say too little."""
    if survey.floor is None:
        return _left_j(survey) <= 0 or not _is_proving(survey)
    return survey.floor == survey.history.top


def _is_proving(survey: Survey) -> bool:
    begun = [run for run in survey.history.at_rung(0) if run.must_finish]
    return len(begun) < NUM_PROOFS or any(
        run.must_finish and run.state in ("running", "waiting") for run in survey.history.all()
    )


def _may_go_on(run: Run, survey: Survey) -> bool:
    if survey.is_too_dear(run):
        return False
    return _left_j(survey) > 0 or is_proved_by_all(survey)


def _left_j(survey: Survey) -> float:
    """What is left for proofs: those that have gone on from the lowest rung are, or will be, whole trainings."""
    going = [run for run in survey.history.at_rung(1) if run.must_finish]
    return PROOF_SHARE * survey.outlook.cap_j - float(whole_j(going, survey.outlook).sum())
