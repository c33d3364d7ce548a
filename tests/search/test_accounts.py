from pathlib import Path

import pytest

from greensv.energy.books.budget import Charge, this_process
from greensv.search.accounts import SEARCH, account_as_json
from greensv.search.storage import open_storage
from tiny.study import Lab

KWH = 3_600_000_000_000  # microjoules


def charge(purpose: str, energy_uj: int, *, meter: str = "tiny", quality: str = "measured") -> Charge:
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
