"""Which trainings are repetitions of each other, and their spread by hand."""

import math

import pytest

from greensv.report.runs import Run, line_names, repeated, retrained_runs, trial_runs
from greensv.report.significance import paired_tests
from greensv.trial_record import TrialRecord


def runs(system: str, eers, *, energy_kwh: float = 2.0) -> list[Run]:
    return [
        Run(system=system, seed=i, eer=eer, energy_kwh=energy_kwh * (1 + 0.01 * (i * i % 5)))
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
    "changes",
    [
        {"precision": "fp32"},
        {"num_processes": 2},
        {"meters": {"cpu:0": "rapl (measured, × 1.043)"}},
        {"earlier_meters": [{"cpu:0": "estimate (estimated)"}]},
    ],
)
def test_each_condition_makes_another_run(changes: dict):
    assert repeated(retrained_runs([result_of(1), result_of(2, **changes)], [record(1)])) == []


def test_another_gpu_of_the_same_model_is_the_same_condition():
    meters = {**result_of(1)["meters"], "gpu:GPU-2": "nvml (measured)"}
    del meters["gpu:GPU-1"]
    (line,) = repeated(retrained_runs([result_of(1), result_of(2, meters=meters)], [record(1)]))
    assert line.num_runs == 2
    assert line_names([line]) == ["tiny width=8"]
