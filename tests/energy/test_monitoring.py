import threading
import timeit
from datetime import timedelta

import pytest

from greensv.energy.meter import CounterSample, Domain, PowerSample
from greensv.energy.monitoring import Monitor
from greensv.errors import MeterError
from simulated.scripted import CPU, Counter, Gauge, ScriptedClock, ScriptedSession, open_scripted

GPU = Domain("gpu", "GPU-1")
RANGE_UJ = 262_143_328_850
WAIT_S = 30


@pytest.fixture
def clock() -> ScriptedClock:
    return ScriptedClock()


@pytest.fixture
def counter(clock: ScriptedClock) -> Counter:
    return Counter(clock)


@pytest.fixture
def session(counter: Counter) -> ScriptedSession:
    return ScriptedSession(counter.samples)


@pytest.fixture
def monitor(session: ScriptedSession, clock: ScriptedClock) -> Monitor:
    """Polled by the test alone: it is not started."""
    monitor = Monitor([open_scripted(session)], clock=clock, max_failures=3)
    monitor.poll()
    return monitor


def gauge_monitor(gauge: Gauge, clock: ScriptedClock) -> Monitor:
    monitor = Monitor([open_scripted(ScriptedSession(gauge.samples))], clock=clock)
    monitor.poll()
    return monitor


def energy_j(readings) -> float:
    return sum(reading.energy_j for reading in readings)


def test_a_window_holds_the_energy_and_the_time_between_its_edges(monitor, counter, clock):
    counter.add(5)
    with monitor.window("training") as window:
        counter.add(12.5)
        clock.advance(4)
    counter.add(7)
    result = window.result
    assert (result.name, result.duration_s) == ("training", 4)
    assert result.energy_j == pytest.approx(12.5)
    (reading,) = result.readings
    assert (reading.domain, reading.meter, reading.quality) == (CPU, "scripted", "measured")
    assert result.started_at.utcoffset() == timedelta(0)
    assert result.notes == ()


def test_windows_nest(monitor, counter):
    with monitor.window("outer") as outer:
        counter.add(1)
        with monitor.window("inner") as inner:
            counter.add(2)
        counter.add(4)
    assert inner.result.energy_j == pytest.approx(2)
    assert outer.result.energy_j == pytest.approx(7)


def test_windows_overlap(monitor, counter):
    first, second = monitor.window("first"), monitor.window("work")
    one = first.__enter__()
    counter.add(1)
    two = second.__enter__()
    counter.add(2)
    first.__exit__(None, None, None)
    counter.add(4)
    second.__exit__(None, None, None)
    assert one.result.energy_j == pytest.approx(3)
    assert two.result.energy_j == pytest.approx(6)


def test_an_open_window_has_no_result(monitor):
    with monitor.window("open") as window, pytest.raises(MeterError, match="'open' has no result"):
        window.result  # noqa: B018


def test_an_exception_passes_through_a_window_which_closes_all_the_same(monitor, counter):
    with pytest.raises(KeyboardInterrupt), monitor.window("interrupted") as window:  # noqa: PT012
        counter.add(3)
        raise KeyboardInterrupt
    assert window.result.energy_j == pytest.approx(3)


def test_an_exception_is_not_hidden_by_a_meter_that_fails_too(monitor, session):
    with pytest.raises(KeyboardInterrupt), monitor.window("interrupted") as window:  # noqa: PT012
        session.failure = MeterError("gone")
        raise KeyboardInterrupt
    with pytest.raises(MeterError, match="no result"):
        window.result  # noqa: B018


def test_several_meters_and_domains_are_added_up(clock):
    cpu, gpu = Counter(clock), Counter(clock, domain=GPU)
    monitor = Monitor(
        [
            open_scripted(ScriptedSession(cpu.samples), name="rapl"),
            open_scripted(ScriptedSession(gpu.samples), name="nvml", domains=[GPU]),
        ],
        clock=clock,
    )
    with monitor.window("both") as window:
        cpu.add(10)
        gpu.add(300)
    assert {(r.meter, str(r.domain)): pytest.approx(r.energy_j) for r in window.result.readings} == {
        ("rapl", "cpu:0"): 10,
        ("nvml", "gpu:GPU-1"): 300,
    }
    assert window.result.energy_j == pytest.approx(310)
    assert [meter.name for meter in monitor.meters] == ["rapl", "nvml"]


