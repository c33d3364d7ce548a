import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import spearmanr

from greensv.search.candidate import Candidate
from greensv.search.objectives import objectives_of
from greensv.search.rungs.history import History, Run, RunKey
from greensv.search.scheduling.trust import floor, judge, spearman

OBJECTIVES = objectives_of(("eer", "train_energy"))


def history_of(curves, *, energies=None):
    """Each curve: a candidate's errors at all rungs, as far as it came."""
    history = History(num_rungs=max(map(len, curves)))
    for number, curve in enumerate(curves):
        energy_kwh = energies[number] if energies else 50.0
        for rung, eer in enumerate(curve):
            key = RunKey(trial_number=number, rung=rung)
            candidate = Candidate(backbone="none", params={"x": number})
            run = Run(key=key, state="done", candidate=candidate, step=3**rung, objectives=(eer, energy_kwh))
            history.put(run)
    return history


def judged(history, *, at_least=0.6):
    return floor(judge(history, OBJECTIVES), min_correlation=at_least)


@settings(deadline=None, max_examples=40)
@given(st.lists(st.tuples(st.integers(0, 5), st.integers(0, 5)), min_size=3, max_size=20))
def test_rank_correlation_is_scipys_with_ties(pairs: list[tuple[int, int]]):
    a, b = np.array(pairs, dtype=float).T
    if np.ptp(a) and np.ptp(b):
        assert spearman(a, b) == pytest.approx(float(spearmanr(a, b).statistic))
    else:
        assert spearman(a, b) == 0.0


def test_too_few_candidates_say_nothing():
    assert judged(history_of([(0.3, 0.2, 0.1), (0.4, 0.3, 0.2), (0.5, 0.4, 0.3)])) is None


def test_a_rung_in_the_same_order_as_the_top_is_the_floor():
    assert judged(history_of([(0.30 + d, 0.20 + d, 0.10 + d) for d in (0.0, 0.02, 0.04, 0.06, 0.08)])) == 0


def test_a_rung_in_another_order_stops_nobody():
    tops = (0.10, 0.12, 0.14, 0.16, 0.18, 0.20)
    mixed = (0.33, 0.31, 0.35, 0.32, 0.30, 0.34)
    curves = [(low, top + 0.1, top) for low, top in zip(mixed, tops, strict=True)]
    assert judged(history_of(curves)) == 1
    assert judged(history_of([(low, low, top) for low, top in zip(mixed, tops, strict=True)])) == 2


def test_a_rung_that_misleads_by_size_alone_is_trusted_once_that_is_known():
    energies = [20.0 * 1.3**n for n in range(12)]
    tops = [0.10 * 0.97**n * (1 + 0.01 * (-1) ** n) for n in range(12)]
    curves = [(top * (kwh / 20) ** 0.3, top) for top, kwh in zip(tops, energies, strict=True)]
    lows = [curve[0] for curve in curves]
    assert spearman(np.array(lows), np.array(tops)) < -0.9
    assert judged(history_of(curves, energies=energies)) == 0


def test_candidates_on_their_way_do_not_count():
    curves = [(0.30 + d, 0.10 + d) for d in (0.0, 0.02, 0.04, 0.06)]
    with_more = history_of([*curves, (0.1,), (0.9,)])
    assert judged(with_more) == 0
    assert judge(with_more, OBJECTIVES)[0].extrapolation.num_pairs == 4


def test_a_study_of_one_rung_has_nothing_to_judge():
    assert judged(history_of([(0.1,)])) == 0


def test_alike_errors_everywhere_are_no_proof():
    assert judged(history_of([(0.3, 0.1)] * 6)) == 1
