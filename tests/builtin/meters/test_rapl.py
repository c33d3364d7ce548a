import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from greensv.builtin.meters.powercap import availability, find_zones
from greensv.builtin.meters.rapl import RaplMeter, RaplOptions
from greensv.energy.meter import CounterSample, Domain, MeterRequest
from greensv.errors import MeterError
from greensv.testing.meter_contract import MeterContract
from simulated.powercap_tree import DRAM_RANGE_UJ, PACKAGE_RANGE_UJ, PowercapTree, set_counter

NOBODY = 65534


@pytest.fixture
def tree(tmp_path: Path) -> PowercapTree:
    return PowercapTree(tmp_path / "powercap")


def domains(tree: PowercapTree) -> list[str]:
    return [str(domain) for domain in availability(tree.root, frozenset())[0].domains]


def request(tree: PowercapTree) -> MeterRequest:
    return MeterRequest(options=RaplOptions(root=str(tree.root)))


def two_sockets(tree: PowercapTree) -> list[Path]:
    zones = []
    for socket in (0, 1):
        package = tree.add_package(socket)
        zones += [package, tree.add_part(package, 0, "core"), tree.add_part(package, 1, "dram")]
    tree.add_package(2, "psys")
    return zones


@contextmanager
def truncated(*zones: Path) -> Iterator[None]:
    for zone in zones:
        os.truncate(zone / "energy_uj", 0)
    yield
    for zone in zones:
        set_counter(zone, 1)


class TestRaplContract(MeterContract):
    @pytest.fixture
    def meter(self) -> RaplMeter:
        return RaplMeter()

    @pytest.fixture(autouse=True)
    def _zone(self, tree: PowercapTree) -> None:
        self.package = tree.add_package(0)

    @pytest.fixture
    def meter_request(self, tree: PowercapTree) -> MeterRequest:
        return request(tree)

    @contextmanager
    def lost_hardware(self) -> Iterator[None]:
        with truncated(self.package):
            yield


def test_packages_and_memory_are_read_and_never_psys_core_or_mmio(tree):
    package, core, dram, *_ = two_sockets(tree)
    mmio = tree.root / "intel-rapl-mmio:0"
    mmio.mkdir()
    (mmio / "name").write_text("package-0\n")
    set_counter(package, 5_000_000)
    set_counter(core, 3_000_000)
    set_counter(dram, 7)
    session = RaplMeter().open(request(tree))
    samples = {str(sample.domain): sample for sample in session.read()}
    session.close()
    assert list(samples) == ["cpu:0", "cpu:1", "dram:0", "dram:1"]
    assert all(isinstance(sample, CounterSample) and sample.unit_j == 1e-6 for sample in samples.values())
    assert [sample.count for sample in samples.values()] == [5_000_000, 0, 7, 0]
    assert [sample.range_count for sample in samples.values()] == [PACKAGE_RANGE_UJ] * 2 + [DRAM_RANGE_UJ] * 2


def test_zones_without_the_links_beside_them_are_found(tree):
    two_sockets(tree)
    tree.remove_links()
    assert domains(tree) == ["cpu:0", "cpu:1", "dram:0", "dram:1"]


def test_zones_side_by_side_and_not_nested_are_found(tmp_path):
    for folder, name in (("intel-rapl:0", "package-0"), ("intel-rapl:0:0", "dram")):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "name").write_text(f"{name}\n")
        (tmp_path / folder / "energy_uj").write_text("1\n")
    assert [str(zone.domain) for zone in find_zones(tmp_path)] == ["cpu:0", "dram:0"]


def test_a_processor_without_a_memory_zone_is_measured_without_memory(tree):
    tree.add_part(tree.add_package(0), 0, "core")  # as on AMD
    assert domains(tree) == ["cpu:0"]


