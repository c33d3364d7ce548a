"""Meters read at intervals of their own, edges that cannot be read, and what readings are held by."""

import threading

import pytest

from greensv.energy.meter import CounterSample, Domain, PowerSample
from greensv.energy.monitoring import Monitor
from greensv.errors import MeterError
from simulated.scripted import CPU, Counter, Gauge, ScriptedClock, ScriptedSession, open_scripted

GPU = Domain("gpu", "GPU-1")
WAIT_S = 30


@pytest.fixture
def clock() -> ScriptedClock:
    return ScriptedClock()


def pass_time(monitor: Monitor, clock: ScriptedClock, seconds: float) -> None:
    """As the polling thread: a tick each `tick_s`."""
    for _ in range(round(seconds / monitor.tick_s)):
        clock.advance(monitor.tick_s)
        monitor.tick()


def test_each_meter_is_read_as_often_as_it_wants_and_observers_are_told_each_interval(clock):
    sessions = {name: ScriptedSession(Gauge(clock, domain=Domain("gpu", name)).samples) for name in ("a", "b", "c")}
    wanted_s = {"a": 0.1, "b": 0.5, "c": None}
    monitor = Monitor(
        [
            open_scripted(session, name=name, domains=[Domain("gpu", name)], poll_interval_s=wanted_s[name])
            for name, session in sessions.items()
        ],
        clock=clock,
    )
    told: list[float] = []
    monitor.add_observer(lambda readings: told.append(clock()))
    pass_time(monitor, clock, 3)
    assert {name: session.num_reads for name, session in sessions.items()} == {"a": 30, "b": 6, "c": 3}
    assert told == pytest.approx([1001, 1002, 1003])


@pytest.mark.parametrize(("wanted_s", "tick_s"), [(0.3, 0.25), (5.0, 1.0), (None, 1.0), (0.1, 0.1)])
def test_the_thread_wakes_no_more_often_than_needed(clock, wanted_s, tick_s):
    session = ScriptedSession(Gauge(clock).samples)
    assert Monitor([open_scripted(session, poll_interval_s=wanted_s)], clock=clock).tick_s == pytest.approx(tick_s)
    assert Monitor([], clock=clock).tick_s == 1.0


def test_the_thread_reads_a_meter_between_two_intervals(clock):
    enough = threading.Event()

    def samples():
        if session.num_reads == 10:
            enough.set()
        return [PowerSample(domain=CPU, taken_at_s=0.0, power_w=0.0)]

    session = ScriptedSession(samples)
    told: list[int] = []
    monitor = Monitor([open_scripted(session, poll_interval_s=0.001)], interval_s=3600.0, clock=clock)
    assert monitor.tick_s == pytest.approx(0.001)
    monitor.add_observer(lambda readings: told.append(1))
    with monitor:
        assert enough.wait(WAIT_S)
    assert not told


def test_a_meter_read_often_is_given_as_long_to_recover_as_others(clock):
    session = ScriptedSession(Counter(clock).samples)
    monitor = Monitor([open_scripted(session, poll_interval_s=0.1)], clock=clock, max_failures=3)
    monitor.poll()
    session.failure = MeterError("bus error")
    pass_time(monitor, clock, 2)
    monitor.check()
    pass_time(monitor, clock, 1)
    with pytest.raises(MeterError, match="30 times in a row"):
        monitor.check()


def test_an_edge_that_fails_is_read_again_at_once(clock):
    counter = Counter(clock)
    failures = [MeterError("once")]

    def samples():
        if failures:
            raise failures.pop()
        return counter.samples()

    monitor = Monitor([open_scripted(ScriptedSession(samples))], clock=clock)
    with monitor.window("work") as window:
        counter.add(5)
        clock.advance(1)
        failures.append(MeterError("again"))
    assert window.result.energy_j == pytest.approx(5)
    assert window.result.notes == ()


def test_power_is_held_to_an_edge_at_which_the_meter_cannot_be_read(clock):
    counter = Counter(clock)
    session = ScriptedSession(counter.samples)
    monitor = Monitor([open_scripted(session)], clock=clock)
    monitor.poll()
    with monitor.window("work") as window:
        for _ in range(4):
            counter.add(100)
            clock.advance(1)
            monitor.tick()
        session.failure = MeterError("bus error")
        counter.add(50)
        clock.advance(0.5)
    assert window.result.energy_j == pytest.approx(450)
    assert window.result.uncertainty_j > 5
    assert "cpu:0: not read for 0.5 s at the window's end; its power was held" in window.result.notes
    assert sum(reading.energy_j for reading in monitor.known_totals()) == pytest.approx(400)


def test_what_was_used_before_a_window_that_opens_unread_is_taken_off(clock):
    counter = Counter(clock)
    session = ScriptedSession(counter.samples)
    monitor = Monitor([open_scripted(session)], clock=clock)
    monitor.poll()
    for _ in range(3):
        counter.add(100)
        clock.advance(1)
        monitor.tick()
    session.failure = MeterError("bus error")
    counter.add(50)
    clock.advance(0.5)
    with monitor.window("work") as window:
        session.failure = None
        counter.add(200)
        clock.advance(2)
    assert window.result.energy_j == pytest.approx(200)
    assert "cpu:0: not read for 0.5 s at the window's start; its power was held" in window.result.notes


def test_dated_samples_are_held_to_the_edge(clock):
    """As scraped ones: each is true for when it was taken, which is seconds before it is read."""
    started_s = clock()

    def samples():
        scraped_s = started_s + 5 * ((clock() - started_s) // 5)
        count = round(100e6 * (scraped_s - started_s))
        return [CounterSample(domain=CPU, taken_at_s=scraped_s, count=count, unit_j=1e-6)]

    monitor = Monitor([open_scripted(ScriptedSession(samples), is_dated=True, resolution_s=5.0)], clock=clock)
    monitor.poll()
    pass_time(monitor, clock, 12)
    with monitor.window("work") as window:
        pass_time(monitor, clock, 20)
        clock.advance(0.5)
    assert window.result.energy_j == pytest.approx(2050)


def test_sampled_power_of_a_slow_sensor_is_corrected_for_its_age_once(clock):
    """A step from 100 to 300 W is seen half the sensor's interval late on average."""
    gauge = Gauge(clock, domain=GPU)
    session = ScriptedSession(gauge.samples)
    monitor = Monitor([open_scripted(session, domains=[GPU], resolution_s=1.0, poll_interval_s=0.1)], clock=clock)
    gauge.power_w = 100
    monitor.poll()
    pass_time(monitor, clock, 2)
    with monitor.window("step") as window:
        pass_time(monitor, clock, 10)
        gauge.power_w = 300
        monitor.poll()
        pass_time(monitor, clock, 10)
    (reading,) = window.result.readings
    assert reading.energy_j == pytest.approx(100 * 10 + 300 * 10 + 200 * 0.5, rel=1e-3)
    assert reading.resolution_s == 1.0
    assert reading.uncertainty_j == pytest.approx(200 * 1.0 / 12**0.5, rel=0.05)
