"""What the ledger lacks of a process that is killed at any moment, and whether its lease covers that.

    uv run python benchmarks/energy_sigkill.py

A process writes a powercap tree each millisecond after a power that is known: random bursts. Victims meter it with the
real `rapl` meter, monitor, charger and ledger, at the intervals of `greensv search`, several at a time in one SQLite
file; each holds a lease as a trial does. Each is killed by SIGKILL at a random moment within 10 s of taking its lease.
What the ledger lacks is the true energy from the victim's first reading to its death, less what was charged by then; in
seconds, the time before its death in which that much was used. Then the lease is reaped, some at once and some seconds
later: what is assumed then should be no less than what was lacking. Prints a Markdown report.
"""

import argparse
import os
import platform
import random
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from sqlalchemy import Engine, create_engine, select
from watched import machine

from greensv.builtin.meters.rapl import RaplMeter, RaplOptions
from greensv.energy.books.budget import is_alive, this_process
from greensv.energy.books.charging import Charger
from greensv.energy.books.ledger import Ledger
from greensv.energy.books.schema import transaction
from greensv.energy.books.tables import charges, leases
from greensv.energy.meter import MeterRequest, MeterSession, Sample
from greensv.energy.metering.reading import OpenMeter
from greensv.energy.monitoring import Monitor
from greensv.units import j_from_uj, uj_from_j

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

from simulated.powercap_tree import PACKAGE_RANGE_UJ, PowercapTree, set_counter
from simulated.powers import PowerCurve, bursts

ACCOUNT = "search"
LEASE_J = 10_000.0
INTERVAL_S, FLUSH_INTERVAL_S, TTL_S = 1.0, 2.0, 60.0
LOW_W, HIGH_W = 60.0, 200.0
LIVES_AT_MOST_S = 10.0
REAPED_WITHIN_S = 5.0
MOST_LACKING_S = 5.0
CURVE_LENGTH_S = 3600.0
FIRST_POWER_S = 1.1 * INTERVAL_S
"""A victim that lived no longer had not told its power."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """What became of one victim."""

    lived_s: float
    true_j: float
    charged_j: float
    lacking_s: float
    lease_left_j: float
    reaped_j: float

    @property
    def lacking_j(self) -> float:
        return self.true_j - self.charged_j


def power(seed: int) -> PowerCurve:
    rng = random.Random(seed)
    return bursts(rng, low_w=LOW_W, high_w=HIGH_W, mean_low_s=1.5, mean_high_s=1.5, length_s=CURVE_LENGTH_S)


def write_counter(zone: Path, seed: int, from_s: float) -> None:
    """Writes the counter until killed; at the monotonic time `from_s` it stands at 0."""
    curve = power(seed)
    while True:
        set_counter(zone, round(curve.energy_j(time.monotonic() - from_s) * 1e6) % PACKAGE_RANGE_UJ)
        time.sleep(0.001)


class Watched(MeterSession):
    """Remembers the first sample of a session."""

    def __init__(self, session: MeterSession) -> None:
        self._session = session
        self.first: Sample | None = None

    def read(self) -> Sequence[Sample]:
        samples = self._session.read()
        self.first = self.first or samples[0]
        return samples

    def close(self) -> None:
        self._session.close()


def be_metered(url: str, study: str, root: str) -> None:
    """Uses energy until killed. Prints when it took its first reading, then when it has taken its lease."""
    request, rapl = MeterRequest(options=RaplOptions(root=root)), RaplMeter()
    session = Watched(rapl.open(request))
    meter = OpenMeter(name=rapl.name, quality=rapl.quality, session=session, availability=rapl.probe(request))
    ledger = Ledger(create_engine(url))
    with Monitor([meter], interval_s=INTERVAL_S) as monitor:
        assert session.first is not None
        charger = Charger(monitor, ledger, study_id=study, account=ACCOUNT, flush_interval_s=FLUSH_INTERVAL_S)
        lease = ledger.reserve(
            study,
            ACCOUNT,
            uj_from_j(LEASE_J),
            purpose="training",
            trial_number=0,
            holder=this_process(),
            ttl_s=TTL_S,
        )
        assert lease is not None
        with charger.hold(lease), charger.purpose("training"):
            print(session.first.taken_at_s, flush=True)
            while True:
                charger.check()
                time.sleep(0.05)


def kill_one(number: int, ledger: Ledger, root: Path, curve: PowerCurve, from_s: float) -> Outcome:
    rng, study = random.Random(number), f"victim-{number}"
    ledger.open_account(study, ACCOUNT, uj_from_j(10 * LEASE_J))
    url = ledger.engine.url.render_as_string(hide_password=False)
    with subprocess.Popen(
        [sys.executable, __file__, "victim", url, study, str(root)], stdout=subprocess.PIPE
    ) as victim:
        assert victim.stdout is not None
        began_s = float(victim.stdout.readline())
        time.sleep(rng.uniform(0, LIVES_AT_MOST_S))
        os.kill(victim.pid, signal.SIGKILL)
        victim.wait()
        died_s = time.monotonic()
    charged_j, lease_left_j = books(ledger.engine, study)
    time.sleep(rng.choice((0.0, rng.uniform(0, REAPED_WITHIN_S))))
    (reaped,) = ledger.reap(study, is_alive=is_alive)
    until_j = curve.energy_j(began_s - from_s) + charged_j
    return Outcome(
        lived_s=died_s - began_s,
        true_j=curve.energy_j(died_s - from_s) - curve.energy_j(began_s - from_s),
        charged_j=charged_j,
        lacking_s=died_s - from_s - when(curve, until_j),
        lease_left_j=lease_left_j,
        reaped_j=j_from_uj(reaped.charged_uj),
    )


def books(engine: Engine, study: str) -> tuple[float, float]:
    """Returns what was charged to a study and what its lease has left, in joules."""
    with transaction(engine) as connection:
        spent_uj = sum(connection.execute(select(charges.c.energy_uj).where(charges.c.study_id == study)).scalars())
        left_uj = connection.execute(select(leases.c.left_uj).where(leases.c.study_id == study)).scalar_one()
    return j_from_uj(spent_uj), j_from_uj(left_uj)


def when(curve: PowerCurve, energy_j: float) -> float:
    """Returns the time at which a curve's integral reaches an energy."""
    low_s, high_s = 0.0, CURVE_LENGTH_S
    for _ in range(60):
        middle_s = (low_s + high_s) / 2
        low_s, high_s = (middle_s, high_s) if curve.energy_j(middle_s) < energy_j else (low_s, middle_s)
    return low_s


