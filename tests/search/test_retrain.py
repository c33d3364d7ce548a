"""Retraining in this process: the full recipe, its own account, resumed to the bit, test pairs looked at once."""

import dataclasses
import json
import shutil
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import optuna
import pytest
import soundfile
import torch

from greensv import __version__
from greensv.energy.books.budget import Statement
from greensv.errors import BudgetError, CheckpointError, DataError, MeterError, StudyError
from greensv.search import gate, retrain_run
from greensv.search.events import Event, Progressed, Stepped
from greensv.search.front import knee, pareto_front
from greensv.search.retrain import choose_trials
from greensv.search.workbench import cache_folder
from greensv.speaker.checkpoint import build_network, read_checkpoint
from greensv.speaker.dataset import Corpus, Protocol, ignore_progress
from greensv.speaker.features import Fbank, subtract_mean
from greensv.trial_record import TrialRecord
from greensv.units import j_from_kwh, j_from_uj
from tiny.plugin import TinyOptions
from tiny.study import CHEAPEST_J, FULL_STEPS, Lab
from tiny.work import WORK

STEPS_PER_EPOCH = 5


@pytest.fixture(scope="module")
def searched(tmp_path_factory: pytest.TempPathFactory, young_process: None) -> Iterator[Lab]:
    lab = Lab(folder=tmp_path_factory.mktemp("searched"))
    lab.search(max_trials=3)
    yield lab
    lab.close()


@pytest.fixture
def lab(searched: Lab, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Lab]:
    """A copy of a finished search, for this test alone."""
    monkeypatch.setattr(WORK, "factor", 1.0)
    shutil.copytree(searched.folder / "runs", tmp_path / "runs")
    lab = Lab(folder=tmp_path)
    yield lab
    lab.close()


def folder_of(lab: Lab, number: int) -> Path:
    return lab.folder / "runs" / "tiny" / f"trial-{number:04d}"


def weights(lab: Lab, number: int) -> dict[str, torch.Tensor]:
    return dict(read_checkpoint(folder_of(lab, number))[1])


def account(lab: Lab) -> Statement:
    study, ledger = lab.open()
    ledger.verify(study.study_id)
    found = ledger.statement(study.study_id, "retrain")
    assert found.reserved_uj == 0
    assert found.spent_uj <= found.cap_uj
    return found


def interrupt_at_step(step: int) -> Any:
    def listen(event: Event) -> None:
        if isinstance(event, Stepped) and event.step >= step:
            signal.raise_signal(signal.SIGINT)

    return listen


def test_a_network_is_trained_in_full_scored_and_saved(lab: Lab):
    record = lab.records()[0]
    found = lab.retrain(record)
    assert found.is_complete
    assert not found.was_interrupted
    assert found.ended_because == "all 1 networks are trained and scored"
    (result,) = found.results
    assert json.loads((folder_of(lab, 0) / "result.json").read_text()) == result
    assert (result["trial"], result["num_steps"], result["params"]) == (0, FULL_STEPS, record.params)
    (protocol,) = result["protocols"]
    assert protocol["protocol"] == "test"
    assert (protocol["num_target"], protocol["num_nontarget"]) == (30, 60)
    assert 0 <= protocol["eer_low"] <= protocol["eer_high"] <= 1
    assert j_from_kwh(result["charged_energy_kwh"]) == pytest.approx(FULL_STEPS * CHEAPEST_J, rel=0.05)
    assert result["charged_energy_kwh"] == pytest.approx(result["predicted_train_energy_kwh"], rel=0.05)
    assert result["carbon_g"] > 0
    assert not (folder_of(lab, 0) / "training.pt").exists(), "nothing needs the training's state any more"


def test_the_checkpoint_is_the_retrained_network(lab: Lab):
    lab.retrain(lab.records()[0])
    info, tensors = read_checkpoint(folder_of(lab, 0))
    assert (info.backbone, info.params) == ("tiny", lab.records()[0].params)
    assert (info.provenance["study"], info.provenance["trial"]) == ("tiny", 0)
    assert info.provenance["recipe"]["batch_size"] == 8
    network = build_network(lab.plugins.get("backbone", "tiny"), info, tensors)
    assert network.state_dict().keys() == tensors.keys()


