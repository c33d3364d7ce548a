"""Whole searches in this process: real audio, real training, real Optuna, a meter whose joules are known."""

import dataclasses
from collections.abc import Iterator

import optuna
import pytest

from greensv.config import DatasetConfig
from greensv.energy.meter import Domain
from greensv.errors import BudgetError, ConfigError, StudyError
from greensv.search import gate, measuring
from greensv.search.events import BudgetMoved, Event, MetersChosen, Progressed, Stepped, TrialEnded, TrialStarted
from greensv.search.runner import component_versions
from greensv.search.workbench import dataset_arguments
from greensv.units import j_from_kwh, j_from_uj
from tiny.study import CHEAPEST, CHEAPEST_J, DEAREST, DEAREST_J, FULL_STEPS, STEPS, Lab, study_data
from tiny.work import WORK


@pytest.fixture(scope="module")
def done(tmp_path_factory: pytest.TempPathFactory, young_process: None) -> Iterator[Lab]:
    """A search of four trials that nothing disturbed."""
    lab = Lab(folder=tmp_path_factory.mktemp("done"))
    lab.search(max_trials=4)
    yield lab
    lab.close()


def test_a_search_runs_the_two_ends_first_then_the_sampler(done: Lab):
    records = done.records()
    assert [record.state for record in records] == ["complete"] * 4
    assert [record.number for record in records] == [0, 1, 2, 3]
    assert [record.params for record in records[:2]] == [CHEAPEST, DEAREST]
    assert done.finished[0].ended_because == "4 trials were run"
    assert not done.finished[0].was_interrupted


def test_a_trials_energy_is_the_full_recipes_steps_times_joules_per_step(done: Lab):
    for record, step_j in zip(done.records(), (CHEAPEST_J, DEAREST_J), strict=False):
        assert record.joules_per_step == pytest.approx(step_j, rel=0.02)
        assert record.num_steps == STEPS
        assert record.train_energy_kwh is not None
        assert j_from_kwh(record.train_energy_kwh) == pytest.approx(FULL_STEPS * (record.joules_per_step or 0))
        assert j_from_kwh(record.measured_energy_kwh or 0) == pytest.approx(STEPS * step_j, rel=0.02)
        assert (record.charged_energy_kwh or 0) >= (record.measured_energy_kwh or 0)
        assert j_from_kwh(record.charged_energy_kwh or 0) == pytest.approx(STEPS * step_j, rel=0.05)


def test_every_joule_is_in_the_books_under_its_purpose(done: Lab):
    found = done.audited()
    assert set(found.spent_by_purpose) == {"startup", "preparation", "probe", "training", "evaluation", "report"}
    trials_j = sum(j_from_kwh(record.measured_energy_kwh or 0) for record in done.records())
    assert j_from_uj(found.spent_by_purpose["training"]) == pytest.approx(trials_j, rel=0.02)
    # A probe of such quick steps ends with the short training itself.
    assert j_from_uj(found.spent_by_purpose["probe"]) == pytest.approx(STEPS * (CHEAPEST_J + DEAREST_J), rel=0.02)
    assert found.overrun_uj == 0


def test_a_record_says_where_its_numbers_come_from(done: Lab):
    record = done.records()[0]
    assert record.backbone == "tiny"
    assert record.meters == {"node": "tiny (measured)"}
    assert record.device.startswith("CPU")
    assert record.versions["backbone tiny"] == "tiny 0"
    assert record.versions["greensv"] == "0.1.0"
    assert record.num_parameters == (81 * 2 + 2) + (4 * 16 + 16)
    assert record.macs == pytest.approx(350 * 81 * 2, rel=0.01)
    assert record.carbon_g == pytest.approx((record.charged_energy_kwh or 0) * 481.0), "static, WORLD"
    assert not record.is_carbon_incomplete
    carbon = done.finished[0].carbon
    assert (carbon.source, carbon.region, carbon.method) == ("static", "WORLD", "life-cycle")
    assert carbon.figure.mean_g_per_kwh == pytest.approx(481.0)
    assert carbon.figure.is_complete
    assert record.duration_s is not None
    assert record.duration_s > 0


def test_plain_optuna_reads_the_study(done: Lab):
    storage = optuna.storages.RDBStorage(done.url)
    study = optuna.load_study(study_name="tiny", storage=storage)
    assert study.metric_names == ["eer", "train_energy_kwh"]
    for trial, record in zip(study.trials, done.records(), strict=True):
        assert trial.values == [record.eer, record.train_energy_kwh]
        assert 0 <= trial.values[0] <= 1
        assert trial.user_attrs["charged_energy_kwh"] == record.charged_energy_kwh
    storage.engine.dispose()


