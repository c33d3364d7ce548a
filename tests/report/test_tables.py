import dataclasses
import io

import pytest
from rich.console import Console

from greensv.report.tables import budget_table, data_wait_text, duration_at, kwh, network_name, reasons, trials_table
from greensv.trial_record import TrialRecord

COMPLETE = TrialRecord(
    number=5,
    state="complete",
    params={"block": "basic-2", "width_log2": -3.0},
    summary={"blocks": [1, 2, 1, 1], "channels": [16, 16, 32, 32]},
    eer=0.0512,
    min_dcf=0.4,
    train_energy_kwh=0.5,
    measured_energy_kwh=1e-3,
    charged_energy_kwh=2e-3,
    num_parameters=170_000,
    macs=90_000_000,
)
FAILED = TrialRecord(number=6, state="failed", params={"option": "[/bold]"}, reason="[/bold] diverged")
ACCOUNT = {
    "cap_kwh": 2e-3,
    "spent_kwh": 1e-3,
    "reserved_kwh": 5e-4,
    "overrun_kwh": 0.0,
    "by_purpose": {"training": 8e-4, "probe": 2e-4},
}


def text_of(table: object, *, width: int = 160) -> str:
    console = Console(file=io.StringIO(), width=width, record=True)
    console.print(table)
    return console.export_text()


def test_a_table_of_trials_holds_their_numbers():
    text = text_of(trials_table([COMPLETE], title="Pareto set", knee=5))
    for part in ("Pareto set", "knee 5", "1-2-1-1 × 16-16-32-32", "0.17 M", "5.12", "500 Wh", "1 Wh", "2 Wh"):
        assert part in text


def test_a_table_of_trials_fits_80_columns():
    text = text_of(trials_table([COMPLETE, FAILED], title="Trials"), width=80)
    assert max(map(len, text.splitlines())) <= 80
    assert "5.12" in text
    assert "failed" in text


def test_a_networks_name_with_brackets_is_no_markup():
    assert "option=[/bold]" in text_of(trials_table([FAILED], title="Trials"))


def test_reasons_are_given_for_the_trials_that_have_one():
    assert reasons([COMPLETE, FAILED]) == ["trial 6 failed: [/bold] diverged"]


def test_a_table_of_nothing_is_a_table():
    assert "Trials" in text_of(trials_table([], title="Trials"))


def test_a_network_is_named_by_its_stages_or_its_parameters():
    assert network_name(COMPLETE) == "1-2-1-1 × 16-16-32-32 basic-2"
    assert network_name(COMPLETE, with_block=False) == "1-2-1-1 × 16-16-32-32"
    assert network_name(TrialRecord(number=0, state="waiting", params={"a": 1, "b": 0.12345})) == "a=1 b=0.123"
    assert network_name(TrialRecord(number=0, state="waiting")) == "–"


def test_a_table_of_a_budget_adds_up():
    text = text_of(budget_table(ACCOUNT, title="Budget"))
    rows = {" ".join(line.split()) for line in text.splitlines()}
    assert {
        "cap 2 Wh 100.0 %",
        "spent 1 Wh 50.0 %",
        "reserved 0.5 Wh 25.0 %",
        "left 0.5 Wh 25.0 %",
        "for training 0.8 Wh 40.0 %",
        "for probe 0.2 Wh 10.0 %",
    } <= rows
    assert "beyond the cap" not in text


def test_energy_beyond_the_cap_is_shown_where_there_is_some():
    text = text_of(budget_table({**ACCOUNT, "overrun_kwh": 1e-5, "by_purpose": {}}, title="Budget"))
    assert "beyond the cap 0.01 Wh 0.50 %" in " ".join(text.split())


@pytest.mark.parametrize(("energy_kwh", "text"), [(None, "–"), (0.0, "0 J"), (1e-3, "1 Wh"), (50.0, "50 kWh")])
def test_energies_in_the_unit_that_suits(energy_kwh: float | None, text: str):
    assert kwh(energy_kwh) == text


def test_how_long_an_energy_lasts():
    assert duration_at(7_200.0, 60.0) == "2 min 0 s"
    assert duration_at(7_200.0, 0.0) == "–"


def test_what_was_used_waiting_for_data_is_a_share_of_the_short_training():
    waiting = dataclasses.replace(COMPLETE, data_wait_energy_kwh=4.2e-5, data_wait_s=3.0)
    text = text_of(trials_table([waiting, COMPLETE, FAILED], title="Trials"), width=80)
    assert max(map(len, text.splitlines())) <= 80
    assert "4.2 %" in text
    assert "5.12" in text


PHASES = {"data_wait_energy_kwh": 4e-5, "data_wait_share": 0.05, "data_wait_s": 125.0}


def test_what_was_used_waiting_for_data_is_said_to_be_attributed():
    expected = "waiting for data: 0.04 Wh, 5.0 % of the training's energy (attributed), in 2 min 5 s"
    assert data_wait_text(PHASES) == expected
    text = text_of(budget_table({**ACCOUNT, "training_phases": PHASES}, title="Budget"))
    assert "of training: waiting for data (attributed) 0.04 Wh 2.0 %" in " ".join(text.split())


def test_energies_stand_above_their_uncertainty_and_a_dash_where_it_is_not_known():
    known = dataclasses.replace(
        COMPLETE, train_energy_uncertainty_kwh=0.012, measured_uncertainty_kwh=2.5e-5, charged_uncertainty_kwh=None
    )
    text = text_of(trials_table([known, FAILED], title="Trials"), width=80)
    assert max(map(len, text.splitlines())) <= 80
    for part in ("500 Wh", "±2.4 %", "±2.5 %", "±–", "±: standard uncertainty (68 %)"):
        assert part in text
    assert "±" not in text_of(trials_table([COMPLETE], title="Trials")), "trials of an older greensv"


@pytest.mark.parametrize(("uncertainty", "row"), [(1e-5, "0.01 Wh 0.5 %"), (None, "– –")])
def test_a_budget_shows_the_uncertainty_of_what_is_spent(uncertainty: float | None, row: str):
    text = text_of(budget_table({**ACCOUNT, "uncertainty_kwh": uncertainty}, title="Budget"))
    assert f"spent 1 Wh 50.0 % ± standard uncertainty {row}" in " ".join(text.split())