def test_the_checkpoint_knows_the_threshold_of_development_speakers_it_was_not_trained_on(lab: Lab):
    lab.retrain(lab.records()[0])
    info, tensors = read_checkpoint(folder_of(lab, 0))
    network = build_network(lab.plugins.get("backbone", "tiny"), info, tensors)
    dev = lab.plugin.dataset.load(None, TinyOptions(), cache_dir=cache_folder() / "tiny", progress=ignore_progress).dev
    rows = []
    with torch.inference_mode():
        for path in dev.utterances.paths:
            samples = torch.from_numpy(soundfile.read(path, dtype="float32")[0])
            rows.append(network(subtract_mean(Fbank(info.features)(samples[None])[0]), None)[0])
    pairs, embeddings = dev.pairs, torch.stack(rows)
    scores = torch.cosine_similarity(embeddings[pairs.enrolment], embeddings[pairs.test]).numpy()
    assert info.dev is not None
    assert (info.dev.num_target, info.dev.num_nontarget) == (30, 60)
    # The equal error rate lies between the points of the ROC, which are 1/30 and 1/60 apart.
    missed = np.mean(scores[pairs.is_target] < info.dev.eer_threshold)
    accepted = np.mean(scores[~pairs.is_target] >= info.dev.eer_threshold)
    assert missed == pytest.approx(info.dev.eer, abs=1 / 30 + 1e-6)
    assert accepted == pytest.approx(info.dev.eer, abs=1 / 60 + 1e-6)


def test_the_checkpoint_knows_no_threshold_where_development_speakers_were_trained_on(
    lab: Lab, monkeypatch: pytest.MonkeyPatch
):
    load = lab.plugin.dataset.load

    def rejoining(*arguments: Any, **settings: Any) -> Corpus:
        return dataclasses.replace(load(*arguments, **settings), dev_rejoins_training=True)

    monkeypatch.setattr(lab.plugin.dataset, "load", rejoining)
    lab.retrain(lab.records()[0])
    assert read_checkpoint(folder_of(lab, 0))[0].dev is None


def test_retraining_has_an_account_of_its_own(lab: Lab):
    study, ledger = lab.open()
    before = ledger.statement(study.study_id, "search")
    lab.retrain(lab.records()[0], budget_j=500.0)
    assert ledger.statement(study.study_id, "search") == before
    found = account(lab)
    assert j_from_uj(found.cap_uj) == pytest.approx(500.0)
    assert j_from_uj(found.spent_by_purpose["training"]) == pytest.approx(FULL_STEPS * CHEAPEST_J, rel=0.05)
    assert "evaluation" in found.spent_by_purpose


def test_results_become_a_study_beside_the_searchs(lab: Lab):
    lab.retrain(*lab.records()[:2])
    study, _ = lab.open()
    sibling = optuna.load_study(study_name="tiny/retrain", storage=study.optuna._storage)
    assert sibling.metric_names == ["test_eer", "charged_energy_kwh"]
    assert [trial.user_attrs["trial"] for trial in sibling.trials] == [0, 1]
    for trial in sibling.trials:
        assert trial.values[0] == trial.user_attrs["protocols"][0]["eer"]
    assert study.config.name == "tiny", "the sibling is not in the way of --study-name"


def test_the_test_pairs_are_loaded_once_and_only_when_the_training_is_over(lab: Lab):
    last = {"step": 0}

    def listen(event: Event) -> None:
        if isinstance(event, Stepped):
            assert lab.plugin.dataset.num_test_loads == 0
            last["step"] = event.step

    lab.on_event = listen
    lab.retrain(lab.records()[0])
    assert last["step"] == FULL_STEPS
    assert lab.plugin.dataset.num_test_loads == 1


def test_a_second_retraining_does_nothing_again(lab: Lab):
    record = lab.records()[0]
    first = lab.retrain(record)
    spent = account(lab).spent_by_purpose
    lab.events.clear()
    second = lab.retrain(record)
    assert second.results == first.results
    assert second.is_complete
    assert "is retrained and scored already" in lab.notes()
    assert lab.plugin.dataset.num_test_loads == 1
    assert account(lab).spent_by_purpose["training"] == spent["training"]
    study, _ = lab.open()
    assert len(optuna.load_study(study_name="tiny/retrain", storage=study.optuna._storage).trials) == 1


