"""Repeated retraining: each network with each seed, in a folder and with books of its own."""

import dataclasses
import json

import pytest

from greensv.report.repetitions import paired_tests, repeated, retrained_runs
from greensv.search.retrain import run_retrain
from greensv.search.retrain_job import MAX_SEED, NUMBERS_PER_SEED
from greensv.search.storage import open_storage
from greensv.search.study import load
from greensv.units import j_from_kwh, kwh_from_j
from tiny.study import CHEAPEST_J, FULL_STEPS, Lab


def retrain(lab: Lab, numbers, seeds):
    storage, ledger = open_storage(lab.url, create=False)
    try:
        study = load(None, storage)
        records = [record for record in study.records() if record.number in numbers]
        return run_retrain(
            study,
            records,
            ledger=ledger,
            plugins=lab.plugins,
            budget_kwh=kwh_from_j(1e6),
            folder=lab.folder / "runs" / "tiny",
            listen=lab.listen,
            seeds=seeds,
        )
    finally:
        storage.engine.dispose()


def test_each_network_is_trained_with_each_seed(lab: Lab):
    lab.search(max_trials=2)
    own = retrain(lab, [0], ())
    found = retrain(lab, [0, 1], (3, 4, 5))
    assert found.is_complete
    assert [(r["trial"], r["seed"]) for r in found.results] == [(0, 3), (1, 3), (0, 4), (1, 4), (0, 5), (1, 5)]
    folder = lab.folder / "runs" / "tiny"
    assert json.loads((folder / "trial-0001-seed-4" / "model.json").read_text())["provenance"]["seed"] == 4
    assert (folder / "trial-0000" / "result.json").exists()
    for result in (*own.results, *(r for r in found.results if r["trial"] == 0)):
        # Each run is charged its own energy alone.
        assert j_from_kwh(result["charged_energy_kwh"]) == pytest.approx(FULL_STEPS * CHEAPEST_J, rel=0.05)
    weights = {(folder / f"trial-0000-seed-{s}" / "model.safetensors").read_bytes() for s in (3, 4, 5)}
    assert len(weights) == 3
    study = lab.open()[0]
    runs = retrained_runs(study.retrained(), study.records())
    assert [line.num_runs for line in repeated(runs)] == [4, 3]
    assert [test.num_pairs for test in paired_tests(runs)] == [3, 3]


def test_what_is_ready_is_not_trained_again(lab: Lab):
    lab.search(max_trials=1)
    first = retrain(lab, [0], (7,))
    again = retrain(lab, [0], (7, 8))
    assert again.results[0] == first.results[0]
    assert "trial 0, seed 7 is retrained and scored already" in lab.notes()
    assert len(lab.open()[0].retrained()) == 2


def test_the_books_know_each_run_by_a_number_that_fits():
    from greensv.search.retrain_job import RetrainJob
    from greensv.trial_record import TrialRecord

    def number(trial: int, seed: int | None) -> int:
        record = TrialRecord(number=trial, state="complete")
        fields = {f.name: None for f in dataclasses.fields(RetrainJob)}
        return RetrainJob(**{**fields, "record": record, "seed": seed}).run_number  # type: ignore[arg-type]

    assert number(3, None) == 3
    found = {number(trial, seed) for trial in (0, 1, NUMBERS_PER_SEED - 1) for seed in (None, 0, 1, MAX_SEED)}
    assert len(found) == 12
    assert max(found) < 2**31
