"""What is charged, what is a part of it, and what stands beside it."""

import pytest

from greensv.energy.meter import Domain
from greensv.energy.monitoring import Monitor
from greensv.errors import MeterError
from simulated.scripted import CPU, Counter, ScriptedClock, ScriptedSession, open_scripted

NODE = Domain("node")


class Machine:
    """A node that is charged; its CPU, a part of it; and a meter beside ours that says half."""

    def __init__(self) -> None:
        self.clock = ScriptedClock()
        self.node, self.cpu, self.other = (Counter(self.clock, domain=domain) for domain in (NODE, CPU, NODE))
        self.sessions = {
            name: ScriptedSession(counter.samples)
            for name, counter in (("ipmi", self.node), ("rapl", self.cpu), ("other", self.other))
        }
        self.monitor = Monitor(
            [
                open_scripted(self.sessions["ipmi"], name="ipmi", domains=[NODE], gain_uncertainty=0.02),
                open_scripted(self.sessions["rapl"], name="rapl", roles={CPU: "part"}),
                open_scripted(self.sessions["other"], name="other", domains=[NODE], roles={NODE: "beside"}),
            ],
            clock=self.clock,
            max_failures=2,
        )
        self.seen: list[tuple[str, ...]] = []
        self.monitor.add_observer(lambda readings: self.seen.append(tuple(reading.meter for reading in readings)))
        self.monitor.poll()

    def work(self) -> None:
        self.node.add(100)
        self.cpu.add(30)
        self.other.add(50)
        self.clock.advance(1)
        self.monitor.tick()


@pytest.fixture
def machine() -> Machine:
    return Machine()


def test_only_what_is_charged_is_in_the_totals_and_told_to_observers(machine):
    machine.work()
    machine.work()
    monitor = machine.monitor
    for readings in (monitor.poll(), monitor.known_totals(), monitor.totals(fresh=True)):
        assert [(reading.meter, reading.energy_j, reading.role) for reading in readings] == [
            ("ipmi", pytest.approx(200), "charged")
        ]
    assert machine.seen == [("ipmi",), ("ipmi",)]
    assert monitor.power_w == pytest.approx(100)
    assert monitor.peak_power_w == pytest.approx(100)


def test_a_window_holds_all_and_sums_what_is_charged(machine):
    with machine.monitor.window("training") as window:
        machine.work()
    result = window.result
    assert [reading.meter for reading in result.readings] == ["ipmi"]
    assert [(reading.meter, reading.role, reading.energy_j) for reading in result.others] == [
        ("rapl", "part", pytest.approx(30)),
        ("other", "beside", pytest.approx(50)),
    ]
    assert result.energy_j == pytest.approx(100)
    assert result.uncertainty_j == pytest.approx(2, rel=1e-3)


@pytest.mark.parametrize("name", ["rapl", "other"])
def test_a_meter_that_is_not_charged_may_fail_and_is_left_out_of_the_window(machine, name):
    machine.sessions[name].failure = MeterError("gone")
    for _ in range(3):
        machine.work()
    machine.monitor.check()
    with machine.monitor.window("training") as window:
        machine.work()
    assert name not in [reading.meter for reading in window.result.others]
    assert len(window.result.others) == 1
    assert any(f"left out of the window: meter {name!r}" in note for note in window.result.notes)
    machine.sessions[name].failure = None
    with machine.monitor.window("later") as later:
        machine.work()
    assert len(later.result.others) == 2
    machine.monitor.stop()


def test_a_meter_beside_that_loses_energy_is_left_out_of_that_window_alone(machine):
    with machine.monitor.window("reset") as window:
        machine.work()
        machine.work()
        machine.other.count_uj = 0
        machine.work()
    assert [reading.meter for reading in window.result.others] == ["rapl"]
    assert any("went back" in note for note in window.result.notes)
    assert not any("books" in note for note in window.result.notes)
    with machine.monitor.window("later") as later:
        machine.work()
    assert [reading.meter for reading in later.result.others] == ["rapl", "other"]
    machine.monitor.check()


def test_a_meter_beside_that_cannot_be_read_or_closed_stops_neither_start_nor_stop(machine, monkeypatch):
    def cannot_close() -> None:
        raise RuntimeError("still busy")

    machine.sessions["other"].failure = MeterError("gone")
    monkeypatch.setattr(machine.sessions["other"], "close", cannot_close)
    with machine.monitor:
        pass
    assert [session.num_closed for session in machine.sessions.values()] == [1, 1, 0]


def test_a_charged_meter_that_fails_is_an_error_all_the_same(machine):
    machine.sessions["ipmi"].failure = MeterError("gone")
    for _ in range(2):
        machine.work()
    with pytest.raises(MeterError, match=r"'ipmi' failed 2 times in a row"):
        machine.monitor.check()


def test_a_charged_meter_that_loses_energy_says_that_the_books_need_a_rerun(machine):
    machine.work()
    machine.work()
    machine.node.count_uj = 0
    machine.work()
    with pytest.raises(
        MeterError, match=r"went back.*is unknown; the books cannot be closed.*run the same command again"
    ):
        machine.monitor.check()


def test_a_gain_multiplies_what_a_domain_reads(machine):
    clock, counter = machine.clock, Counter(machine.clock)
    session = ScriptedSession(counter.samples)
    monitor = Monitor([open_scripted(session, gains={CPU: 1.1}, gain_uncertainty=0.05)], clock=clock)
    monitor.poll()
    with monitor.window("work") as window:
        counter.add(200)
        clock.advance(1)
    (reading,) = window.result.readings
    assert reading.energy_j == pytest.approx(220)
    assert reading.scale_uncertainty_j == pytest.approx(11)
