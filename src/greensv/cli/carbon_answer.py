"""What `greensv carbon` tells: a study's grams by stored series, and by the factors of other grids."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from greensv.energy.books.ledger import Ledger
from greensv.energy.carbon import CarbonSource, Method
from greensv.energy.grid.book import UNKNOWN_METHOD, CarbonBook
from greensv.energy.grid.fill import ask, fill, study_series
from greensv.energy.grid.series import CarbonFigure, ChargeSpan, FactorSeries, GridCarbon, merged
from greensv.errors import CarbonError
from greensv.plugins import Plugins
from greensv.search.accounts import SEARCH
from greensv.search.carbon import study_source
from greensv.search.study import OpenStudy
from greensv.units import kwh_from_j

WHAT_IF_SOURCE = "static"
ASK_TOGETHER_S = 6 * 3_600.0
"""Charges closer than this are asked for in one question to another grid."""

Column = tuple[GridCarbon, Mapping[tuple[str, str], CarbonFigure]]


@dataclass(frozen=True, slots=True, kw_only=True)
class CarbonAnswer:
    """The carbon of a study."""

    study: str
    own: Sequence[Column]
    """For each source, region and method: all of it, and by (account, purpose). The study's own grid comes first."""
    by_trial: Mapping[int, CarbonFigure]
    """Of the search account, by the first of `own`."""
    elsewhere: Sequence[GridCarbon]
    filled_s: float | None
    problems: Sequence[str]
    """Why a source could not tell."""

    def as_json(self) -> dict[str, Any]:
        """Returns plain values: grams, kWh, seconds and g/kWh; null where there is no figure."""
        return {
            "study": self.study,
            "own": [
                {
                    **_grid_as_json(carbon),
                    "by_account": [
                        {"account": account, "purpose": purpose, **_figure_as_json(figure)}
                        for (account, purpose), figure in by_key.items()
                    ],
                }
                for carbon, by_key in self.own
            ],
            "by_trial": [{"trial": number, **_figure_as_json(figure)} for number, figure in self.by_trial.items()],
            "what_if": [_grid_as_json(carbon) for carbon in self.elsewhere],
            "filled_s": self.filled_s,
            "problems": list(self.problems),
        }


def answer(
    study: OpenStudy,
    ledger: Ledger,
    plugins: Plugins,
    *,
    what_if: Sequence[str],
    source_name: str | None,
    region: str | None,
    method: Method | None,
    is_filled: bool,
) -> CarbonAnswer:
    """Computes the answer from charges and stored factors; asks a source's network for other grids and to fill.

    With `what_if`, `source_name` and `method` are of the other grids, else of the study's own.

    Raises:
        PluginError, ConfigError: a source, its options or a region that cannot be used.
    """
    energy = study.config.energy
    book = CarbonBook(engine=ledger.engine, study_id=study.study_id)
    charged, problems = book.charges(), list[str]()
    chosen = (source_name, region, method) if not what_if else (None, None, None)
    source = study_source(energy, plugins, name=chosen[0])
    source = source.with_method(chosen[2]) if chosen[2] else source
    own_region = source.resolve_region(chosen[1] or energy.region)
    filled_s = None
    if is_filled:
        filled_s, problems = fill(book, source, own_region, charged)
    series = study_series(book, source, own_region, charged)
    columns = [_column(source.name, own_region, source.method, series, charged)]
    if chosen == (None, None, None):
        own_key = (source.name, own_region, columns[0][0].method)
        columns += [_column(*key, other, charged) for key, other in book.series().items() if key != own_key]
    elsewhere: Sequence[GridCarbon] = ()
    if what_if:
        other_source = study_source(energy, plugins, name=source_name or WHAT_IF_SOURCE)
        other_source = other_source.with_method(method) if method else other_source
        elsewhere = _elsewhere(other_source, what_if, charged, problems)
    return CarbonAnswer(
        study=study.config.name,
        own=columns if charged else [],
        by_trial=_by_trial(series, charged),
        elsewhere=elsewhere if charged else [],
        filled_s=filled_s,
        problems=problems,
    )


def _by_trial(series: FactorSeries, charged: Sequence[ChargeSpan]) -> dict[int, CarbonFigure]:
    by_number: dict[int, list[ChargeSpan]] = {}
    for charge in charged:
        if charge.account == SEARCH and charge.trial_number is not None:
            by_number.setdefault(charge.trial_number, []).append(charge)
    return {number: series.figure(by_number[number]) for number in sorted(by_number)}


def _column(name: str, region: str, method: str | None, series: FactorSeries, charged: Sequence[ChargeSpan]) -> Column:
    by_key: dict[tuple[str, str], list[ChargeSpan]] = {}
    for charge in charged:
        by_key.setdefault((charge.account, charge.purpose), []).append(charge)
    methods = [span.method for _, _, span in series.spans] or [method or UNKNOWN_METHOD]
    carbon = GridCarbon(source=name, region=region, method=methods[-1], figure=series.figure(charged))
    return carbon, {key: series.figure(spans) for key, spans in by_key.items()}


def _elsewhere(
    source: CarbonSource, regions: Sequence[str], charged: Sequence[ChargeSpan], problems: list[str]
) -> list[GridCarbon]:
    """Recomputes for each region by what the source says now; nothing is stored."""
    zones = [source.resolve_region(region) for region in regions]
    periods = merged(((c.started_at, c.ended_at) for c in charged), slack_s=ASK_TOGETHER_S)
    found = []
    for zone in zones:
        spans = []
        for period in periods:
            try:
                spans += ask(source, zone, period)
            except CarbonError as error:
                problems.append(str(error))
        method = next((span.method for span in spans), source.method or UNKNOWN_METHOD)
        figure = FactorSeries(spans).figure(charged)
        found.append(GridCarbon(source=source.name, region=zone, method=method, figure=figure))
    return found


def _grid_as_json(carbon: GridCarbon) -> dict[str, Any]:
    return {
        "source": carbon.source,
        "region": carbon.region,
        "method": carbon.method,
        **_figure_as_json(carbon.figure),
        "duration_s": carbon.figure.duration_s,
        "uncovered_s": carbon.figure.uncovered_s,
        "lowest_g_per_kwh": carbon.figure.lowest_g_per_kwh,
        "highest_g_per_kwh": carbon.figure.highest_g_per_kwh,
        "mean_g_per_kwh": carbon.figure.mean_g_per_kwh,
        "provenance": list(carbon.figure.provenance),
    }


def _figure_as_json(figure: CarbonFigure) -> dict[str, Any]:
    return {
        "carbon_g": figure.carbon_g,
        "energy_kwh": kwh_from_j(figure.energy_j),
        "uncovered_kwh": kwh_from_j(figure.uncovered_j),
        "estimated_kwh": kwh_from_j(figure.estimated_j),
        "is_complete": figure.is_complete,
    }
