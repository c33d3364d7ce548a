import dataclasses
from datetime import UTC, datetime
from pathlib import Path

import pytest
from sqlalchemy import create_engine, update

from greensv.energy.books.ledger import Ledger
from greensv.energy.books.schema import transaction
from greensv.energy.books.tables import windows
from greensv.energy.books.window_book import WindowTotal, window_totals
from greensv.energy.meter import Domain
from greensv.energy.metering.reading import Reading
from greensv.energy.metering.window import EnergyWindow

NODE = Reading(domain=Domain("node"), meter="ipmi", quality="measured", energy_j=100.0, uncertainty_j=4.0)
CPU = Reading(
    domain=Domain("cpu", "0"), meter="rapl", quality="measured", energy_j=60.0, uncertainty_j=3.0, role="part"
)
GUESS = Reading(
    domain=Domain("cpu"), meter="estimate", quality="estimated", energy_j=80.0, uncertainty_j=40.0, role="beside"
)
WINDOW = EnergyWindow(
    name="training", started_at=datetime.now(UTC), duration_s=10.0, readings=(NODE,), others=(CPU, GUESS)
)


@pytest.fixture
def ledger(tmp_path: Path) -> Ledger:
    return Ledger(create_engine(f"sqlite:///{tmp_path / 'books.db'}"))


def totals(ledger: Ledger) -> tuple[WindowTotal, ...]:
    with transaction(ledger.engine) as connection:
        return window_totals(connection, "study", "search")


def test_windows_of_a_trial_add_up_by_meter_and_domain_with_the_rest_of_a_node(ledger: Ledger):
    for _ in range(2):
        ledger.record_window("study", "search", WINDOW, trial_number=1)
    ledger.record_window("study", "search", dataclasses.replace(WINDOW, name="steady training"), trial_number=1)
    ledger.record_window("study", "search", WINDOW)
    ledger.record_window("study", "retrain", WINDOW, trial_number=1)
    found = [(t.trial_number, t.meter, t.domain, t.role, t.quality, t.duration_s, t.energy_j) for t in totals(ledger)]
    assert found == [
        (1, "ipmi", "node", "charged", "measured", 20.0, 200.0),
        (1, "rapl", "cpu:0", "part", "measured", 20.0, 120.0),
        (1, "estimate", "cpu", "beside", "estimated", 20.0, 160.0),
        (1, "ipmi - rapl", "rest of node", "rest", "attributed", 20.0, 80.0),
    ]
    # One meter's scale is off alike in both windows; the rest is as uncertain as both meters together: 8 and 6.
    assert [total.uncertainty_j for total in totals(ledger)] == pytest.approx([8.0, 6.0, 80.0, 10.0])


def test_windows_of_an_older_greensv_were_charged_and_have_no_uncertainty(ledger: Ledger):
    ledger.record_window("study", "search", dataclasses.replace(WINDOW, others=()), trial_number=0)
    with transaction(ledger.engine) as connection:
        connection.execute(update(windows).values(role=None, uncertainty_uj=None))
    (total,) = totals(ledger)
    assert (total.role, total.energy_j, total.uncertainty_j) == ("charged", 100.0, None)


def test_parts_that_were_metered_for_another_time_have_no_rest(ledger: Ledger):
    ledger.record_window("study", "search", WINDOW, trial_number=0)
    ledger.record_window("study", "search", dataclasses.replace(WINDOW, others=()), trial_number=0)
    assert {total.role for total in totals(ledger)} == {"charged", "part", "beside"}
