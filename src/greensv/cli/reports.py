"""From a search's result to its report: the one place that knows both."""

from greensv import __version__
from greensv.energy.books.ledger import Ledger
from greensv.energy.books.schema import transaction
from greensv.energy.devices.telemetry_book import telemetry_summaries
from greensv.report.study_report import StudyReport
from greensv.search.accounts import SEARCH, account_as_json
from greensv.search.front import knee, pareto_front
from greensv.search.runner import SearchResult


def study_report(result: SearchResult, ledger: Ledger) -> StudyReport:
    """Returns what the HTML report of a search is made of."""
    records = result.study.records()
    front = pareto_front(records)
    account = account_as_json(ledger, result.study.study_id, SEARCH)
    assert account is not None
    with transaction(ledger.engine) as connection:
        summaries = telemetry_summaries(connection, result.study.study_id, SEARCH)
    config = result.study.config
    measured = {what: meter for record in records for what, meter in record.meters.items()}
    versions = {what: version for record in records for what, version in record.versions.items()}
    provenance = {
        "greensv": __version__,
        **versions,
        **{f"meter of {domain}": meter for domain, meter in measured.items()},
        "devices": ", ".join(sorted({record.device for record in records if record.device})) or "–",
        "PUE": f"{config.energy.pue:g}",
        "seed": str(config.seed),
        "study id": result.study.study_id,
    }
    return StudyReport(
        name=config.name,
        trials=records,
        front=front,
        knee=knee(front).number if front else None,
        account=account,
        carbon=result.carbon,
        provenance=provenance,
        ended_because=result.ended_because,
        telemetry=summaries,
        retrained=result.study.retrained(),
    )