def test_a_wrap_between_two_polls_is_counted_once(clock):
    counter = Counter(clock, range_uj=RANGE_UJ)
    counter.count_uj = RANGE_UJ - 40_000_000
    monitor = Monitor([open_scripted(ScriptedSession(counter.samples))], clock=clock)
    monitor.poll()
    for _ in range(3):
        counter.add(100)
        clock.advance(1)
        monitor.poll()
    assert energy_j(monitor.totals(fresh=False)) == pytest.approx(300)


def test_a_reset_makes_the_totals_unavailable_and_never_negative(clock):
    counter = Counter(clock, range_uj=RANGE_UJ)
    counter.count_uj = 5_000_000_000
    monitor = Monitor([open_scripted(ScriptedSession(counter.samples))], clock=clock)
    monitor.poll()
    counter.add(50)
    clock.advance(1)
    monitor.poll()
    counter.count_uj = 0
    clock.advance(1)
    with pytest.raises(MeterError, match=r"reset.*run the same command again"):
        monitor.totals(fresh=True)
    counter.add(5)
    clock.advance(1)
    with pytest.raises(MeterError, match="reset"):
        monitor.check()
    assert energy_j(monitor.known_totals()) == pytest.approx(50)
    monitor.poll()
    assert energy_j(monitor.known_totals()) == pytest.approx(55)
    assert any("reset" in note for note in monitor.notes)


def test_constant_power_is_integrated_in_full(clock):
    gauge = Gauge(clock)
    gauge.power_w = 100
    monitor = gauge_monitor(gauge, clock)
    with monitor.window("constant") as window:
        clock.advance(3)
    assert window.result.energy_j == pytest.approx(300)


def test_changing_power_is_integrated_between_all_polls(clock):
    gauge = Gauge(clock)
    monitor = gauge_monitor(gauge, clock)
    with monitor.window("ramp") as window:
        for power_w in (100, 200, 100):
            gauge.power_w = power_w
            clock.advance(1)
            monitor.poll()
    # Trapezoids 0-100, 100-200 and 200-100 W, a second each.
    assert window.result.energy_j == pytest.approx(50 + 150 + 150)


def test_a_gap_in_the_readings_of_power_is_noted(clock):
    gauge = Gauge(clock)
    gauge.power_w = 10
    monitor = gauge_monitor(gauge, clock)
    with monitor.window("gap") as window:
        clock.advance(3.5)
    assert window.result.notes == ("cpu:0: no reading for 3.5 s; its power was interpolated",)


def test_a_failed_read_is_made_up_for_by_the_next_and_noted(monitor, counter, session, clock):
    with monitor.window("flaky") as window:
        counter.add(10)
        session.failure = MeterError("bus error")
        monitor.poll()
        monitor.poll()
        assert energy_j(monitor.totals(fresh=False)) == 0
        session.failure = None
        clock.advance(1)
    assert window.result.energy_j == pytest.approx(10)
    assert window.result.notes == (
        "a read failed: bus error",
        "meter 'scripted' reads again after 2 failing reads",
    )


def test_a_meter_that_keeps_failing_is_an_error_until_it_reads_again(monitor, counter, session):
    session.failure = MeterError("bus error")
    for _ in range(2):
        monitor.poll()
    assert energy_j(monitor.totals(fresh=False)) == 0
    with pytest.raises(MeterError, match=r"'scripted' failed 3 times in a row: bus error"):
        monitor.totals(fresh=True)
    with pytest.raises(MeterError, match="bus error"):
        monitor.check()
    session.failure = None
    counter.add(8)
    assert energy_j(monitor.totals(fresh=True)) == pytest.approx(8)


def test_a_window_in_which_a_meter_was_not_read_is_an_error_and_not_zero(monitor, session):
    with pytest.raises(MeterError, match=r"'blind'.*'scripted' was not read in it: bus error"), monitor.window("blind"):
        session.failure = MeterError("bus error")