def report(outcomes: Sequence[Outcome]) -> str:
    def row(name: str, values: Sequence[float], digits: int) -> str:
        return (
            f"| {name} | {statistics.median(values):.{digits}f} | {min(values):.{digits}f} | {max(values):.{digits}f} |"
        )

    covered = sum(o.lease_left_j >= o.lacking_j for o in outcomes)
    within = sum(o.lacking_s <= MOST_LACKING_S for o in outcomes)
    short = [o for o in outcomes if o.reaped_j < o.lacking_j]
    early = [o for o in short if o.lived_s <= FIRST_POWER_S]
    late = [o for o in short if o.lived_s > FIRST_POWER_S]
    lines = [
        f"{machine()}; {platform.system()} {platform.release()}, Python {platform.python_version()}; one run.",
        "",
        f"| of {len(outcomes)} victims | median | least | most |",
        "| --- | ---: | ---: | ---: |",
        row("lived, s", [o.lived_s for o in outcomes], 1),
        row("used in truth, J", [o.true_j for o in outcomes], 0),
        row("lacking in the ledger, s", [o.lacking_s for o in outcomes], 2),
        row("lacking in the ledger, J", [o.lacking_j for o in outcomes], 0),
        row("left of the lease, J", [o.lease_left_j for o in outcomes], 0),
        row("assumed when it is reaped, J", [o.reaped_j for o in outcomes], 0),
        "",
        f"- The ledger lacks at most the last {MOST_LACKING_S:g} s: {within} of {len(outcomes)}.",
        f"- The lease covers what it lacks: {covered} of {len(outcomes)}.",
        f"- What reaping assumes is at least what was lacking: {len(outcomes) - len(short)} of {len(outcomes)}. It is "
        f"never more than the lease: {sum(o.reaped_j <= o.lease_left_j for o in outcomes)} of {len(outcomes)}.",
        f"- Of the others, {len(early)} were killed before the first metering interval had passed, when no power is "
        f"known and none is assumed (short by {most_short_j(early):.0f} J at most), and {len(late)} at a higher power "
        f"than in any interval before (short by {most_short_j(late):.0f} J at most).",
    ]
    return "\n".join(lines)


def most_short_j(outcomes: Sequence[Outcome]) -> float:
    return max((o.lacking_j - o.reaped_j for o in outcomes), default=0.0)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--victims", type=int, default=100)
    parser.add_argument("--at-a-time", type=int, default=6)
    parser.add_argument("--seed", type=int, default=1)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        tree = PowercapTree(Path(folder) / "powercap")
        zone = tree.add_package(0)
        from_s = time.monotonic()
        ledger = Ledger(create_engine(f"sqlite:///{folder}/study.db"))
        command = [sys.executable, __file__, "writer", str(zone), str(arguments.seed), str(from_s)]
        with subprocess.Popen(command) as writer:
            try:
                while (zone / "energy_uj").read_text() == f"{0:012d}\n":
                    time.sleep(0.01)
                curve = power(arguments.seed)
                with ThreadPoolExecutor(arguments.at_a_time) as pool:
                    outcomes = list(
                        pool.map(lambda n: kill_one(n, ledger, tree.root, curve, from_s), range(arguments.victims))
                    )
            finally:
                writer.kill()
        ledger.engine.dispose()
    print(report(outcomes))


if __name__ == "__main__":
    match sys.argv[1:]:
        case ["victim", url, study, root]:
            be_metered(url, study, root)
        case ["writer", zone, seed, from_s]:
            write_counter(Path(zone), int(seed), float(from_s))
        case _:
            main()
