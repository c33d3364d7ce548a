"""Repeated runs: spreads by hand, paired tests against scipy's own and hand-computed values, Holm's by hand."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from greensv.report.repetitions import (
    Run,
    as_json,
    holm,
    line_names,
    paired_tests,
    repeated,
    repeated_table,
    retrained_runs,
    trial_runs,
    verdicts,
)
from greensv.trial_record import TrialRecord

A_EER = [0.051, 0.048, 0.053, 0.047, 0.050, 0.052, 0.049]
B_EER = [0.060, 0.055, 0.056, 0.058, 0.057, 0.051, 0.059]


def runs(system: str, eers, *, first_seed: int = 0, energy_kwh: float = 2.0) -> list[Run]:
    return [
        Run(system=system, seed=first_seed + i, eer=eer, energy_kwh=energy_kwh * (1 + 0.01 * (i * i % 5)))
        for i, eer in enumerate(eers)
    ]


def test_repeated_runs_have_a_mean_and_a_standard_deviation():
    found = repeated([*runs("a", [0.04, 0.06]), *runs("b", [0.05], energy_kwh=3.0)])
    assert [line.system for line in found] == ["a", "b"]
    assert found[0].num_runs == 2
    assert found[0].eer.mean == pytest.approx(0.05)
    assert found[0].eer.std == pytest.approx(math.sqrt(2 * 0.01**2))
    assert found[0].energy_kwh.mean == pytest.approx(2.01)
    assert found[1].eer.std is None


def test_without_a_repetition_there_is_nothing_to_show():
    assert repeated([*runs("a", [0.04]), *runs("b", [0.05])]) == []
    assert paired_tests([*runs("a", [0.04]), *runs("b", [0.05])]) == []


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


def record(number: int, **changes) -> TrialRecord:
    fields = {"state": "complete", "backbone": "tiny", "params": {"width": 8}, "eer": 0.1, "train_energy_kwh": 1.0}
    return TrialRecord(number=number, **{**fields, "seed": number, **changes})


def test_completed_trials_with_equal_parameters_are_runs_of_one_network():
    trials = [record(0), record(1), record(2, params={"width": 4}), record(3, state="failed", eer=None)]
    found = trial_runs(trials)
    assert [(run.system, run.seed) for run in found] == [("tiny width=8", 0), ("tiny width=8", 1), ("tiny width=4", 2)]


def test_networks_whose_short_names_are_equal_are_told_apart():
    shape = {"blocks": [1, 1], "channels": [8, 8]}
    other = [record(i, params={"depth": 2, "pooling": name}, summary=shape) for i, name in enumerate(("mean", "max"))]
    first, second = trial_runs(other)
    assert first.system == "tiny 1-1 × 8-8 pooling=mean"
    assert first.system != second.system


def test_retrainings_are_runs_by_their_mean_test_eer():
    result = {"trial": 1, "charged_energy_kwh": 5.0, "protocols": [{"eer": 0.02}, {"eer": 0.04}]}
    (own, given_seed) = retrained_runs([result, {**result, "seed": 77}, {**result, "trial": 9}], [record(1)])
    assert (own.system, own.seed, own.energy_kwh) == ("tiny width=8", 1, 5.0)
    assert own.eer == pytest.approx(0.03)
    assert given_seed.seed == 77


def result_of(seed: int, *, trial: int = 1, **changes) -> dict:
    found = {
        "trial": trial,
        "seed": seed,
        "charged_energy_kwh": 5.0 + seed,
        "protocols": [{"eer": 0.02 + trial * 0.01 * seed}],
        "device": "NVIDIA H100 80GB HBM3",
        "precision": "bf16",
        "num_processes": 1,
        "meters": {"gpu:GPU-1": "nvml (measured)", "cpu:0": "rapl (measured)", "cpu:1": "rapl (measured)"},
    }
    return {**found, **changes}


def test_runs_on_other_hardware_are_other_runs_and_are_not_tested_against_each_other():
    trials = [record(1), record(2, params={"width": 4})]
    here = [result_of(seed, trial=trial) for trial in (1, 2) for seed in (1, 2, 3)]
    elsewhere = [result_of(seed, device="NVIDIA H200") for seed in (1, 2, 3)]
    found = retrained_runs([*here, *elsewhere], trials)
    assert found[0].conditions == "NVIDIA H100 80GB HBM3, bf16, nvml (measured) for gpu, rapl (measured) for cpu"
    lines = repeated(found)
    assert [(line.system, line.num_runs) for line in lines] == [
        ("tiny width=8", 3),
        ("tiny width=4", 3),
        ("tiny width=8", 3),
    ]
    assert lines[2].conditions.startswith("NVIDIA H200, bf16")
    tests = [test for test in paired_tests(found) if test.metric == "eer"]
    assert [test.p_t is not None for test in tests] == [True, False, False]
    assert [test.num_pairs for test in tests] == [3, 0, 0]
    assert tests[1].note.startswith("run under other conditions, so no paired test")
    assert tests[1].second.startswith("tiny width=8 [NVIDIA H200, bf16")
    assert line_names(lines)[2] == tests[1].second


@pytest.mark.parametrize(
    "changes", [{"precision": "fp32"}, {"num_processes": 2}, {"meters": {"cpu:0": "rapl (measured, × 1.043)"}}]
)
def test_each_condition_makes_another_run(changes: dict):
    assert repeated(retrained_runs([result_of(1), result_of(2, **changes)], [record(1)])) == []


def test_another_gpu_of_the_same_model_is_the_same_condition():
    meters = {**result_of(1)["meters"], "gpu:GPU-2": "nvml (measured)"}
    del meters["gpu:GPU-1"]
    (line,) = repeated(retrained_runs([result_of(1), result_of(2, meters=meters)], [record(1)]))
    assert line.num_runs == 2
    assert line_names([line]) == ["tiny width=8"]


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
