"""A retraining that was interrupted goes on under the same corrections of the meters, or says that it does not."""

import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from greensv.energy.baseline.gains import Gain, remove_gains, store_gains
from greensv.energy.meter import Domain
from greensv.errors import StudyError
from greensv.search import retrain, retrain_state
from greensv.search.events import Event, Stepped
from greensv.search.retrain_state import changed_corrections
from tiny.study import Lab


@pytest.fixture
def lab(tmp_path: Path, young_process: None, monkeypatch: pytest.MonkeyPatch) -> Iterator[Lab]:
    """A study searched on another machine, whose retraining was interrupted on this one."""
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "data"))
    lab = Lab(folder=tmp_path)
    lab.search(max_trials=1)
    monkeypatch.setattr(retrain, "this_host", lambda: "not the search's")

    def interrupt(event: Event) -> None:
        if isinstance(event, Stepped) and event.step >= 3:
            signal.raise_signal(signal.SIGINT)

    lab.on_event = interrupt
    assert lab.retrain(lab.records()[0]).was_interrupted
    lab.on_event = None
    yield lab
    lab.close()


def correct(factor: float) -> None:
    store_gains(
        [Gain(meter="tiny", domain=Domain("node"), factor=factor, uncertainty=0.01, against="x", measured_at="now")]
    )


def test_a_continuation_under_another_correction_is_refused_where_the_training_began(lab: Lab):
    correct(1.043)
    was_now = r"node: tiny \(measured\) when this training began, tiny \(measured, × 1\.043\) now"
    with pytest.raises(StudyError, match=was_now) as refused:
        lab.retrain(lab.records()[0])
    assert "training.pt to train it anew" in str(refused.value)
    remove_gains()
    (result,) = lab.retrain(lab.records()[0]).results
    assert "earlier_meters" not in result
    assert "its training so far was measured" not in lab.notes()


def test_another_machine_may_continue_under_its_own_correction_and_the_result_says_so(
    lab: Lab, monkeypatch: pytest.MonkeyPatch
):
    correct(1.043)
    monkeypatch.setattr(retrain_state, "this_host", lambda: "elsewhere")
    (result,) = lab.retrain(lab.records()[0]).results
    assert (
        "trial 0: its training so far was measured on another machine by tiny (measured) for node; "
        "the rest is by tiny (measured, × 1.043) for node"
    ) in lab.notes()
    assert result["meters"] == {"node": "tiny (measured, × 1.043)"}
    assert result["earlier_meters"] == [{"node": "tiny (measured)"}]


def test_only_the_correction_of_the_same_meter_counts_as_changed():
    before = {"cpu:0": "rapl (measured, × 1.03)", "dram:0": "rapl (measured)", "gpu:GPU-1": "nvml (measured)"}
    assert changed_corrections(before, before, when="before") == []
    now = {"cpu:0": "rapl (measured, × 1.01)", "dram:0": "estimate (estimated)", "gpu:GPU-2": "nvml (measured, × 2)"}
    (line,) = changed_corrections(before, now, when="before")
    assert line == "  meter of cpu:0: rapl (measured, × 1.03) before, rapl (measured, × 1.01) now"
