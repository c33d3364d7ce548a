"""The only place where units are converted: joules inside, integer microjoules in the ledger, kWh and Wh for people."""

import math

JOULES_PER_KWH = 3_600_000.0
JOULES_PER_WH = 3_600.0
MICROJOULES_PER_JOULE = 1_000_000


def kwh_from_j(energy_j: float) -> float:
    """Joules to kilowatt-hours."""
    return energy_j / JOULES_PER_KWH


def j_from_kwh(energy_kwh: float) -> float:
    """Kilowatt-hours to joules."""
    return energy_kwh * JOULES_PER_KWH


def wh_from_j(energy_j: float) -> float:
    """Joules to watt-hours."""
    return energy_j / JOULES_PER_WH


def uj_from_j(energy_j: float) -> int:
    """Joules to whole microjoules, rounded up: a ledger that rounds down burns more than it says."""
    return math.ceil(energy_j * MICROJOULES_PER_JOULE)


def j_from_uj(energy_uj: int) -> float:
    """Microjoules to joules."""
    return energy_uj / MICROJOULES_PER_JOULE


def kwh_from_uj(energy_uj: int) -> float:
    """Microjoules to kilowatt-hours."""
    return energy_uj / (MICROJOULES_PER_JOULE * JOULES_PER_KWH)


def uj_from_kwh(energy_kwh: float) -> int:
    """Kilowatt-hours to whole microjoules, rounded down: a cap must not grow by being stored."""
    return math.floor(energy_kwh * JOULES_PER_KWH * MICROJOULES_PER_JOULE)


def carbon_g(energy_j: float, g_per_kwh: float) -> float:
    """Grams of CO2-equivalent of an energy in joules at a factor in g/kWh."""
    return kwh_from_j(energy_j) * g_per_kwh


def format_energy(energy_j: float) -> str:
    """An energy for people, three or four digits: J below 0.01 Wh, Wh below 1 kWh, kWh above.

    Wh down to so little, because the energies of one table then share a unit.
    """
    if abs(energy_j) < 0.01 * JOULES_PER_WH:
        return f"{_few_digits(energy_j)} J"
    if abs(energy_j) < JOULES_PER_KWH - 0.5 * JOULES_PER_WH:
        return f"{_few_digits(wh_from_j(energy_j))} Wh"
    return f"{_few_digits(kwh_from_j(energy_j), num_digits=4)} kWh"


def _few_digits(value: float, *, num_digits: int = 3) -> str:
    """Significant digits, but no exponent for large values: 1,234 and not 1.23e+03."""
    return f"{value:,.0f}" if abs(value) >= 10 ** (num_digits - 1) else f"{value:.{num_digits}g}"


def format_duration(duration_s: float) -> str:
    """A duration for people, two units at the most: `42 s`, `3 min 20 s`, `2 h 5 min`, `126 d`."""
    minutes, seconds = divmod(round(duration_s), 60)
    if not minutes:
        return f"{seconds} s"
    if minutes < 60:
        return f"{minutes} min {seconds} s"
    hours, minutes = divmod(minutes, 60)
    if hours < 48:
        return f"{hours} h {minutes} min"
    return f"{hours / 24:,.0f} d"
