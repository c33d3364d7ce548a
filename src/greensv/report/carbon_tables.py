"""Grams of CO2-equivalent for people: one sentence, and tables by account, purpose and grid."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from greensv.energy.grid.series import CarbonFigure, GridCarbon
from greensv.units import format_energy

if TYPE_CHECKING:
    from rich.table import Table

NO_COMPARISON = (
    "warning: life-cycle and direct factors stand side by side; direct ones leave out plants and fuel supply, so these "
    "grams do not compare"
)


def carbon_words(carbon: GridCarbon) -> str:
    """Returns `0.548 g CO2e in FRA at 56 g/kWh (life-cycle; static)`, and what has no factor."""
    figure = carbon.figure
    if figure.carbon_g is None:
        words = f"not known in {carbon.region} ({carbon.method}; {carbon.source})"
    else:
        words = f"{grams(figure)} in {carbon.region} at {factors(figure)} ({carbon.method}; {carbon.source})"
    return f"{words}; {figure.gap}" if figure.gap else words


def grams(figure: CarbonFigure) -> str:
    """Returns grams or kilograms with three digits, marked where they are not all."""
    found = figure.carbon_g
    if found is None:
        return "–"
    mass = f"{found:.3g} g" if found < 1000 else f"{found / 1000:,.4g} kg"
    return f"{mass} CO2e" if figure.is_complete else f"{mass} CO2e and more"


def factors(figure: CarbonFigure) -> str:
    """Returns the factor, or where it changed its range and its mean by energy: `12 to 31 g/kWh (mean 15.2)`."""
    low, high, mean = figure.lowest_g_per_kwh, figure.highest_g_per_kwh, figure.mean_g_per_kwh
    if low is None or high is None:
        return "no factor"
    if low == high:
        return f"{low:g} g/kWh"
    return f"{low:g} to {high:g} g/kWh" + (f" (mean {mean:.4g})" if mean is not None else "")


def notes(carbons: Sequence[GridCarbon]) -> list[str]:
    """Returns what is to be known of figures that stand side by side: gaps, estimates, methods that differ, sources."""
    found = [NO_COMPARISON] if len({carbon.method for carbon in carbons if carbon.figure.provenance}) > 1 else []
    for carbon in carbons:
        where = f"{carbon.source} {carbon.region}"
        figure = carbon.figure
        if figure.gap:
            energies = f"{format_energy(figure.uncovered_j)} of {format_energy(figure.energy_j)}"
            found.append(f"{where}: {figure.gap}, for {energies}; `greensv carbon --fill` asks for them")
        if figure.estimated_j > 0 and figure.energy_j > 0:
            found.append(f"{where}: estimated factors for {figure.estimated_j / figure.energy_j:.0%} of the energy")
    for provenance in dict.fromkeys(line for carbon in carbons for line in carbon.figure.provenance):
        found.append(f"source: {provenance}")
    return found


def account_table(
    columns: Sequence[tuple[GridCarbon, Mapping[tuple[str, str], CarbonFigure]]], *, title: str
) -> "Table":
    """Returns one row per account and purpose and one column of grams per grid, with the sum of each.

    Args:
        columns: each grid's figure of everything, and of each (account, purpose).
        title: the table's heading.
    """
    table = _table(title)
    for heading in ("account", "purpose"):
        table.add_column(heading)
    table.add_column("energy", justify="right")
    for carbon, _ in columns:
        table.add_column(f"{carbon.source} {carbon.region}\n{carbon.method}", justify="right")
    first = columns[0][1]
    for key in sorted(first, key=lambda key: (key[0], -first[key].energy_j)):
        row = [grams(by_key[key]) for _, by_key in columns]
        table.add_row(*key, format_energy(first[key].energy_j), *row)
    table.add_section()
    whole = columns[0][0].figure
    table.add_row("all", "", format_energy(whole.energy_j), *(grams(carbon.figure) for carbon, _ in columns))
    table.add_row("factor", "", "", *(factors(carbon.figure) for carbon, _ in columns))
    return table


def grids_table(carbons: Sequence[GridCarbon], *, title: str) -> "Table":
    """Returns one row per grid: what the same energy, at the same times, makes there."""
    table = _table(title)
    for heading in ("region", "source", "method"):
        table.add_column(heading)
    for heading in ("factor", "carbon"):
        table.add_column(heading, justify="right")
    for carbon in carbons:
        table.add_row(carbon.region, carbon.source, carbon.method, factors(carbon.figure), grams(carbon.figure))
    return table


def _table(title: str) -> "Table":
    from rich.box import SIMPLE_HEAD
    from rich.table import Table

    return Table(title=title, title_justify="left", header_style="bold", box=SIMPLE_HEAD, padding=(0, 1, 0, 0))
