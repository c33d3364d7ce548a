"""Grams against hand-computed integrals, and properties that hold for any charges and factors."""

import dataclasses

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from greensv.energy.grid.series import ChargeSpan, FactorSeries, FactorSpan, merged
from greensv.units import carbon_g

KWH_UJ = 3_600_000_000_000
SPAN = FactorSpan(
    source="rte",
    region="FRA",
    method="direct",
    valid_from=0.0,
    valid_to=900.0,
    g_per_kwh=20.0,
    is_estimated=False,
    provenance="éCO2mix",
    fetched_at=1000.0,
)


def span(valid_from: float, valid_to: float, g_per_kwh: float | None, **changes: object) -> FactorSpan:
    return dataclasses.replace(SPAN, valid_from=valid_from, valid_to=valid_to, g_per_kwh=g_per_kwh, **changes)


def charge(started_at: float, ended_at: float, energy_uj: int = KWH_UJ) -> ChargeSpan:
    return ChargeSpan(
        account="search",
        purpose="training",
        trial_number=0,
        started_at=started_at,
        ended_at=ended_at,
        energy_uj=energy_uj,
    )


def test_a_charge_is_split_where_the_factor_changes() -> None:
    series = FactorSeries([span(0, 900, 20.0), span(900, 1800, 50.0)])
    # 1 kWh from 600 to 1200: 300 s at 20 and 300 s at 50 g/kWh.
    figure = series.figure([charge(600, 1200)])
    assert figure.carbon_g == pytest.approx(0.5 * 20 + 0.5 * 50)
    assert figure.is_complete
    assert (figure.lowest_g_per_kwh, figure.highest_g_per_kwh) == (20.0, 50.0)
    assert figure.mean_g_per_kwh == pytest.approx(35.0)
    assert figure.gap == ""
    assert figure.provenance == ("éCO2mix",)


def test_power_weighs_and_not_time() -> None:
    series = FactorSeries([span(0, 900, 10.0), span(900, 1800, 100.0)])
    figure = series.figure([charge(0, 900, 9 * KWH_UJ), charge(900, 1800, KWH_UJ)])
    assert figure.carbon_g == pytest.approx(9 * 10 + 100)
    assert figure.mean_g_per_kwh == pytest.approx(19.0), "the mean factor of the time is 55"


def test_what_has_no_factor_is_told_and_not_counted_as_zero() -> None:
    series = FactorSeries([span(0, 600, 20.0), span(600, 900, None), span(1320, 1800, 20.0)])
    figure = series.figure([charge(0, 1800, 3 * KWH_UJ)])
    assert figure.carbon_g == pytest.approx(20 * 3 * 1080 / 1800)
    assert figure.uncovered_j == pytest.approx(3 * 3.6e6 * 720 / 1800)
    assert not figure.is_complete
    assert figure.gap == "carbon incomplete: 12 min 0 s of 30 min 0 s have no factor"
    assert figure.mean_g_per_kwh == pytest.approx(20.0)


def test_without_any_factor_there_is_no_figure() -> None:
    figure = FactorSeries([span(0, 900, None)]).figure([charge(0, 900)])
    assert figure.carbon_g is None
    assert figure.mean_g_per_kwh is None
    assert figure.gap == "carbon incomplete: 15 min 0 s of 15 min 0 s have no factor"
    assert FactorSeries([]).figure([]).carbon_g == 0.0, "nothing was charged: that is complete"


def test_several_devices_at_once_are_one_time() -> None:
    figure = FactorSeries([span(0, 900, 20.0)]).figure([charge(600, 1200), charge(600, 1200), charge(700, 800)])
    assert (figure.duration_s, figure.uncovered_s) == (600.0, 300.0)
    assert figure.energy_j == pytest.approx(3 * 3.6e6)
    assert figure.uncovered_j == pytest.approx(3.6e6)


def test_a_charge_of_a_moment_has_the_factor_of_its_moment() -> None:
    series = FactorSeries([span(0, 900, 20.0), span(900, 1800, 50.0)])
    assert series.figure([charge(900, 900)]).carbon_g == pytest.approx(50.0)
    assert series.figure([charge(899, 899)]).carbon_g == pytest.approx(20.0)
    late = series.figure([charge(1800, 1800)])
    assert (late.carbon_g, late.uncovered_j) == (None, pytest.approx(3.6e6))


