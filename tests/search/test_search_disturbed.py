"""Searches in which something goes wrong: diverging, unreadable audio, a broken meter, a lost lease, Ctrl-C."""

import contextlib
import signal
from pathlib import Path

import pytest

from greensv.errors import BudgetError, DataError, MeterError, TrainingError
from greensv.search import metering
from greensv.search.events import Event, Progressed, Stepped, TrialStarted
from greensv.speaker.audio.store import AudioStore
from tiny.study import CHEAPEST, DEAREST, Lab, on, recipe_with
from tiny.work import WORK


def test_a_diverging_training_fails_is_charged_and_the_search_goes_on(lab: Lab, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(WORK, "explodes", False)

    def listen(event: Event) -> None:
        if isinstance(event, TrialStarted):
            WORK.explodes = event.number == 0

    lab.on_event = listen
    lab.search(max_trials=2)
    failed, complete = lab.records()
    assert (failed.state, failed.params, complete.state) == ("failed", CHEAPEST, "complete")
    assert "the training has diverged" in failed.reason
    assert (failed.charged_energy_kwh or 0) > 0
    assert failed.eer is None
    assert lab.finished[0].ended_because == "2 trials were run"
    assert [trial["state"] for _, trial in lab.plugin.told] == ["failed", "complete"]
    lab.audited()


def test_a_recipe_that_diverges_in_the_probe_ends_the_search_and_can_be_mended(lab: Lab):
    with pytest.raises(TrainingError, match="the training has diverged; lower the learning rate of phase 'main'"):
        lab.search(max_trials=1, recipe=recipe_with(learning_rate=1e30, warmup_fraction=0.0))
    assert lab.audited().spent_by_purpose["probe"] > 0
    lab.search(max_trials=1)
    assert lab.records()[0].state == "complete"


def test_audio_that_turns_unreadable_ends_the_search_and_the_candidate_runs_in_the_next(
    lab: Lab, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    lab.search(max_trials=1)
    path = next((tmp_path / "cache").rglob("dev0-0.flac"))
    good = path.read_bytes()
    path.write_bytes(b"not audio")
    with pytest.raises(DataError, match=r"dev0-0\.flac is damaged"):
        lab.search(max_trials=2)
    assert lab.records()[1:2] == [] or lab.records()[1].state == "waiting", "found before any training"
    # A corpus larger than the cache is read as it is needed, and tried once before.
    monkeypatch.setattr(AudioStore, "fill", lambda store, progress, **settings: False)
    with pytest.raises(DataError, match=r"dev0-0\.flac is damaged"):
        lab.search(max_trials=2)
    assert lab.records()[1:2] == [] or lab.records()[1].state == "waiting", "found before any training"
    # Damaged since: found when it is needed.
    monkeypatch.setattr(AudioStore, "try_all", lambda store, progress: None)
    with pytest.raises(DataError, match=r"dev0-0\.flac is damaged"):
        lab.search(max_trials=2)
    assert [(r.state, r.params) for r in lab.records()[:2]] == [("complete", CHEAPEST), ("interrupted", DEAREST)]
    assert "dev0-0.flac" in lab.records()[1].reason
    lab.audited()
    path.write_bytes(good)
    lab.search(max_trials=2)
    assert [(r.state, r.params) for r in lab.records()] == [("complete", CHEAPEST), ("complete", DEAREST)]
    assert not lab.records()[1].reason


def test_a_meter_that_fails_ends_the_search_and_invents_nothing(lab: Lab, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(WORK, "step_sleep_s", 0.05)
    lab.on_event = on(TrialStarted, 1, lambda: setattr(lab.plugin.meter, "failure", "the plug was pulled"))
    with pytest.raises(MeterError, match="the plug was pulled"):
        lab.search(max_trials=3)
    assert lab.records()[0].state == "complete"
    assert lab.records()[1].state == "interrupted"
    lab.plugin.meter.failure = None
    lab.on_event = None
    monkeypatch.setattr(WORK, "step_sleep_s", 0.0)
    lab.search(max_trials=2)
    assert [r.params for r in lab.records() if r.state == "complete"] == [CHEAPEST, DEAREST]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interruption_ends_cleanly_and_the_rerun_runs_the_candidate_again(lab: Lab, number: signal.Signals):
    lab.on_event = on(TrialStarted, 1, lambda: signal.raise_signal(number))
    lab.search(max_trials=3)
    result = lab.finished[0]
    assert result.was_interrupted
    assert result.ended_because == "interrupted; the same command continues"
    records = lab.records()
    assert [record.state for record in records] == ["complete", "interrupted"]
    assert records[1].params == DEAREST
    lab.audited()
    lab.on_event = None
    lab.search(max_trials=3)
    records = lab.records()
    assert [record.state for record in records] == ["complete", "complete", "complete"]
    assert records[1].params == DEAREST
    assert records[2].params not in (CHEAPEST, DEAREST)


def test_a_second_ctrl_c_ends_as_cleanly(lab: Lab):
    def twice() -> None:
        signal.raise_signal(signal.SIGINT)
        signal.raise_signal(signal.SIGINT)

    lab.on_event = on(Stepped, 1, twice)
    with contextlib.suppress(KeyboardInterrupt):
        lab.search(max_trials=3)
    lab.on_event = None
    lab.search(max_trials=2)
    assert [r.params for r in lab.records() if r.state == "complete"] == [CHEAPEST, DEAREST]
    lab.audited()


def test_after_an_interruption_in_the_preparation_the_ends_still_go_first(lab: Lab):
    lab.on_event = on(Progressed, 0, lambda: signal.raise_signal(signal.SIGINT))
    lab.search(max_trials=2)
    assert lab.finished[0].was_interrupted
    assert lab.records() == []
    lab.on_event = None
    lab.search(max_trials=2)
    assert [record.params for record in lab.records()] == [CHEAPEST, DEAREST]


def test_a_lease_closed_by_others_stops_the_process_that_held_it(lab: Lab, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(metering, "FLUSH_INTERVAL_S", 0.02)
    monkeypatch.setattr(WORK, "step_sleep_s", 0.05)

    def reap() -> None:
        study, ledger = lab.open()
        assert ledger.reap(study.study_id, is_alive=lambda holder: False)

    lab.on_event = on(TrialStarted, 1, reap)
    with pytest.raises(BudgetError, match="closed by another one"):
        lab.search(max_trials=3)
    assert [r.state for r in lab.records()[:2]] == ["complete", "running"], "it is somebody else's"
    lab.audited()
