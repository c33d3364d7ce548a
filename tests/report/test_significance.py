"""Paired tests against scipy's own and hand-computed values, Holm's method by hand."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from greensv.report.repetitions import as_json, repeated_table
from greensv.report.runs import Run, repeated
from greensv.report.significance import holm, paired_tests, verdicts

A_EER = [0.051, 0.048, 0.053, 0.047, 0.050, 0.052, 0.049]
B_EER = [0.060, 0.055, 0.056, 0.058, 0.057, 0.051, 0.059]


def runs(system: str, eers, *, first_seed: int = 0, energy_kwh: float = 2.0) -> list[Run]:
    return [
        Run(system=system, seed=first_seed + i, eer=eer, energy_kwh=energy_kwh * (1 + 0.01 * (i * i % 5)))
        for i, eer in enumerate(eers)
    ]


def test_paired_tests_are_scipys_on_the_common_seeds():
    # Seeds 0 to 6 and 1 to 7: six are common, shifted by one.
    (eer, energy) = paired_tests([*runs("a", A_EER), *runs("b", B_EER, first_seed=1, energy_kwh=4.0)])
    ours, theirs = A_EER[1:], B_EER[:6]
    assert (eer.metric, eer.first, eer.second, eer.num_pairs) == ("eer", "a", "b", 6)
    assert eer.mean_difference == pytest.approx(sum(ours) / 6 - sum(theirs) / 6)
    assert eer.p_t == pytest.approx(stats.ttest_rel(ours, theirs).pvalue)
    assert eer.p_wilcoxon == pytest.approx(stats.wilcoxon(ours, theirs).pvalue)
    assert eer.note == ""
    assert energy.metric == "energy_kwh"


def test_the_t_test_is_that_of_the_book():
    # Differences 1, 2, 3, 4 and 5: mean 3, deviation √2.5, so t = 3 / √(2.5/5) = 4.2426 with 4 degrees of freedom.
    first = [Run(system="a", seed=i, eer=i / 100, energy_kwh=1.0) for i in (1, 2, 3, 4, 5)]
    second = [Run(system="b", seed=i, eer=0.0, energy_kwh=1.0) for i in (1, 2, 3, 4, 5)]
    eer, energy = paired_tests([*first, *second])
    t2 = 18.0
    # Student's distribution with 4 degrees of freedom is known: P(T > t) = 1/2 - u (3 - u²) / 4, u = t/√(t²+4).
    u = math.sqrt(t2 / (t2 + 4))
    assert eer.p_t == pytest.approx(2 * (0.5 - u * (3 - u * u) / 4))
    # All five differences have one sign: 2 of 2⁵ orders are as extreme.
    assert eer.p_wilcoxon == pytest.approx(2 / 2**5)
    assert eer.note == "with 5 pairs Wilcoxon's p is 0.062 at least; 6 seeds can go below 0.05"
    assert energy.note == "all differences are equal, which no test is made for"
    assert energy.p_t is None


def test_p_values_are_corrected_for_the_number_of_pairs():
    three = [*runs("a", A_EER), *runs("b", B_EER), *runs("c", [eer + 0.001 * (i % 3) for i, eer in enumerate(A_EER)])]
    found = [test for test in paired_tests(three) if test.metric == "eer"]
    values = {"a": A_EER, "b": B_EER, "c": [eer + 0.001 * (i % 3) for i, eer in enumerate(A_EER)]}
    raw = [stats.ttest_rel(values[test.first], values[test.second]).pvalue for test in found]
    assert [test.p_t for test in found] == pytest.approx(holm(raw))
    smallest = min(range(3), key=lambda i: raw[i])
    assert found[smallest].p_t == pytest.approx(3 * raw[smallest])


def test_holms_method_by_hand():
    assert holm([0.01, 0.04, 0.03]) == pytest.approx([0.03, 0.06, 0.06])
    assert holm([0.5, 0.6]) == [1.0, 1.0]
    assert holm([]) == []


@given(st.lists(st.floats(0, 1), max_size=8))
def test_holm_never_lowers_a_p_value_nor_changes_their_order(p_values: list[float]):
    corrected = holm(p_values)
    assert all(p <= c <= 1 for p, c in zip(p_values, corrected, strict=True))
    pairs = sorted(zip(p_values, corrected, strict=True))
    assert [c for _, c in pairs] == sorted(c for _, c in pairs)


def test_without_common_seeds_there_is_no_test_and_it_says_so():
    eer, _ = paired_tests([*runs("a", [0.04, 0.05]), *runs("b", [0.05, 0.06], first_seed=10)])
    assert (eer.num_pairs, eer.p_t, eer.mean_difference) == (0, None, None)
    assert "run both with the same seeds" in eer.note


def test_two_pairs_are_too_few_for_a_test():
    eer, _ = paired_tests([*runs("a", [0.04, 0.05]), *runs("b", [0.05, 0.07])])
    assert eer.p_t is None
    assert eer.mean_difference == pytest.approx(-0.015)
    assert eer.note == "2 pairs are too few for a test; run 3 seeds at least"


def test_runs_of_one_seed_are_no_independent_repetitions():
    doubled = [*runs("a", A_EER), *runs("a", A_EER), *runs("b", B_EER)]
    once = [*runs("a", A_EER), *runs("b", B_EER)]
    assert [t.p_t for t in paired_tests(doubled)] == pytest.approx([t.p_t for t in paired_tests(once)])


def test_they_are_shown_in_words_and_as_plain_values():
    all_runs = [*runs("a", A_EER), *runs("b", B_EER, energy_kwh=4.0)]
    table = repeated_table(repeated(all_runs), title="Repeated runs")
    assert table.row_count == 2
    lines = verdicts(paired_tests(all_runs))
    assert lines[0].startswith("EER, a - b: -0.66 points over 7 common seeds, t-test p = ")
    assert lines[1].startswith("energy, a - b: -2.031 kWh over 7 common seeds")
    found = as_json(all_runs)
    assert found["repeated"][0]["eer"]["std"] == pytest.approx(stats.tstd(A_EER))
    assert len(found["paired_tests"]) == 2
