"""Conversions, against values worked out by hand, and the direction in which the ledger rounds."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from greensv import units


def test_one_kilowatt_hour_is_three_point_six_megajoules():
    assert units.j_from_kwh(1.0) == 3_600_000.0
    assert units.kwh_from_j(7_200_000.0) == 2.0
    assert units.wh_from_j(5_400.0) == 1.5


def test_microjoules_round_up_so_that_the_ledger_never_charges_too_little():
    assert units.uj_from_j(1.0) == 1_000_000
    assert units.uj_from_j(1e-7) == 1
    assert units.uj_from_j(0.0) == 0


def test_a_cap_rounds_down_so_that_it_never_grows():
    assert units.uj_from_kwh(0.002) == 7_200_000_000
    assert units.uj_from_kwh(1e-13) == 0


@given(st.integers(min_value=0, max_value=2**53))
def test_microjoules_convert_to_joules_and_kilowatt_hours_alike(energy_uj: int):
    assert units.j_from_uj(energy_uj) == pytest.approx(energy_uj / 1e6)
    assert units.kwh_from_uj(energy_uj) == pytest.approx(units.kwh_from_j(units.j_from_uj(energy_uj)))


@given(st.floats(min_value=0, max_value=1e9))
def test_a_charge_in_microjoules_is_at_least_the_energy_and_at_most_one_above(energy_j: float):
    charged_uj = units.uj_from_j(energy_j)
    assert energy_j * 1e6 <= charged_uj <= energy_j * 1e6 + 1


@given(st.floats(min_value=0, max_value=1e6))
def test_a_stored_cap_is_never_more_than_was_asked(cap_kwh: float):
    assert units.uj_from_kwh(cap_kwh) <= cap_kwh * 3.6e6 * 1e6


def test_carbon_is_energy_times_factor():
    assert units.carbon_g(3_600_000.0, 473.0) == 473.0
    assert units.carbon_g(1_800_000.0, 56.0) == 28.0


@pytest.mark.parametrize(
    ("energy_j", "text"),
    [
        (0.0, "0 J"),
        (12.34, "12.3 J"),
        (3_600.0, "1 Wh"),
        (7_200.0, "2 Wh"),
        (3.6e6, "1 kWh"),
        (51.69 * 3.6e6, "51.69 kWh"),
        (35.9, "35.9 J"),
        (1_234.5, "0.343 Wh"),
        (0.01234, "0.0123 J"),
        (2_327 * 3.6e6, "2,327 kWh"),
        (-7_200.0, "-2 Wh"),
    ],
)
def test_energy_is_shown_in_the_unit_that_fits(energy_j: float, text: str):
    assert units.format_energy(energy_j) == text


@pytest.mark.parametrize(
    ("duration_s", "text"),
    [
        (0.0, "0 s"),
        (42.4, "42 s"),
        (59.7, "1 min 0 s"),
        (200.0, "3 min 20 s"),
        (3_599.6, "1 h 0 min"),
        (7_500.0, "2 h 5 min"),
        (126 * 86_400.0, "126 d"),
    ],
)
def test_a_duration_is_shown_in_two_units_at_most(duration_s: float, text: str):
    assert units.format_duration(duration_s) == text


@pytest.mark.parametrize(("energy_j", "text"), [(3_599.9, "1 Wh"), (3_599_999.0, "1 kWh")])
def test_energy_that_rounds_up_to_the_next_unit_is_shown_in_it(energy_j: float, text: str):
    assert units.format_energy(energy_j) == text
