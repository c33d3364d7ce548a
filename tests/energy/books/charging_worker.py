"""A worker for test_charging: uses 1000 W until it is killed. Prints when it began, in monotonic seconds.

Arguments: the database's URL, the study, its lease in joules, and where charges wait while the database is away.
"""

import sys
import time
from pathlib import Path

from sqlalchemy import create_engine

from greensv.energy.books.budget import this_process
from greensv.energy.books.charging import Charger
from greensv.energy.books.ledger import Ledger
from greensv.energy.meter import Availability, CounterSample, Domain, MeterSession
from greensv.energy.monitoring import Monitor, OpenMeter


class Kilowatt(MeterSession):
    def read(self) -> list[CounterSample]:
        now_s = time.monotonic()
        return [CounterSample(domain=Domain("node"), taken_at_s=now_s, count=round(now_s * 1e9), unit_j=1e-6)]


url, study, lease_j, folder = sys.argv[1:]
ledger = Ledger(create_engine(url))
meter = OpenMeter(
    name="kilowatt", quality="measured", session=Kilowatt(), availability=Availability(domains=(Domain("node"),))
)
with Monitor([meter], interval_s=0.02) as monitor:
    began_s = time.monotonic()
    charger = Charger(monitor, ledger, study_id=study, account="search", flush_interval_s=0.05)
    charger.keep_unwritten_in(Path(folder))
    lease = ledger.reserve(
        study,
        "search",
        int(lease_j) * 1_000_000,
        purpose="training",
        trial_number=9,
        holder=this_process(),
        ttl_s=60.0,
    )
    assert lease is not None
    with charger.hold(lease), charger.purpose("training"):
        print(began_s, flush=True)
        while True:
            charger.check()
            time.sleep(0.01)
