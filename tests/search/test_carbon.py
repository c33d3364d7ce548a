"""Searches whose carbon comes from a live source: `rte` against a server on loopback, which may fail in any way."""

import json
from collections.abc import Iterator

import pytest

from greensv.energy.grid.book import CarbonBook
from greensv.errors import ConfigError
from greensv.search.accounts import SEARCH
from simulated.carbon_server import CarbonServer, carbon_server
from tiny.study import Lab


@pytest.fixture
def server() -> Iterator[CarbonServer]:
    with carbon_server() as server:
        yield server


def french(server: CarbonServer) -> dict:
    return {
        "carbon_source": "rte",
        "region": "FR",
        "carbon_options": {"rte": {"base_url": server.rte_url, "timeout_s": 2.0}},
    }


def test_a_search_stores_the_series_of_its_grid_and_counts_by_it(lab: Lab, server: CarbonServer) -> None:
    server.rte = lambda at: 20
    result = lab.search(max_trials=2, energy=french(server))
    assert result.carbon.figure.is_complete
    assert (result.carbon.source, result.carbon.region, result.carbon.method) == ("rte", "FRA", "direct")
    study, ledger = lab.open()
    spent_kwh = result.carbon.figure.energy_j / 3.6e6
    assert result.carbon.figure.carbon_g == pytest.approx(20 * spent_kwh)
    statement = ledger.statement(study.study_id, SEARCH)
    assert spent_kwh * 3.6e12 == pytest.approx(statement.spent_uj + statement.overrun_uj)
    spans = CarbonBook(engine=ledger.engine, study_id=study.study_id).spans()
    assert {(span.source, span.region, span.method, span.g_per_kwh) for span in spans} == {
        ("rte", "FRA", "direct", 20.0)
    }
    assert all(server.rte_url in span.provenance for span in spans)


@pytest.mark.parametrize("how", ["503", "html", "refused", "hangs"])
def test_a_failing_source_stops_no_search(lab: Lab, server: CarbonServer, how: str) -> None:
    energy = french(server)
    match how:
        case "503":
            server.instead = (503, "text/html", "")
        case "html":
            server.instead = (200, "text/html", "<html>please log in</html>")
        case "refused":
            energy["carbon_options"] = {"rte": {"base_url": "http://127.0.0.1:1"}}
        case "hangs":
            server.delay_s = 0.3
            energy["carbon_options"]["rte"]["timeout_s"] = 0.1
    result = lab.search(max_trials=2, energy=energy)
    assert result.ended_because == "2 trials were run"
    assert result.carbon.figure.carbon_g is None
    assert result.carbon.figure.gap.startswith("carbon incomplete: ")
    for record in lab.records():
        assert record.state == "complete"
        assert record.carbon_g is None, "not known is not zero"
        assert record.is_carbon_incomplete
    study, ledger = lab.open()
    failed = CarbonBook(engine=ledger.engine, study_id=study.study_id).spans()
    assert failed
    assert all(span.g_per_kwh is None and span.provenance for span in failed)


def test_a_retraining_counts_its_own(lab: Lab, server: CarbonServer) -> None:
    server.rte = lambda at: 20
    lab.search(max_trials=1, energy=french(server))
    (result,) = lab.retrain(lab.records()[0]).results
    assert result["carbon_g"] == pytest.approx(20 * result["charged_energy_kwh"])
    assert result["is_carbon_incomplete"] is False
    assert json.dumps(result)


@pytest.mark.parametrize(
    ("energy", "problem"),
    [
        ({"carbon_source": "rte"}, "energy.region: carbon source 'rte' knows France alone"),
        ({"carbon_source": "electricity-maps", "region": "FRA"}, "energy.region: Electricity Maps names its zones"),
        ({"carbon_source": "constant"}, "energy.carbon_options.constant.g_per_kwh: missing"),
        ({"carbon_options": {"rte": {"base": "x"}}}, "energy.carbon_options.rte.base: unknown key"),
        (
            {"carbon_options": {"rtee": {}}},
            "energy.carbon_options.rtee: no carbon source named 'rtee'; did you mean 'rte'",
        ),
        ({"carbon_options": {"static": {"year": 1999}}}, "energy.region: the table has WORLD for 2023, not for 1999"),
        (
            {"carbon_options": {"electricity-maps": {"token": "t"}}},
            "energy.carbon_options.electricity-maps.token: unknown",
        ),
    ],
)
def test_mistakes_are_found_without_asking_anybody(lab: Lab, energy: dict, problem: str) -> None:
    with pytest.raises(ConfigError) as error:
        lab.config(energy=energy)
    assert problem in str(error.value)
