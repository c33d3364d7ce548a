"""What is shown of a search while it runs, on a terminal and elsewhere."""

import io
from collections.abc import Callable

import pytest
from rich.console import Console

from greensv.cli import live
from greensv.cli.live import LiveView, PlainLog, budget_line, trial_line
from greensv.search.events import BudgetMoved, Event, MetersChosen, Noted, Progressed, Stepped, TrialEnded, TrialStarted
from greensv.trial_record import TrialRecord

BUDGET = BudgetMoved(cap_j=7_200.0, spent_j=1_800.0, reserved_j=720.0, power_w=45.0)
STARTED = TrialStarted(
    number=3,
    candidate="resnet [1,1,1,1] × [8,8,16,16]",
    num_parameters=123_456,
    macs=45_600_000,
    expected_j=360.0,
    expected_s=90.0,
)
COMPLETE = TrialRecord(
    number=3,
    state="complete",
    params={"width": 8},
    eer=0.1234,
    train_energy_kwh=1e-3,
    measured_energy_kwh=1e-5,
    charged_energy_kwh=2e-5,
)
FAILED = TrialRecord(number=4, state="failed", reason="[/bold] the loss of step 3 is nan")


def step(number: int, loss: float | None = 1.5) -> Stepped:
    return Stepped(what="trial 3", epoch=1, num_epochs=2, step=number, num_steps=10, loss=loss)


def shown(view_type: Callable[[Console], LiveView | PlainLog], *events: Event) -> str:
    """Everything that is printed, and for a live view its last picture too."""
    console = Console(file=io.StringIO(), record=True, force_terminal=view_type is LiveView, width=120)
    with view_type(console) as view:
        for event in events:
            view(event)
        if isinstance(view, LiveView):
            console.print(view._render())
    return console.export_text()


def test_the_live_view_shows_budget_trial_progress_meters_and_front():
    front = (COMPLETE, TrialRecord(number=0, state="complete", params={"width": 2}, eer=0.3, train_energy_kwh=1e-4))
    text = shown(
        LiveView,
        MetersChosen(lines=("rapl: cpu (measured, ±3%)",)),
        BUDGET,
        TrialEnded(record=COMPLETE, front=front),
        STARTED,
        step(4),
    )
    assert "budget" in text
    assert "spent 0.5 Wh (25%), reserved 0.2 Wh (10%), left 1.3 Wh (65%); 45.0 W, lasts 2 min 0 s" in text
    assert "3: resnet [1,1,1,1] × [8,8,16,16], 123,456 parameters, 0.0456 GMAC; reckoned 0.1 Wh, 1 min 30 s" in text
    assert "trial 3: epoch 1/2, loss 1.500" in text
    assert "rapl: cpu (measured, ±3%)" in text
    assert "12.34 %" in text
    assert "1 Wh" in text
    assert "width=2" in text
    assert "Ctrl-C ends cleanly" in text


def test_the_live_view_begins_before_anything_is_known():
    text = shown(LiveView)
    assert "starting" in text
    assert "opening" in text


def test_the_live_view_shows_long_preparations_and_what_comes_after_a_trial():
    assert "rendering voices" in shown(LiveView, Progressed(what="rendering voices", done=3, total=9))
    text = shown(LiveView, STARTED, TrialEnded(record=FAILED, front=()))
    assert "choosing the next candidate" in text
    assert "trial 4 failed: [/bold] the loss of step 3 is nan" in text, "an error's brackets are no markup"


def test_a_step_without_a_loss_keeps_the_last_one():
    text = shown(LiveView, STARTED, step(1, loss=2.25), step(2, loss=None))
    assert "loss 2.250" in text


@pytest.mark.parametrize("view_type", [LiveView, PlainLog])
def test_sentences_are_printed_as_they_are(view_type):
    assert "a [red]folder[/red] and 50 %" in shown(view_type, Noted(text="a [red]folder[/red] and 50 %"))


def test_the_plain_log_prints_a_line_per_event():
    text = shown(
        PlainLog,
        MetersChosen(lines=("estimate: cpu (estimated)",)),
        BUDGET,
        STARTED,
        step(10),
        TrialEnded(record=COMPLETE, front=(COMPLETE,)),
    )
    assert text.splitlines() == [
        "meter estimate: cpu (estimated)",
        "trial 3: resnet [1,1,1,1] × [8,8,16,16], 123,456 parameters, 0.0456 GMAC; reckoned 0.1 Wh, 1 min 30 s",
        "  trial 3: epoch 1/2, step 10/10, loss 1.500",
        "trial 3: EER 12.34 %, full training 1 Wh, short training used 0.01 Wh (charged 0.02 Wh)",
        budget_line(BUDGET),
    ]


def test_the_plain_log_tells_of_a_long_job_four_times_and_at_its_end():
    events = [Progressed(what="reading", done=done, total=1_000) for done in range(0, 1_001, 10)]
    lines = shown(PlainLog, *events).splitlines()
    assert [line.split(":")[0] for line in lines] == ["reading"] * 5
    assert lines[0] == "reading: 0 of 1,000"
    assert lines[-1] == "reading: 1,000 of 1,000"
    assert shown(PlainLog, Progressed(what="looking", done=0, total=0)) == "looking: 0 of 0\n"


def test_the_plain_log_tells_of_a_training_now_and_then_and_at_its_end(monkeypatch: pytest.MonkeyPatch):
    now_s = 100.0
    monkeypatch.setattr(live.time, "monotonic", lambda: now_s)
    console = Console(file=io.StringIO(), record=True, width=120)
    view = PlainLog(console)
    for number in range(1, 11):
        view(step(number, loss=None if number == 4 else 1.5))
        now_s += 5.0
    steps = [line.split("step ")[1].split("/")[0] for line in console.export_text().splitlines()]
    assert steps == ["1", "5", "8", "10"], "every 15 s, a step without a loss passed over"


def test_the_lines_of_trials_and_budgets():
    assert trial_line(FAILED) == "trial 4 failed: [/bold] the loss of step 3 is nan"
    assert budget_line(BUDGET).startswith("budget 2 Wh: spent 0.5 Wh (25%)")
    idle = BudgetMoved(cap_j=7_200.0, spent_j=0.0, reserved_j=0.0, power_w=0.0)
    assert budget_line(idle).endswith("0.0 W, lasts –")