def test_dies_with_counters_of_their_own_are_all_counted(tree):
    first, second = tree.add_package(0, "package-0-die-0"), tree.add_package(1, "package-0-die-1")
    set_counter(first, 100_000_000)
    set_counter(second, 150_000_000)
    assert domains(tree) == ["cpu:0-die-0", "cpu:0-die-1"]


def test_dies_that_mirror_one_counter_are_counted_once(tree):
    first, second = tree.add_package(0, "package-0-die-0"), tree.add_package(1, "package-0-die-1")
    set_counter(first, 100_000_000)
    set_counter(second, 100_000_900)
    about, _ = availability(tree.root, frozenset())
    assert about.domains == (Domain("cpu", "0-die-0"),)
    assert about.notes == ("cpu:0-die-1 shows the counter of cpu:0-die-0 and is left out",)


def test_two_sockets_with_equal_counters_are_no_mirrors(tree):
    two_sockets(tree)  # all at 0
    assert domains(tree) == ["cpu:0", "cpu:1", "dram:0", "dram:1"]


def test_a_zone_without_a_range_is_noted_and_read_without_one(tree):
    tree.add_package(0, range_uj=None)
    about, zones = availability(tree.root, frozenset())
    assert zones[0].range_uj is None
    assert "has no max_energy_range_uj" in about.notes[0]


def test_a_machine_without_zones_says_why_and_what_to_do(tmp_path):
    for root in (tmp_path, tmp_path / "missing"):
        about = RaplMeter().probe(MeterRequest(options=RaplOptions(root=str(root))))
        assert about.reason == f"no RAPL zones under {root}"
        assert "modprobe" in (about.remedy or "")


@contextmanager
def as_nobody() -> Iterator[None]:
    if os.geteuid() != 0:
        yield
        return
    os.seteuid(NOBODY)
    try:
        yield
    finally:
        os.seteuid(0)


def test_counters_that_only_root_may_read_say_how_to_allow_it():
    with tempfile.TemporaryDirectory() as folder:
        Path(folder).chmod(0o755)
        tree = PowercapTree(Path(folder) / "powercap")
        zone = tree.add_package(0)
        (zone / "energy_uj").chmod(0o400 if os.geteuid() == 0 else 0)
        with as_nobody():
            about = RaplMeter().probe(request(tree))
            with pytest.raises(MeterError, match=r"no permission to read .*energy_uj.*chmod"):
                RaplMeter().open(request(tree))
    assert "no permission" in (about.reason or "")
    assert "chmod a+r" in (about.remedy or "")
    assert "udev" in (about.remedy or "")


def test_reading_again_sees_the_counter_move(tree):
    zone = tree.add_package(0)
    session = RaplMeter().open(request(tree))
    counts = []
    for count in (1, 2, PACKAGE_RANGE_UJ, 0):
        set_counter(zone, count)
        counts += [sample.count for sample in session.read()]
    session.close()
    assert counts == [1, 2, PACKAGE_RANGE_UJ, 0]


def test_a_counter_that_fails_while_it_is_read_names_its_file(tree, monkeypatch):
    zone = tree.add_package(0)
    session = RaplMeter().open(request(tree))

    def fail(*_: object) -> bytes:
        raise OSError(19, "No such device")

    monkeypatch.setattr("greensv.builtin.meters.rapl.os.pread", fail)
    with pytest.raises(MeterError, match=f"{zone.name}/energy_uj cannot be read: No such device"):
        session.read()
    session.close()


def test_a_zone_that_vanishes_while_opening_leaves_no_file_open(tree, monkeypatch):
    zones = [tree.add_package(number) for number in (0, 1)]
    about, found = availability(tree.root, frozenset())
    (zones[1] / "energy_uj").unlink()
    monkeypatch.setattr("greensv.builtin.meters.rapl.availability", lambda *_: (about, found))
    before = os.listdir("/proc/self/fd")  # noqa: PTH208
    with pytest.raises(MeterError, match="No such file"):
        RaplMeter().open(request(tree))
    assert len(os.listdir("/proc/self/fd")) == len(before)  # noqa: PTH208