def test_the_listener_hears_it_all_in_order(done: Lab):
    kinds = [type(event) for event in done.events]
    assert kinds[0] is MetersChosen
    assert done.events[0] == MetersChosen(lines=["tiny: node (measured, ±1%)"])
    assert any(isinstance(event, Progressed) and event.what == "rendering voices" for event in done.events)
    trials = [event for event in done.events if isinstance(event, TrialStarted | TrialEnded)]
    assert [type(event) for event in trials] == [TrialStarted, TrialEnded] * 4
    first = trials[0]
    assert isinstance(first, TrialStarted)
    assert first.candidate == "tiny width=2 depth=1"
    assert first.expected_j == pytest.approx(STEPS * CHEAPEST_J, rel=0.5)
    last = trials[-1]
    assert isinstance(last, TrialEnded)
    assert {record.number for record in last.front} <= {0, 1, 2, 3}
    steps = [e for e in done.events if isinstance(e, Stepped) and e.what == "trial 0"]
    assert (steps[-1].step, steps[-1].num_steps, steps[-1].epoch, steps[-1].num_epochs) == (STEPS, STEPS, 2, 2)
    moved = [event for event in done.events if isinstance(event, BudgetMoved)]
    assert all(event.spent_j + event.reserved_j <= event.cap_j for event in moved)
    assert [event.spent_j for event in moved] == sorted(event.spent_j for event in moved)


def test_plugins_are_told_of_each_finished_trial(done: Lab):
    assert [name for name, _ in done.plugin.told] == ["tiny"] * 4
    assert [trial for _, trial in done.plugin.told] == [record.as_json() for record in done.records()]


def test_the_end_of_a_search_is_metered_too(done: Lab):
    assert len(done.finished) == 1
    assert done.finished[0].head_room_j >= 0
    assert done.finished[0].carbon.region == "WORLD"


def test_the_same_seed_gives_the_same_candidates_and_error_rates(lab: Lab):
    lab.search(max_trials=3, search={"sampler": "random"}, name="first")
    first = lab.finished[0].study.records()
    lab.search(max_trials=3, search={"sampler": "random"}, name="second")
    second = lab.finished[1].study.records()
    lab.search(max_trials=1, search={"sampler": "random", "start_with_ends": False}, name="third", seed=99)
    third = lab.finished[2].study.records()
    assert [(r.params, r.eer, r.min_dcf, r.seed) for r in first] == [
        (r.params, r.eer, r.min_dcf, r.seed) for r in second
    ]
    assert third[0].seed not in [r.seed for r in first]
    assert third[0].params not in [r.params for r in first]


def test_continuing_adds_trials_and_a_larger_cap_but_changes_nothing_else(lab: Lab):
    lab.search(max_trials=2, budget_j=20_000)
    before = lab.records()
    spent_uj = lab.audited().spent_uj
    lab.events.clear()
    lab.search(max_trials=3, budget_j=30_000)
    after = lab.records()
    assert after[:2] == before
    assert [record.number for record in after] == [0, 1, 2]
    assert after[2].params not in (CHEAPEST, DEAREST)
    assert "probing" not in lab.notes(), "what was measured before is known"
    statement = lab.audited()
    assert statement.spent_uj > spent_uj
    assert j_from_uj(statement.cap_uj) == pytest.approx(30_000)
    lab.search(max_trials=3, budget_j=30_000)
    assert lab.finished[-1].ended_because == "all 3 trials had been run"
    assert lab.records() == after
    with pytest.raises(BudgetError, match="can be raised but not lowered"):
        lab.search(max_trials=4, budget_j=20_000)
    with pytest.raises(StudyError, match="seed: 1 → 2"):
        lab.search(max_trials=4, budget_j=30_000, seed=2)
    assert lab.records() == after


def test_without_the_ends_the_sampler_begins(lab: Lab):
    lab.search(max_trials=1, search={"start_with_ends": False})
    assert lab.records()[0].params not in (CHEAPEST, DEAREST)


