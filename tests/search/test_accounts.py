from pathlib import Path

import pytest

from greensv.energy.books.budget import Charge, this_process
from greensv.search.accounts import SEARCH, account_as_json
from greensv.search.storage import open_storage
from tiny.study import Lab

KWH = 3_600_000_000_000  # microjoules


def charge(
    purpose: str, energy_uj: int, *, meter: str = "tiny", quality: str = "measured", uncertainty_uj: int | None = None
) -> Charge:
    return Charge(
        purpose=purpose,  # type: ignore[arg-type]
        trial_number=None,
        started_at=0.0,
        ended_at=1.0,
        meter=meter,
        domain="node",
        quality=quality,  # type: ignore[arg-type]
        energy_uj=energy_uj,
        pue=1.0,
        uncertainty_uj=uncertainty_uj,
    )


def test_an_account_is_told_in_kwh_by_purpose_quality_and_meter(lab: Lab, tmp_path: Path):
    storage, ledger = open_storage(lab.url, create=True)
    assert account_as_json(ledger, "study", SEARCH) is None
    ledger.open_account("study", SEARCH, 10 * KWH)
    lease = ledger.reserve(
        "study", SEARCH, 4 * KWH, purpose="training", trial_number=0, holder=this_process(), ttl_s=60.0
    )
    assert lease is not None
    ledger.charge(lease, [charge("training", 3 * KWH), charge("evaluation", KWH // 2)], peak_power_w=1.0)
    ledger.charge_unreserved("study", SEARCH, [charge("probe", KWH, meter="guess", quality="estimated")])
    assert account_as_json(ledger, "study", SEARCH) == {
        "cap_kwh": pytest.approx(10.0),
        "spent_kwh": pytest.approx(4.5),
        "reserved_kwh": pytest.approx(0.5),
        "overrun_kwh": 0.0,
        "uncertainty_kwh": None,
        "by_purpose": pytest.approx({"training": 3.0, "probe": 1.0, "evaluation": 0.5}),
        "by_quality": pytest.approx({"measured": 3.5, "estimated": 1.0}),
        "by_meter": pytest.approx({"tiny": 3.5, "guess": 1.0}),
    }
    assert list(account_as_json(ledger, "study", SEARCH)["by_purpose"]) == ["training", "probe", "evaluation"]  # type: ignore[index]
    ledger.settle(lease)
    ledger.charge_unreserved("study", SEARCH, [charge("idle", 6 * KWH)])
    found = account_as_json(ledger, "study", SEARCH)
    assert found is not None
    assert (found["spent_kwh"], found["overrun_kwh"]) == (pytest.approx(10.0), pytest.approx(0.5))
    storage.engine.dispose()


def test_what_is_spent_has_an_uncertainty_where_that_of_each_charge_is_known(lab: Lab):
    storage, ledger = open_storage(lab.url, create=True)
    ledger.open_account("study", SEARCH, 4 * KWH)
    # One meter's scale is off alike in all its charges: 0.3 and 0.3 of the first one are 0.6, with 0.8 of another 1.
    charges = [
        charge("training", 3 * KWH, uncertainty_uj=3 * KWH // 10),
        charge("training", 3 * KWH, uncertainty_uj=3 * KWH // 10),  # the most of it beyond the cap
        charge("idle", KWH, meter="guess", uncertainty_uj=8 * KWH // 10),
    ]
    ledger.charge_unreserved("study", SEARCH, charges)
    ledger.open_account("study", SEARCH, 10 * KWH)  # takes the overrun in, with a row that is no new energy
    found = account_as_json(ledger, "study", SEARCH)
    assert found is not None
    assert (found["spent_kwh"], found["uncertainty_kwh"]) == (pytest.approx(7.0), pytest.approx(1.0))
    ledger.charge_unreserved("study", SEARCH, [charge("idle", KWH)])  # as of an older greensv
    found = account_as_json(ledger, "study", SEARCH)
    assert found is not None
    assert found["uncertainty_kwh"] is None
    storage.engine.dispose()
