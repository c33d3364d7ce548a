import pytest

from greensv.errors import BudgetError
from greensv.search.plan import Plan
from tiny.study import CHEAPEST_J, DEAREST_J, FULL_STEPS, STEPS, Lab


def make(**changes: float) -> Plan:
    amounts = {
        "left_j": 3_600.0,
        "cheapest_trial_j": 36.0,
        "typical_trial_j": 360.0,
        "typical_trial_s": 60.0,
        "typical_retrain_j": 1_440.0,
    }
    return Plan(**{**amounts, **changes})


def test_a_plan_says_how_many_trials_and_hours_the_budget_buys_and_what_retraining_will_cost():
    assert (make().num_trials, make().duration_s) == (10, 600.0)
    assert make().lines(None) == [
        "1 Wh buys about 10 typical trials of 0.1 Wh on this machine, 10 min 0 s in all",
        "retraining one typical network in full will use about 0.4 Wh, a front of 5 about 2 Wh "
        "(2.0 × what is left); it has a budget of its own",
    ]


def test_a_plan_says_when_the_number_of_trials_will_end_it():
    assert make().lines(9)[0].endswith("10 min 0 s in all; --max-trials 9 ends it after about 9 min 0 s")
    assert "--max-trials" not in make().lines(10)[0]


def test_a_plan_for_nothing_left_has_words_too():
    first, second = make(left_j=0.0).lines(5)
    assert first.startswith("0 J buys about 0 typical trials")
    assert "×" not in second


def test_a_budget_for_a_few_trials_passes():
    make(left_j=108.0).check()


def test_a_budget_too_small_for_a_few_trials_is_refused_with_advice():
    with pytest.raises(BudgetError) as caught:
        make(left_j=107.0).check()
    message = str(caught.value)
    assert "0.0297 Wh, cannot pay for 3 trials of even the cheapest candidate (0.01 Wh each on this machine)" in message
    assert "--budget-kwh 0.00012" in message, "four times three of the cheapest"
    assert "narrow the space" in message


def test_the_plan_of_a_search_is_made_of_what_was_measured_on_this_machine(lab: Lab):
    lab.search(max_trials=1)
    notes = lab.notes()
    assert "probing the ends of the search space on real batches" in notes
    line = next(line for line in notes.splitlines() if "typical trials of" in line)
    typical_j = 3_600 * float(line.split("typical trials of ")[1].split(" Wh")[0])
    assert STEPS * CHEAPEST_J < typical_j < STEPS * DEAREST_J
    line = next(line for line in notes.splitlines() if "in full" in line)
    retrain_j = 3_600 * float(line.split("about ")[1].split(" Wh")[0])
    assert FULL_STEPS * CHEAPEST_J < retrain_j < FULL_STEPS * DEAREST_J