def test_an_unexpected_exception_of_a_meter_counts_as_a_failed_read(monitor, session):
    session.failure = KeyError("joules")
    with pytest.raises(MeterError, match="could not be read \\(KeyError: 'joules'\\)"), monitor.window("w"):
        pass


@pytest.mark.parametrize(
    ("samples", "complaint"),
    [
        ([], "reported nothing instead of cpu:0"),
        ([PowerSample(domain=GPU, taken_at_s=0, power_w=1)], "reported gpu:GPU-1 instead of cpu:0"),
        ([PowerSample(domain=CPU, taken_at_s=0, power_w=1)] * 2, "reported cpu:0, cpu:0 instead of cpu:0"),
        ([PowerSample(domain=CPU, taken_at_s=0, power_w=-1)], "reports -1 W"),
        ([PowerSample(domain=CPU, taken_at_s=0, power_w=float("nan"))], "reports nan W"),
        ([CounterSample(domain=CPU, taken_at_s=0, count=-1, unit_j=1)], "reads -1"),
    ],
)
def test_rubbish_is_a_failed_read(clock, samples, complaint):
    session = ScriptedSession(lambda: samples)
    monitor = Monitor([open_scripted(session)], clock=clock)
    with pytest.raises(MeterError, match=complaint):
        monitor.start()
    assert session.num_closed == 1


def test_samples_that_go_back_in_time_or_change_their_form_are_errors(monitor, session, counter, clock):
    clock.advance(-5)
    with pytest.raises(MeterError, match="5 s older"):
        monitor.totals(fresh=True)
    other = Monitor([open_scripted(session)], clock=clock)
    other.poll()
    session.samples = Gauge(clock).samples
    with pytest.raises(MeterError, match="changed from counting energy to reporting power"):
        other.totals(fresh=True)


def test_energy_since_the_process_started_is_in_the_totals_but_in_no_window(clock):
    counter = Counter(clock)
    counter.add(40)
    monitor = Monitor([open_scripted(ScriptedSession(counter.samples), since_process_start=True)], clock=clock)
    assert energy_j(monitor.poll()) == pytest.approx(40)
    with monitor.window("work") as window:
        counter.add(2)
    assert window.result.energy_j == pytest.approx(2)
    assert energy_j(monitor.totals(fresh=False)) == pytest.approx(42)


def test_the_device_is_waited_for_before_each_edge_is_read(session, clock, counter):
    def finish_queued_work() -> None:
        reads.append(session.num_reads)
        counter.add(1)

    reads: list[int] = []
    monitor = Monitor([open_scripted(session)], clock=clock, synchronise=finish_queued_work)
    monitor.poll()
    with monitor.window("device") as window:
        pass
    assert reads == [1, 2]
    assert window.result.energy_j == pytest.approx(1)


def test_power_looks_back_over_the_last_polls_and_its_peak_over_all(monitor, counter, clock):
    assert monitor.power_w is None
    assert monitor.peak_power_w is None
    for energy in [100] * 3 + [20] * 5:
        counter.add(energy)
        clock.advance(1)
        monitor.poll()
    assert monitor.power_w == pytest.approx(20)
    assert monitor.peak_power_w == pytest.approx(100)


def test_polls_close_together_do_not_make_a_peak(monitor, counter, clock):
    for _ in range(50):
        counter.add(0.1)  # in a hundredth of the time it stands for
        clock.advance(0.0001)
        monitor.poll()
    assert monitor.peak_power_w is None
    clock.advance(1)
    monitor.poll()
    assert monitor.peak_power_w == pytest.approx(5 / 1.005)


def test_starting_fails_where_a_meter_cannot_be_read(session, clock):
    session.failure = MeterError("bus error")
    with pytest.raises(MeterError, match="bus error"), Monitor([open_scripted(session)], clock=clock):
        pytest.fail("it must not start")
    assert session.num_closed == 1