def test_a_phase_with_another_crop_is_measured_on_steps_of_its_own(lab: Lab):
    phase = study_data()["recipe"]["phases"][0]
    longer = {**phase, "name": "long crops", "crop_s": 0.4, "num_epochs": 2}
    same = {**phase, "name": "more", "num_epochs": 1}
    lab.search(max_trials=1, recipe={"phases": [phase, longer, same]})
    record = lab.records()[0]
    # A step of the tiny network costs the same at any crop: 20 + 10 + 5 steps.
    # What lies between two steps is not theirs, so that a busy machine makes the probe a little cheaper.
    assert j_from_kwh(record.train_energy_kwh or 0) == pytest.approx(35 * CHEAPEST_J, rel=0.15)
    assert j_from_kwh(record.measured_energy_kwh or 0) == pytest.approx(STEPS * CHEAPEST_J, rel=0.03)
    # The five steps that the longer crops were measured on are charged to the trial.
    assert j_from_kwh(record.charged_energy_kwh or 0) == pytest.approx((STEPS + 5) * CHEAPEST_J, rel=0.05)


def test_a_probe_of_another_crop_that_is_slower_than_the_budget_would_pay_a_whole_epoch_of_keeps_the_trial(
    lab: Lab, monkeypatch: pytest.MonkeyPatch
):
    for name, value in {"MIN_PROBE_STEPS": 1, "PROBE_WARMUP_STEPS": 1, "PROBE_S": -1.0}.items():
        monkeypatch.setattr(measuring, name, value)
    monkeypatch.setattr(gate, "FIRST_LOOK_S", 0.0)
    monkeypatch.setattr(gate, "LOOK_INTERVAL_S", 0.0)
    monkeypatch.setattr(WORK, "step_sleep_s", 0.05)  # longer than the metering interval

    def listen(event: Event) -> None:
        if isinstance(event, Stepped) and event.what == "trial 0" and event.step == STEPS:
            WORK.factor = 700.0

    lab.on_event = listen
    phase = study_data()["recipe"]["phases"][0]
    longer = {**phase, "name": "long crops", "crop_s": 0.4, "num_epochs": 2}
    # The probe's two steps use 2.3 kJ, and a whole epoch of them would use 5.7 kJ.
    lab.search(budget_j=5_000.0, max_trials=1, recipe={"phases": [phase, longer]}, backbones={"tiny": CHEAPEST})
    record = lab.records()[0]
    assert (record.state, record.reason) == ("complete", "")
    assert record.joules_per_step == pytest.approx(CHEAPEST_J, rel=0.1), "what the cost model learns from"
    assert j_from_kwh(record.train_energy_kwh or 0) == pytest.approx((20 + 10 * 700) * CHEAPEST_J, rel=0.3)
    lab.audited()


def test_development_speakers_who_return_to_training_count_in_the_full_recipe(lab: Lab):
    lab.search(max_trials=1, dataset={"options": {"rejoins": True}})
    record = lab.records()[0]
    # 40 + 20 utterances in batches of 8: 7 steps an epoch.
    assert j_from_kwh(record.train_energy_kwh or 0) == pytest.approx(4 * 7 * CHEAPEST_J, rel=0.03)


def test_pue_multiplies_objective_measurement_and_charge(lab: Lab):
    lab.search(max_trials=1, energy={"pue": 2.0})
    record = lab.records()[0]
    assert record.joules_per_step == pytest.approx(2 * CHEAPEST_J, rel=0.03)
    assert j_from_kwh(record.measured_energy_kwh or 0) == pytest.approx(2 * STEPS * CHEAPEST_J, rel=0.03)
    assert j_from_uj(lab.audited().spent_by_purpose["training"]) == pytest.approx(2 * STEPS * CHEAPEST_J, rel=0.05)


def test_parts_of_the_machine_that_nothing_measures_are_named(lab: Lab):
    lab.plugin.meter.domain = Domain("cpu")
    lab.search(max_trials=1)
    assert "nothing chosen measures dram: their energy is not charged" in lab.notes()
    assert lab.records()[0].meters == {"cpu": "tiny (measured)"}


def test_versions_name_every_component_that_makes_numbers(lab: Lab):
    assert component_versions(lab.config(), lab.plugins) == {
        "dataset tiny": "tiny 0",
        "carbon source static": "greensv 0.1.0",
        "backbone tiny": "tiny 0",
        "meter tiny": "tiny 0",
    }
    assert "meter auto" not in component_versions(lab.config(energy={"meters": ["auto"]}), lab.plugins)


def test_a_dataset_without_its_folder_is_refused(lab: Lab):
    config = lab.config()
    for dataset, message in [
        (DatasetConfig(name="kaldi"), "needs a folder"),
        (DatasetConfig(name="tiny", options={"x": 1}), "dataset.options.x: unknown key"),
    ]:
        with pytest.raises(ConfigError, match=message):
            dataset_arguments(dataclasses.replace(config, dataset=dataset), lab.plugins)
