"""A worker for test_sharing_processes: meters a powercap tree that others meter too, one step for each line it is told.

Arguments: the database's URL and the tree's root. Lines: `cpu SECONDS` sets its CPU time, `poll`, `exchange`, `leave`.
After each line it prints the microjoules that each domain reads, by name.
"""

import itertools
import sys
from pathlib import Path

from sqlalchemy import create_engine

from greensv.builtin.meters.rapl import RaplMeter, RaplOptions
from greensv.energy.books.schema import create_tables
from greensv.energy.meter import MeterRequest
from greensv.energy.metering.reading import OpenMeter
from greensv.energy.monitoring import Monitor
from greensv.energy.sharing.sharing import Sharing

url, root = sys.argv[1:]
engine = create_engine(url)
create_tables(engine)
request = MeterRequest(options=RaplOptions(root=str(Path(root))))
rapl = RaplMeter()
about, session = rapl.probe(request), rapl.open(request)
meter = OpenMeter(name=rapl.name, quality=rapl.quality, session=session, availability=about)
cpu = {"time_s": 0.0}
with (
    Sharing([meter], engine, cpu_time_s=lambda: cpu["time_s"], interval_s=None) as sharing,
    Monitor(sharing.meters, interval_s=3600.0) as monitor,
):
    for line in itertools.chain(["start"], iter(sys.stdin.readline, "")):
        match line.split():
            case ["cpu", seconds]:
                cpu["time_s"] = float(seconds)
            case ["poll"]:
                monitor.poll()
            case ["exchange"]:
                sharing.exchange()
            case ["leave"]:
                sharing.leave()
                monitor.poll()
        readings = sorted(monitor.known_totals(), key=lambda reading: reading.domain)
        print(*(f"{r.domain}={round(r.energy_j * 1e6)}={r.quality}" for r in readings), flush=True)
engine.dispose()