def test_stopping_reads_a_last_time_closes_the_meters_once_and_keeps_the_totals(session, counter, clock):
    with Monitor([open_scripted(session)], clock=clock) as monitor:
        counter.add(6)
    monitor.stop()
    assert session.num_closed == 1
    counter.add(100)
    assert energy_j(monitor.totals(fresh=True)) == pytest.approx(6)
    with pytest.raises(MeterError, match="the monitor has stopped"), monitor.window("late"):
        pass


def test_observers_are_told_the_totals_by_the_polling_thread(session, counter, clock):
    seen: list[float] = []
    threads: set[str] = set()
    enough = threading.Event()

    def observe(readings) -> None:
        monitor.known_totals()  # not under the monitor's lock
        seen.append(energy_j(readings))
        threads.add(threading.current_thread().name)
        if len(seen) >= 3:
            enough.set()

    monitor = Monitor([open_scripted(session)], clock=clock, interval_s=0.002)
    monitor.add_observer(observe)
    with monitor:
        counter.add(3)
        assert enough.wait(WAIT_S)
    assert seen[-1] == pytest.approx(3)
    assert threads == {"greensv-meters"}


def test_what_an_observer_raises_is_raised_once_by_the_next_check(session, clock):
    calls = threading.Semaphore(0)

    def observe(readings) -> None:
        calls.release()
        if len(fail) and fail.pop():
            raise ValueError("the database is locked")

    fail = [True]
    monitor = Monitor([open_scripted(session)], clock=clock, interval_s=0.002)
    monitor.check()
    monitor.add_observer(observe)
    with monitor:
        for _ in range(3):  # it is called again all the same
            assert calls.acquire(timeout=WAIT_S)
        with pytest.raises(ValueError, match="locked"):
            monitor.check()
        monitor.check()


def test_what_ends_a_poll_is_raised_once_by_the_next_check_and_polling_goes_on(session):
    polls = threading.Semaphore(0)
    failures = [ValueError("no such clock")]

    def clock() -> float:
        if threading.current_thread().name == "greensv-meters":
            polls.release()
            if failures:
                raise failures.pop()
        return 1000.0

    with Monitor([open_scripted(session)], clock=clock, interval_s=0.002) as monitor:
        for _ in range(3):
            assert polls.acquire(timeout=WAIT_S)
        with pytest.raises(ValueError, match="no such clock"):
            monitor.check()
        monitor.check()


@pytest.mark.parametrize("samples", [None, [None], [PowerSample(domain=CPU, taken_at_s=0.0, power_w="much")]])
def test_samples_of_no_known_form_are_a_failed_read(clock, samples):
    monitor = Monitor([open_scripted(ScriptedSession(lambda: samples))], clock=clock, max_failures=1)
    monitor.poll()
    with pytest.raises(MeterError, match=r"meter 'scripted' could not be read \((Type|Attribute)Error"):
        monitor.check()


def test_notes_that_cannot_be_read_are_a_failed_read(monitor, session, counter, monkeypatch):
    def notes() -> list[str]:
        raise KeyError("gap")

    with monkeypatch.context() as patch:
        patch.setattr(session, "notes", notes)
        for _ in range(3):
            monitor.poll()
        with pytest.raises(MeterError, match=r"could not be read \(KeyError: 'gap'\)"):
            monitor.check()
    counter.add(5)
    assert energy_j(monitor.totals(fresh=True)) == pytest.approx(5)


def test_polls_from_many_threads_lose_nothing(clock):
    lock = threading.Lock()
    counter = Counter(clock)
    session = ScriptedSession(counter.samples)
    with Monitor([open_scripted(session)], clock=clock, interval_s=0.001) as monitor:

        def work() -> None:
            for _ in range(200):
                with lock:
                    counter.add(0.5)
                with monitor.window("busy") as window:
                    pass
                assert window.result.energy_j >= 0

        threads = [threading.Thread(target=work) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert energy_j(monitor.totals(fresh=True)) == pytest.approx(400)


def test_a_window_over_a_cheap_meter_costs_less_than_a_millisecond(monitor):
    def open_and_close() -> None:
        with monitor.window("step"):
            pass

    assert min(timeit.repeat(open_and_close, number=50, repeat=5)) / 50 < 1e-3
