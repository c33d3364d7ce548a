"""Two searches on one machine: together they are charged what its counters show, and no joule twice."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from sqlalchemy import create_engine, select

from greensv.config import EnergyConfig
from greensv.energy.books.ledger import Ledger
from greensv.energy.books.schema import transaction
from greensv.energy.books.tables import shared
from greensv.energy.meter import MeterRequest
from greensv.energy.metering.reading import OpenMeter
from greensv.energy.monitoring import Monitor
from greensv.energy.sharing.sharing import Sharing
from greensv.plugins import load_plugins
from greensv.search.metering import Metering, open_metering
from greensv.search.storage import open_storage
from simulated.powercap_tree import PowercapTree, set_counter
from tiny.study import Lab, study_data

CAP_UJ = 10**12


@pytest.fixture
def ledger(tmp_path: Path) -> Iterator[Ledger]:
    engine = create_engine(f"sqlite:///{tmp_path / 'study.db'}")
    yield Ledger(engine)
    engine.dispose()


@pytest.fixture
def set_package(tmp_path: Path) -> Callable[[int], None]:
    package = PowercapTree(tmp_path / "powercap").add_package(0)
    return lambda count_uj: set_counter(package, count_uj)


@contextmanager
def metering(ledger: Ledger, study_id: str, root: Path, *, is_shared: bool = True) -> Iterator[Metering]:
    ledger.open_account(study_id, "search", CAP_UJ)
    energy = EnergyConfig(meters=("rapl",), options={"rapl": {"root": str(root / "powercap")}}, is_shared=is_shared)
    plugins = load_plugins(third_party=False)
    with open_metering(
        energy, plugins=plugins, ledger=ledger, study_id=study_id, account="search", gpu_uuids=()
    ) as opened:
        yield opened


@pytest.mark.parametrize(("is_shared", "charged_j"), [(True, 0.9), (False, 1.4)])
def test_two_searches_are_charged_each_joule_once(
    is_shared: bool, charged_j: float, ledger: Ledger, tmp_path: Path, set_package: Callable[[int], None]
) -> None:
    with metering(ledger, "one", tmp_path, is_shared=is_shared) as one:
        one.monitor.poll()
        set_package(400_000)
        with metering(ledger, "two", tmp_path, is_shared=is_shared) as two:
            before_j = [sum(r.energy_j for r in m.monitor.poll()) for m in (one, two)]
            assert before_j == pytest.approx([0.4, 0.0])
            # Ever less, so that readings catch up with what was counted on too much.
            for count_uj in (400_000, 800_000, 890_000, 899_000, 900_000):
                set_package(count_uj)
                for opened in (one, two):
                    opened.monitor.poll()
                for opened in (two, one, two):
                    assert opened.sharing is not None
                    opened.sharing.exchange()
            assert one.sharing is not None
            assert one.sharing.is_shared is is_shared
    statements = [ledger.statement(study, "search") for study in ("one", "two")]
    # The time before the first reading is charged at the power since then, which is no matter of this test.
    charged_uj = sum(uj for s in statements for purpose, uj in s.spent_by_purpose.items() if purpose != "startup")
    with transaction(ledger.engine) as connection:
        rows = connection.execute(select(shared)).mappings().all()
    # What the last one to leave had counted on too much.
    beyond_uj = -sum(row["unallotted_uj"] for row in rows)
    assert [row["total_uj"] for row in rows] == ([900_000] if is_shared else [])
    assert 0 <= beyond_uj <= 450_000
    assert charged_uj == pytest.approx(charged_j * 1e6 + beyond_uj, abs=100)  # each charge is rounded up


def test_a_search_beside_another_process_does_not_take_the_load_for_idle_power(lab: Lab) -> None:
    storage, ledger = open_storage(lab.url, create=True)
    beside = OpenMeter(
        name="tiny",
        quality="measured",
        session=lab.plugin.meter.open(MeterRequest()),
        availability=lab.plugin.meter.probe(MeterRequest()),
    )
    with (
        Sharing([beside], ledger.engine, cpu_time_s=lambda: 0.0, interval_s=0.05) as sharing,
        Monitor(sharing.meters, interval_s=0.05),
    ):
        lab.search(max_trials=1, energy={**study_data()["energy"], "idle_s": 0.3})
    storage.engine.dispose()
    assert "idle power is not measured: another process of greensv uses this machine" in lab.notes()
    assert lab.audited().spent_by_quality["attributed"] > 0
