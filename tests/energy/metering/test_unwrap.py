import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from greensv.energy.meter import CounterSample, Domain, PowerSample
from greensv.energy.metering.unwrap import counter_step_j, power_step_j, sample_problem
from greensv.errors import MeterError

RANGE_UJ = 262_143_328_850  # of a Xeon's package zone
CPU = Domain("cpu", "0")


def counter(count: int, at_s: float, *, range_count: int | None = RANGE_UJ) -> CounterSample:
    return CounterSample(domain=CPU, taken_at_s=at_s, count=count, unit_j=1e-6, range_count=range_count)


def step_j(before: CounterSample, now: CounterSample, *, max_power_w: float = 1000.0) -> float:
    return counter_step_j(before, now, max_power_w=max_power_w, resolution_s=0.001)


def test_plain_difference_of_a_counter():
    assert step_j(counter(5_000_000, 0.0), counter(12_500_000, 1.0)) == pytest.approx(7.5)


def test_a_wrap_is_counted_with_the_counters_range():
    # 262 143.328850 J - 262 143.0 J = 0.328850 J up to the wrap, and 0.1 J after it.
    assert step_j(counter(262_143_000_000, 0.0), counter(100_000, 1.0)) == pytest.approx(0.428850)


def test_a_reset_is_not_taken_for_a_wrap():
    with pytest.raises(MeterError, match=r"cpu:0: .* more than 1000 W, so it was reset"):
        step_j(counter(5_000_000, 0.0), counter(0, 1.0))


def test_an_interval_that_could_hide_two_wraps_is_an_error():
    # At 1 kW the range of 262 143 J lasts 262 s: after 300 s a small difference may be one more turn.
    with pytest.raises(MeterError, match="wrapped more than once"):
        step_j(counter(0, 0.0), counter(1_000_000, 300.0))


def test_a_long_interval_is_unambiguous_while_the_range_outlasts_it():
    assert step_j(counter(0, 0.0), counter(1_000_000, 200.0)) == pytest.approx(1.0)


def test_a_counter_without_a_range_that_goes_back_is_an_error():
    with pytest.raises(MeterError, match="went back from 10 to 9"):
        step_j(counter(10, 0.0, range_count=None), counter(9, 1.0, range_count=None))


def test_a_counter_that_changes_its_range_is_an_error():
    with pytest.raises(MeterError, match="range changed"):
        step_j(counter(10, 0.0), counter(11, 1.0, range_count=100))


@settings(deadline=None)
@given(
    start=st.integers(0, RANGE_UJ - 1),
    steps=st.lists(st.tuples(st.integers(0, 900_000_000), st.floats(0.9, 10)), min_size=1, max_size=20),
)
def test_energies_below_the_possible_power_are_recovered_across_any_wraps(start, steps):
    count, at_s, total_j = start, 0.0, 0.0
    for energy_uj, interval_s in steps:
        before = counter(count, at_s)
        count, at_s = (count + energy_uj) % RANGE_UJ, at_s + interval_s
        total_j += step_j(before, counter(count, at_s))
    assert total_j == pytest.approx(sum(energy for energy, _ in steps) * 1e-6)


@settings(deadline=None)
@given(before=st.integers(0, RANGE_UJ), now=st.integers(0, RANGE_UJ), interval_s=st.floats(0, 1000))
def test_a_step_is_never_negative_nor_beyond_the_possible_power(before, now, interval_s):
    try:
        energy_j = step_j(counter(before, 0.0), counter(now, interval_s))
    except MeterError:
        return
    assert 0 <= energy_j <= 1000 * (interval_s + 0.001) * (1 + 1e-12)


def test_power_is_integrated_as_a_trapezoid():
    before = PowerSample(domain=CPU, taken_at_s=2.0, power_w=100.0)
    now = PowerSample(domain=CPU, taken_at_s=6.0, power_w=200.0)
    assert power_step_j(before, now) == pytest.approx(600.0)


@pytest.mark.parametrize("power_w", [-1.0, float("nan"), float("inf")])
def test_impossible_power_is_a_problem(power_w):
    assert "W" in (sample_problem(PowerSample(domain=CPU, taken_at_s=0.0, power_w=power_w)) or "")


@pytest.mark.parametrize(("count", "range_count"), [(-1, None), (-1, 10), (11, 10)])
def test_a_count_outside_the_counters_range_is_a_problem(count, range_count):
    assert sample_problem(counter(count, 0.0, range_count=range_count)) is not None


def test_possible_samples_are_no_problem():
    assert sample_problem(counter(0, 0.0)) is None
    assert sample_problem(counter(RANGE_UJ, 0.0)) is None
    assert sample_problem(PowerSample(domain=CPU, taken_at_s=0.0, power_w=0.0)) is None