def test_of_two_factors_for_one_time_the_later_fetched_counts() -> None:
    held = span(0, 1800, 99.0, fetched_at=2000.0, is_estimated=True, provenance="held over")
    series = FactorSeries([held, span(0, 900, 20.0, fetched_at=3000.0)])
    figure = series.figure([charge(0, 1800, 2 * KWH_UJ)])
    assert figure.carbon_g == pytest.approx(20 + 99)
    assert figure.estimated_j == pytest.approx(3.6e6)
    assert set(figure.provenance) == {"éCO2mix", "held over"}
    earlier = FactorSeries([dataclasses.replace(held, fetched_at=9000.0), span(0, 900, 20.0, fetched_at=3000.0)])
    assert earlier.figure([charge(0, 1800)]).carbon_g == pytest.approx(99.0)


def test_a_later_failure_does_not_take_a_factor_away() -> None:
    series = FactorSeries([span(0, 900, 20.0), span(0, 900, None, fetched_at=5000.0)])
    assert series.figure([charge(0, 900)]).carbon_g == pytest.approx(20.0)


def test_gaps_are_what_is_still_to_be_asked() -> None:
    series = FactorSeries([span(0, 900, 20.0), span(900, 1200, 20.0, is_estimated=True), span(1500, 1800, 30.0)])
    assert series.gaps([(-100, 100), (50, 2000)]) == [(-100, 0), (1200, 1500), (1800, 2000)]
    assert series.gaps([(0, 1800)], with_estimated=True) == [(900, 1500)]
    assert series.gaps([(100, 200), (1600, 1700)]) == []
    assert FactorSeries([]).gaps([(5, 6)]) == [(5, 6)]


def test_periods_are_merged() -> None:
    assert merged([(5, 6), (0, 2), (1, 3), (3, 4)]) == [(0, 4), (5, 6)]
    assert merged([(0, 1), (2, 3), (9, 10)], slack_s=1.0) == [(0, 3), (9, 10)]


times = st.integers(0, 5_000).map(float)
periods = st.tuples(times, times).map(sorted).filter(lambda p: p[0] < p[1])
spans = st.lists(
    st.builds(
        lambda p, g, at, e: span(p[0], p[1], g, fetched_at=float(at), is_estimated=e),
        periods,
        st.none() | st.integers(0, 900).map(float),
        st.integers(0, 3),
        st.booleans(),
    ),
    max_size=12,
)
charges = st.lists(st.builds(lambda p, uj: charge(p[0], p[1], uj), periods, st.integers(0, 10 * KWH_UJ)), max_size=6)


def brute_force(found: list[FactorSpan], at: float) -> FactorSpan | None:
    """The factor of one second, by looking at all spans."""
    there = [(s.fetched_at, index, s) for index, s in enumerate(found) if s.valid_from <= at < s.valid_to]
    known = [item for item in there if item[2].g_per_kwh is not None]
    return max(known, key=lambda item: item[:2])[2] if known else None


@settings(max_examples=60, deadline=None)
@given(spans, charges)
def test_grams_are_the_sum_over_every_second(found: list[FactorSpan], charged: list[ChargeSpan]) -> None:
    grams = uncovered_j = 0.0
    for one in charged:
        each_j = one.energy_uj / 1e6 / (one.ended_at - one.started_at)
        for second in range(round(one.started_at), round(one.ended_at)):
            factor = brute_force(found, second)
            if factor is None:
                uncovered_j += each_j
            else:
                grams += carbon_g(each_j, factor.g_per_kwh or 0.0)
    figure = FactorSeries(found).figure(charged)
    assert figure.covered_g == pytest.approx(grams)
    assert figure.uncovered_j == pytest.approx(uncovered_j, abs=1e-3)
    covered = FactorSeries(found)
    for left, right in covered.gaps([(0.0, 5_000.0)]):
        assert brute_force(found, left) is None
        assert brute_force(found, right - 1.0) is None
