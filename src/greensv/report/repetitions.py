"""What was run repeatedly in a study, as tables, reports and JSON show it: short trainings and full ones apart."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from greensv.report.runs import Repeated, Run, Spread, line_names, repeated, retrained_runs, trial_runs
from greensv.report.significance import paired_tests, verdicts
from greensv.report.tables import kwh
from greensv.trial_record import TrialRecord

if TYPE_CHECKING:
    from rich.table import Table


@dataclass(frozen=True, slots=True, kw_only=True)
class Repetitions:
    """The repeated runs of one recipe, as tables and reports show them."""

    title: str
    lines: Sequence[Repeated]
    tests: Sequence[str]


def repetitions_of(trials: Sequence[TrialRecord], retrained: Sequence[Mapping[str, Any]]) -> list[Repetitions]:
    """Returns what was run repeatedly, short trainings and full ones apart: they are of different recipes."""
    found = {
        "Trials: EER on the development pairs, energy of the full recipe": trial_runs(trials),
        "Retrained: EER on the test pairs, energy charged": retrained_runs(retrained, trials),
    }
    return [
        Repetitions(title=title, lines=lines, tests=verdicts(paired_tests(runs)))
        for title, runs in found.items()
        if (lines := repeated(runs))
    ]


def as_json(runs: Sequence[Run]) -> dict[str, Any]:
    """Returns the repeated networks and the tests between them as plain values."""
    return {
        "repeated": [asdict(line) for line in repeated(runs)],
        "paired_tests": [asdict(test) for test in paired_tests(runs)],
    }


def repeated_table(lines: Sequence[Repeated], *, title: str) -> "Table":
    """Returns one row per network: number of runs, EER and energy, each mean ± standard deviation."""
    from rich.box import SIMPLE_HEAD
    from rich.table import Table
    from rich.text import Text

    table = Table(title=title, title_justify="left", header_style="bold", box=SIMPLE_HEAD, padding=(0, 1, 0, 0))
    table.add_column("network", overflow="fold")
    for heading in ("runs", "EER %", "energy"):
        table.add_column(heading, justify="right", no_wrap=True)
    for line, name in zip(lines, line_names(lines), strict=True):
        table.add_row(Text(name), str(line.num_runs), percent_spread(line.eer), energy_spread(line.energy_kwh))
    return table


def percent_spread(spread: Spread) -> str:
    """Returns a fraction as percent, mean ± standard deviation."""
    return f"{100 * spread.mean:.2f}" + ("" if spread.std is None else f" ± {100 * spread.std:.2f}")


def energy_spread(spread: Spread) -> str:
    """Returns an energy, mean ± standard deviation, the latter in percent of the mean."""
    if spread.std is None:
        return kwh(spread.mean)
    return f"{kwh(spread.mean)} ± {100 * spread.std / spread.mean:.2g} %" if spread.mean else kwh(spread.mean)
