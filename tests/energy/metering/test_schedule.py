import pytest

from greensv.energy.metering.schedule import Schedule


def follow(schedule: Schedule, until_s: float, *, failing: dict[int, float]) -> list[tuple[float, int]]:
    """Returns when which meter is read, of meters that cannot be read before a time of theirs."""
    now_s, reads = 0.0, []
    while now_s + schedule.wait_s < until_s + 1e-6:
        now_s += schedule.wait_s
        due = schedule.next_retries() if schedule.is_retry_next else schedule.next_tick()
        reads += [(round(now_s, 6), meter) for meter in due]
        schedule.retry(meter for meter in due if now_s < failing.get(meter, 0.0))
    return reads


def test_each_meter_is_read_at_its_own_interval_and_all_at_the_common_one():
    schedule = Schedule([None, 0.25], interval_s=1.0)
    assert (schedule.tick_s, schedule.interval_s(0), schedule.interval_s(1)) == (0.25, 1.0, 0.25)
    assert follow(schedule, 1.0, failing={}) == [(0.25, 1), (0.5, 1), (0.75, 1), (1.0, 0), (1.0, 1)]


def test_a_meter_is_read_so_often_in_some_intervals():
    schedule = Schedule([None, 0.1, 0.3], interval_s=1.0)
    assert [schedule.num_reads(meter, num_intervals=5) for meter in range(3)] == [5, 50, 17]


def test_a_try_falls_between_ticks_or_on_one():
    """A tenth of a second after 1 s, of a meter that is read each second beside one that is read each 0.05 s."""
    reads = follow(Schedule([None, 0.05], interval_s=1.0), 1.35, failing={0: 1.15, 1: 0.052})
    assert [at_s for at_s, meter in reads if meter == 0] == pytest.approx([1.0, 1.1, 1.2])
    often = [at_s for at_s, meter in reads if meter == 1]
    assert often[:4] == pytest.approx([0.05, 0.055, 0.1, 0.15])
    assert often[-1] == pytest.approx(1.35)


def test_tries_begin_anew_with_each_interval_and_end_after_three():
    reads = follow(Schedule([0.5], interval_s=0.5), 1.2, failing={0: 9.0})
    assert [at_s for at_s, _ in reads] == pytest.approx([0.5, 0.55, 0.6, 0.65, 1.0, 1.05, 1.1, 1.15])


def test_without_meters_the_intervals_pass_all_the_same():
    schedule = Schedule([], interval_s=2.0)
    assert (schedule.tick_s, schedule.wait_s, schedule.next_tick(), schedule.ends_interval) == (2.0, 2.0, [], True)