def test_an_interrupted_retraining_continues_to_the_same_bits(lab: Lab, searched: Lab, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("greensv.search.measuring.LOSS_INTERVAL_S", 0.0)
    record = lab.records()[1]
    lab.on_event = interrupt_at_step(7)
    stopped = lab.retrain(record)
    assert stopped.was_interrupted
    assert not stopped.is_complete
    assert stopped.results == []
    assert "the same command continues from the last saved step" in stopped.ended_because
    assert (folder_of(lab, 1) / "training.pt").exists()
    assert lab.plugin.dataset.num_test_loads == 0
    account(lab)

    lab.on_event = None
    lab.events.clear()
    assert lab.retrain(record).is_complete
    assert "trial 1: continuing after step 8" in lab.notes()
    assert next(e.step for e in lab.events if isinstance(e, Stepped)) == 9
    assert lab.plugin.dataset.num_test_loads == 1

    resumed = weights(lab, 1)
    shutil.rmtree(folder_of(lab, 1))
    assert lab.retrain(record).is_complete
    straight = weights(lab, 1)
    assert resumed.keys() == straight.keys()
    for name, tensor in straight.items():
        assert torch.equal(resumed[name], tensor), name


def test_an_interruption_while_the_test_pairs_are_loaded_keeps_the_training(lab: Lab):
    def listen(event: Event) -> None:
        if isinstance(event, Progressed) and lab.plugin.dataset.num_test_loads:
            signal.raise_signal(signal.SIGINT)

    lab.on_event = listen
    record = lab.records()[0]
    # The signal is seen at the next safe point: after the first batch of embeddings.
    assert lab.retrain(record).was_interrupted
    assert not (folder_of(lab, 0) / "result.json").exists()
    lab.on_event = None
    lab.events.clear()
    assert lab.retrain(record).is_complete
    assert not [event for event in lab.events if isinstance(event, Stepped)], "no step is trained again"


@pytest.mark.parametrize("early", [True, False])
def test_a_budget_too_small_saves_the_training_and_a_larger_one_continues(
    lab: Lab, early: bool, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(WORK, "step_sleep_s", 0.03)
    if early:
        monkeypatch.setattr(gate, "FIRST_LOOK_S", 0.0)
        monkeypatch.setattr(gate, "LOOK_INTERVAL_S", 0.0)
    record = lab.records()[1]
    stopped = lab.retrain(record, budget_j=200.0)
    assert not stopped.is_complete
    assert not stopped.was_interrupted
    assert "the training so far is saved, raise --budget-kwh to continue it" in stopped.ended_because
    assert ("the rest of this training" in stopped.ended_because) == early
    assert (folder_of(lab, 1) / "training.pt").exists()
    account(lab)
    with pytest.raises(BudgetError, match="can be raised but not lowered"):
        lab.retrain(record, budget_j=100.0)
    monkeypatch.setattr(WORK, "step_sleep_s", 0.0)
    assert lab.retrain(record, budget_j=2_000.0).is_complete
    assert "continuing after step" in lab.notes()
    account(lab)


@pytest.mark.parametrize("error", [MeterError("gone"), StudyError("gone"), DataError("gone"), KeyboardInterrupt()])
def test_whatever_fails_between_two_steps_the_training_so_far_is_saved(
    lab: Lab, error: BaseException, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr("greensv.search.measuring.LOSS_INTERVAL_S", 0.0)

    def listen(event: Event) -> None:
        if isinstance(event, Stepped) and event.step == 7:
            raise error

    lab.on_event = listen
    with pytest.raises(type(error)):
        lab.retrain(lab.records()[0])
    assert saved_step(lab) == 7
    account(lab)


def test_what_fails_inside_a_step_passes_and_leaves_the_last_good_state(lab: Lab, monkeypatch: pytest.MonkeyPatch):
    def fail_in_the_next_epoch() -> None:
        if state_of(lab).exists():
            raise MeterError("gone")

    monkeypatch.setattr(WORK, "on_step", fail_in_the_next_epoch)
    with pytest.raises(MeterError, match="gone"):
        lab.retrain(lab.records()[0])
    assert saved_step(lab) == STEPS_PER_EPOCH


@pytest.mark.parametrize(("interval_s", "expected"), [(0.0, 3), (1e9, None)])
def test_a_long_epoch_is_saved_in_between(
    lab: Lab, interval_s: float, expected: int | None, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr("greensv.search.measuring.LOSS_INTERVAL_S", 0.0)
    monkeypatch.setattr(retrain_run, "SAVE_INTERVAL_S", interval_s)
    found: list[int | None] = []

    def listen(event: Event) -> None:
        if isinstance(event, Stepped) and event.step == 4:
            found.append(saved_step(lab) if state_of(lab).exists() else None)

    lab.on_event = listen
    lab.retrain(lab.records()[0])
    assert found == [expected]


def test_the_record_of_a_retraining_says_what_computed_it_and_not_the_search(lab: Lab):
    record = dataclasses.replace(lab.records()[0], device="a GPU of yore", versions={"greensv": "0.0.1"})
    (result,) = lab.retrain(record).results
    provenance = read_checkpoint(folder_of(lab, 0))[0].provenance
    for found in (result, provenance):
        assert found["device"].startswith("CPU")
        assert found["precision"] == lab.records()[0].precision
        assert found["num_processes"] == 1
    assert provenance["versions"]["backbone tiny"] == "tiny 0"
    assert provenance["versions"]["greensv"] == __version__


def state_of(lab: Lab) -> Path:
    return folder_of(lab, 0) / "training.pt"


def saved_step(lab: Lab) -> int:
    return int(torch.load(state_of(lab), weights_only=False)["training"]["step"])


def test_a_saved_training_of_something_else_is_refused(lab: Lab, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("greensv.search.measuring.LOSS_INTERVAL_S", 0.0)
    record = lab.records()[0]
    lab.on_event = interrupt_at_step(3)
    lab.retrain(record)
    lab.on_event = None
    with pytest.raises(CheckpointError, match="the saved training is not this one"):
        lab.retrain(dataclasses.replace(record, seed=123))
    account(lab)


def test_development_speakers_return_to_the_training_data(tmp_path: Path):
    lab = Lab(folder=tmp_path)
    lab.search(max_trials=1, dataset={"options": {"rejoins": True}})
    assert {e.total for e in lab.events if isinstance(e, Progressed) and e.what == "decoding audio"} == {40, 20}
    lab.events.clear()
    (result,) = lab.retrain(lab.records()[0]).results
    assert result["num_steps"] == 4 * (60 // 8)
    decoded = [e.total for e in lab.events if isinstance(e, Progressed) and e.what == "decoding audio"]
    assert decoded == [60], "each file once"
    lab.close()


def test_each_condition_of_a_protocol_has_results_of_its_own(lab: Lab, monkeypatch: pytest.MonkeyPatch):
    load_tests = lab.plugin.dataset.load_tests

    def with_conditions(*arguments: Any, **settings: Any) -> tuple[Protocol, ...]:
        (protocol,) = load_tests(*arguments, **settings)
        number = np.arange(len(protocol.pairs), dtype=np.int16)
        pairs = dataclasses.replace(
            protocol.pairs, conditions=np.where(number % 3 == 0, 2, number % 2).astype(np.int16)
        )
        names = ("even", "odd", "third", "none")
        return (dataclasses.replace(protocol, pairs=pairs, condition_names=names),)

    monkeypatch.setattr(lab.plugin.dataset, "load_tests", with_conditions)
    lab.retrain(lab.records()[0])
    (protocol,) = json.loads((folder_of(lab, 0) / "result.json").read_text())["protocols"]
    found = protocol["conditions"]
    assert list(found) == ["even", "odd", "third", "none"]
    assert found["none"] is None
    parts = [found[name] for name in ("even", "odd", "third")]
    for count in ("num_target", "num_nontarget"):
        assert sum(part[count] for part in parts) == protocol[count]
    assert min(part["eer"] for part in parts) <= protocol["eer"] <= max(part["eer"] for part in parts)


def test_models_are_enrolled_with_the_mean_of_their_embeddings(lab: Lab, monkeypatch: pytest.MonkeyPatch):
    load_tests = lab.plugin.dataset.load_tests

    def with_models(*arguments: Any, **settings: Any) -> tuple[Protocol, ...]:
        (protocol,) = load_tests(*arguments, **settings)
        # A model that is one utterance said twice has the embedding of that utterance.
        models = tuple(np.array([index, index], dtype=np.int32) for index in range(len(protocol.utterances)))
        return (protocol, dataclasses.replace(protocol, name="models", models=models))

    monkeypatch.setattr(lab.plugin.dataset, "load_tests", with_models)
    (result,) = lab.retrain(lab.records()[0]).results
    plain, models = result["protocols"]
    assert models["protocol"] == "models"
    assert models["eer"] == plain["eer"]


def test_the_trials_to_retrain_are_one_or_the_knee_or_the_front():
    records = [
        TrialRecord(number=number, state="complete", eer=eer, train_energy_kwh=energy)
        for number, eer, energy in [(0, 0.3, 1.0), (1, 0.1, 2.0), (2, 0.09, 9.0), (3, 0.5, 5.0)]
    ]
    records.append(TrialRecord(number=4, state="failed"))
    front = pareto_front(records)
    assert choose_trials(records, front, trial=3, knee=None) == [records[3]]
    assert choose_trials(records, front, trial=None, knee=knee(front)) == [records[1]]
    assert choose_trials(records, front, trial=None, knee=None) == records[:3]
    with pytest.raises(StudyError, match="there is no trial 9; completed trials: 0, 1, 2, 3"):
        choose_trials(records, front, trial=9, knee=None)
    with pytest.raises(StudyError, match="trial 4 is failed and cannot be retrained"):
        choose_trials(records, front, trial=4, knee=None)
    with pytest.raises(StudyError, match="no completed trial yet"):
        choose_trials([], [], trial=None, knee=None)
