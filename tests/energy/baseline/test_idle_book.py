import dataclasses
from datetime import UTC, datetime, timedelta

import pytest

from greensv.energy.baseline.idle import IdleBaseline, IdlePower
from greensv.energy.baseline.idle_book import idle_baselines, net_account, record_idle
from greensv.energy.books.budget import Charge, Holder
from greensv.energy.books.ledger import Ledger
from greensv.energy.books.schema import transaction

NOON = datetime(2026, 11, 21, 12, tzinfo=UTC)
J = 1_000_000


def idle_power(**changes) -> IdlePower:
    power = IdlePower(
        host="node7", meter="rapl", domain="cpu:0", power_w=20.0, uncertainty_w=0.5, duration_s=30.0, measured_at=NOON
    )
    return dataclasses.replace(power, **changes)


def charge(**changes) -> Charge:
    made = Charge(
        purpose="training",
        trial_number=0,
        started_at=0.0,
        ended_at=10.0,
        meter="rapl",
        domain="cpu:0",
        quality="measured",
        energy_uj=500 * J,
        pue=1.0,
    )
    return dataclasses.replace(made, **changes)


@pytest.fixture
def ledger(engine) -> Ledger:
    ledger = Ledger(engine)
    ledger.open_account("study", "search", 10_000 * J)
    return ledger


def reserve(ledger: Ledger, host: str):
    lease = ledger.reserve(
        "study",
        "search",
        1000 * J,
        purpose="training",
        trial_number=0,
        holder=Holder(host=f"{host}/pid:[4026531836]", pid=1, process_started_at=0.0),
        ttl_s=60.0,
    )
    assert lease is not None
    return lease


def test_a_correction_is_kept_with_the_idle_power(ledger: Ledger):
    corrected = idle_power(gain=1.0431)
    with transaction(ledger.engine) as connection:
        record_idle(connection, "study", [idle_power(), corrected])
        assert idle_baselines(connection, "study") == {"node7": IdleBaseline(powers=(corrected,))}


def test_the_latest_idle_power_of_each_machines_domain_is_in_force(ledger: Ledger):
    later = idle_power(power_w=21.0, measured_at=NOON + timedelta(hours=1))
    other = idle_power(host="node8", power_w=90.0)
    with transaction(ledger.engine) as connection:
        assert idle_baselines(connection, "study") == {}
        record_idle(connection, "study", [idle_power(), other])
        record_idle(connection, "study", [later])
        record_idle(connection, "other", [idle_power(power_w=5.0)])
        found = idle_baselines(connection, "study")
    assert found == {"node7": IdleBaseline(powers=(later,)), "node8": IdleBaseline(powers=(other,))}


def test_an_account_is_shown_gross_and_net_by_purpose(ledger: Ledger):
    lease = reserve(ledger, "node7")
    charges = [
        charge(),
        charge(purpose="idle", energy_uj=400 * J, ended_at=20.0),
        charge(purpose="report", energy_uj=300 * J, ended_at=5.0, pue=1.5),
    ]
    ledger.charge(lease, charges, peak_power_w=100.0)
    with transaction(ledger.engine) as connection:
        assert net_account(connection, "study", "search") is None
        record_idle(connection, "study", [idle_power()])
        found = net_account(connection, "study", "search")
    assert found is not None
    assert found.gross_j == pytest.approx(1200.0)
    expected = {"training": 500 - 200, "idle": 0.0, "report": 300 - 1.5 * 100}
    assert found.net_j_by_purpose == pytest.approx(expected)
    assert found.net_j == pytest.approx(450.0)
    assert found.without_baseline_j == 0


def test_what_has_no_idle_power_is_in_no_net_figure(ledger: Ledger):
    ledger.charge(reserve(ledger, "node7"), [charge(), charge(domain="dram:0")], peak_power_w=0.0)
    ledger.charge(reserve(ledger, "node9"), [charge()], peak_power_w=0.0)
    with transaction(ledger.engine) as connection:
        record_idle(connection, "study", [idle_power()])
        found = net_account(connection, "study", "search")
    assert found is not None
    assert (found.gross_j, found.net_j, found.without_baseline_j) == pytest.approx((1500.0, 300.0, 1000.0))


def test_a_charge_without_a_lease_is_the_only_machines(ledger: Ledger):
    ledger.charge_unreserved("study", "search", [charge()])
    with transaction(ledger.engine) as connection:
        record_idle(connection, "study", [idle_power()])
        one = net_account(connection, "study", "search")
        record_idle(connection, "study", [idle_power(host="node8")])
        two = net_account(connection, "study", "search")
    assert one is not None
    assert two is not None
    assert (one.net_j, one.without_baseline_j) == (300.0, 0.0)
    assert (two.net_j, two.without_baseline_j) == (0.0, 500.0)


def test_an_overrun_that_moves_under_the_cap_counts_once(engine):
    ledger = Ledger(engine)
    ledger.open_account("study", "search", 200 * J)
    ledger.charge_unreserved("study", "search", [charge()])
    ledger.open_account("study", "search", 1000 * J)
    with transaction(ledger.engine) as connection:
        record_idle(connection, "study", [idle_power()])
        found = net_account(connection, "study", "search")
    assert found is not None
    assert (found.gross_j, found.net_j) == (500.0, 300.0)
