"""Meters read at intervals of their own, edges that cannot be read, and what readings are held by."""

import threading
from typing import Any

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


def follow(monitor: Monitor, clock: ScriptedClock, seconds: float) -> None:
    """As the polling thread where reads may fail: whatever is due, when it is due."""
    end_s = clock() + seconds
    while clock() + monitor.wait_s < end_s + 1e-6:
        clock.advance(monitor.wait_s)
        monitor.advance()


class Outage:
    """A counter at 100 W that cannot be read before `until_s`; notes when it was tried."""

    def __init__(self, clock: ScriptedClock) -> None:
        self.until_s = 0.0
        self.tried_at_s: list[float] = []
        self._clock = clock
        self._started_s = clock()

    def samples(self):
        self.tried_at_s.append(round(self._clock() - self._started_s, 6))
        if self._clock() < self._started_s + self.until_s:
            raise MeterError("bus error")
        count = round(100e6 * (self._clock() - self._started_s))
        return [CounterSample(domain=CPU, taken_at_s=self._clock(), count=count, unit_j=1e-6)]


def test_a_read_that_fails_is_tried_again_after_a_tenth_of_the_interval(clock):
    outage = Outage(clock)
    monitor = Monitor([open_scripted(ScriptedSession(outage.samples), poll_interval_s=0.5)], clock=clock)
    monitor.poll()
    outage.until_s = 0.58
    follow(monitor, clock, 1.5)
    assert outage.tried_at_s == pytest.approx([0, 0.5, 0.55, 0.6, 1.0, 1.5])
    assert monitor.notes == ("a read failed: bus error", "meter 'scripted' reads again after 1 failing read")


def test_a_meter_that_keeps_failing_is_tried_three_times_between_two_intervals(clock):
    outage = Outage(clock)
    monitor = Monitor([open_scripted(ScriptedSession(outage.samples))], clock=clock, max_failures=3)
    monitor.poll()
    outage.until_s = 100.0
    follow(monitor, clock, 2.5)
    assert outage.tried_at_s == pytest.approx([0, 1.0, 1.1, 1.2, 1.3, 2.0, 2.1, 2.2, 2.3])
    monitor.check()  # further tries are no further failures
    follow(monitor, clock, 3)
    assert outage.tried_at_s[9:] == pytest.approx([3.0, 4.0, 5.0])  # given up: tried at its interval only
    with pytest.raises(MeterError, match="5 times in a row"):
        monitor.check()


def test_other_meters_and_observers_keep_their_times_while_one_is_tried_again(clock):
    outage = Outage(clock)
    gauge = ScriptedSession(Gauge(clock, domain=GPU).samples)
    monitor = Monitor(
        [
            open_scripted(ScriptedSession(outage.samples)),
            open_scripted(gauge, name="often", domains=[GPU], poll_interval_s=0.125),
        ],
        clock=clock,
    )
    told: list[float] = []
    monitor.add_observer(lambda readings: told.append(clock()))
    monitor.poll()
    outage.until_s = 1.25
    follow(monitor, clock, 3)
    assert outage.tried_at_s == pytest.approx([0, 1.0, 1.1, 1.2, 1.3, 2.0, 3.0])
    assert gauge.num_reads == 1 + 3 * 8
    assert told == pytest.approx([1001, 1002, 1003])


def test_nothing_is_tried_again_where_a_window_has_read_in_between(clock):
    outage = Outage(clock)
    monitor = Monitor([open_scripted(ScriptedSession(outage.samples))], clock=clock)
    monitor.poll()
    outage.until_s = 1.05
    follow(monitor, clock, 1)
    clock.advance(0.06)
    with monitor.window("work") as window:
        monitor.advance()
    assert window.result.energy_j == 0
    assert outage.tried_at_s == pytest.approx([0, 1.0, 1.06, 1.06])  # the window's two edges


def test_the_thread_tries_a_read_again(clock):
    read = threading.Event()

    def samples():
        if session.num_reads == 2:
            raise MeterError("once")
        if session.num_reads == 3:
            read.set()
        return [PowerSample(domain=CPU, taken_at_s=clock(), power_w=0.0)]

    session = ScriptedSession(samples)
    with Monitor([open_scripted(session)], clock=clock, interval_s=0.2):
        assert read.wait(WAIT_S)


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


def scraped_monitor(clock: ScriptedClock, **about: Any) -> Monitor:
    """A counter at 100 W that is scraped every 5 s: each sample is true for when it was taken, not read."""
    started_s = clock()

    def samples():
        scraped_s = started_s + 5 * ((clock() - started_s) // 5)
        count = round(100e6 * (scraped_s - started_s))
        return [CounterSample(domain=CPU, taken_at_s=scraped_s, count=count, unit_j=1e-6)]

    return Monitor([open_scripted(ScriptedSession(samples), is_dated=True, resolution_s=5.0, **about)], clock=clock)


def test_dated_samples_are_held_to_the_edge(clock):
    monitor = scraped_monitor(clock)
    monitor.poll()
    pass_time(monitor, clock, 12)
    with monitor.window("work") as window:
        pass_time(monitor, clock, 20)
        clock.advance(0.5)
    assert window.result.energy_j == pytest.approx(2050)


def test_a_window_opened_before_the_first_two_dated_samples_takes_the_power_of_its_end(clock):
    monitor = scraped_monitor(clock)
    clock.advance(3)
    with monitor.window("at once") as window:  # 3 s after the sample it begins with
        pass_time(monitor, clock, 20)
        clock.advance(0.5)
    assert window.result.energy_j == pytest.approx(2050)
    assert 300 < window.result.uncertainty_j < 320  # 3 s at 100 W are guessed


def test_a_window_without_a_new_dated_sample_is_an_error_and_not_zero(clock):
    monitor = scraped_monitor(clock)
    clock.advance(1)
    with pytest.raises(MeterError, match=r"cpu:0: no new sample in the window.*longer than .* \(10 s\)"):  # noqa: SIM117
        with monitor.window("short"):
            pass_time(monitor, clock, 3)


def test_a_dated_meter_beside_is_left_out_of_a_window_without_a_new_sample(clock):
    monitor = scraped_monitor(clock, roles={CPU: "beside"})
    with monitor.window("short") as window:
        pass_time(monitor, clock, 3)
    assert window.result.others == ()
    assert "left out of the window: cpu:0: no new sample" in window.result.notes[0]


def test_a_sensor_slower_than_the_polls_has_no_gap_at_every_sample(clock):
    """As IPMI, whose power is asked for every 10 s: between two samples the session returns the last one."""
    gauge = Gauge(clock, domain=GPU)
    gauge.power_w = 100
    taken = [gauge.samples()]

    def samples():
        if clock() - taken[-1][0].taken_at_s >= 10:
            taken.append(gauge.samples())
        return taken[-1]

    monitor = Monitor([open_scripted(ScriptedSession(samples), domains=[GPU], resolution_s=10.0)], clock=clock)
    monitor.poll()
    with monitor.window("work") as window:
        pass_time(monitor, clock, 40)
    assert window.result.notes == ()
    assert window.result.energy_j == pytest.approx(4000)


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
