"""The carbon of a study: its source with its options, and the watch over it while a job runs."""

from greensv.config import EnergyConfig
from greensv.energy.books.ledger import Ledger
from greensv.energy.carbon import CarbonSource, configured_source
from greensv.energy.grid.book import UNKNOWN_METHOD, CarbonBook
from greensv.energy.grid.series import FactorSeries, GridCarbon
from greensv.energy.grid.watch import CarbonWatch
from greensv.plugins import Plugins


def study_source(energy: EnergyConfig, plugins: Plugins, *, name: str | None = None) -> CarbonSource:
    """Returns the study's carbon source, or the one of that name, with the options the study has for it.

    Raises:
        PluginError: it is not installed.
        ConfigError: its options cannot be used.
    """
    source: CarbonSource = plugins.get("carbon source", name or energy.carbon_source)
    return configured_source(source, energy.carbon_options)


def open_carbon(energy: EnergyConfig, *, plugins: Plugins, ledger: Ledger, study_id: str) -> CarbonWatch:
    """Returns the watch over the factors of a study's grid; entering it starts to fetch. Raises as `study_source`."""
    source = study_source(energy, plugins)
    book = CarbonBook(engine=ledger.engine, study_id=study_id)
    return CarbonWatch(source, source.resolve_region(energy.region), book)


def stored_carbon(energy: EnergyConfig, ledger: Ledger, study_id: str, account: str) -> GridCarbon:
    """Returns the carbon of an account by the factors that are stored of the study's own source. Needs no plugin."""
    book = CarbonBook(engine=ledger.engine, study_id=study_id)
    spans = [span for span in book.spans(energy.carbon_source) if span.g_per_kwh is not None]
    # Of several (filled in with another method, or in another region) the one that came first is the study's own.
    own = [s for s in spans if (s.region, s.method) == (spans[0].region, spans[0].method)]
    region, method = (own[0].region, own[0].method) if own else (energy.region, UNKNOWN_METHOD)
    figure = FactorSeries(own).figure(book.charges(account=account))
    return GridCarbon(source=energy.carbon_source, region=region, method=method, figure=figure)
