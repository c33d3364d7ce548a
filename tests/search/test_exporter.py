"""The metrics of a running search, scraped while it runs."""

import dataclasses
import shutil
import socket
import subprocess
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import pytest
from prometheus_client.core import Metric
from prometheus_client.parser import text_string_to_metric_families

from greensv.energy.books.schema import transaction
from greensv.energy.grid.book import CarbonBook
from greensv.energy.grid.series import ChargeSpan
from greensv.energy.grid.watch import CarbonWatch
from greensv.errors import ConfigError
from greensv.search.artifacts import ArtifactStore
from greensv.search.events import Event, JobOpened, TrialEnded, TrialStarted
from greensv.search.exporter import Address, RunningJob, exported
from greensv.search.front import knee, pareto_front
from greensv.search.runner import run_search
from greensv.search.storage import open_storage
from greensv.units import j_from_kwh, j_from_uj
from simulated.prometheus_server import free_port
from tiny.study import Lab

Scraped = dict[str, Metric]


def scrape(url: str) -> str:
    with urllib.request.urlopen(url, timeout=5) as reply:
        return str(reply.read().decode())


def families(text: str) -> Scraped:
    return {family.name: family for family in text_string_to_metric_families(text)}


def value(found: Scraped, name: str, **labels: str) -> float:
    family = found.get(name.removesuffix("_total"), found.get(name))
    assert family is not None, f"{name} is not in {sorted(found)}"
    values = [s.value for s in family.samples if s.name == name and labels.items() <= s.labels.items()]
    assert values, f"{name} has no {labels}"
    return sum(values)


@dataclass(frozen=True)
class Search:
    """A search of three trials, and its metrics at some moments of it."""

    lab: Lab
    first_ended: str
    second_started: str
    last_ended: str
    afterwards: str


@pytest.fixture(scope="module")
def search(tmp_path_factory: pytest.TempPathFactory, young_process: None) -> Iterator[Search]:
    lab = Lab(folder=tmp_path_factory.mktemp("search"))
    with exported(lab.listen, Address(host="127.0.0.1", port=0)) as job:
        url = lab.notes().partition(": ")[2]
        texts: dict[str, str] = {}

        def listen(told: Event) -> None:
            job(told)
            match told:
                case TrialStarted() | TrialEnded():
                    number = told.number if isinstance(told, TrialStarted) else told.record.number
                    texts[f"{type(told).__name__} {number}"] = scrape(url)

        run_listened(lab, listen)
        afterwards = scrape(url)
    yield Search(
        lab=lab,
        first_ended=texts["TrialEnded 0"],
        second_started=texts["TrialStarted 1"],
        last_ended=texts["TrialEnded 2"],
        afterwards=afterwards,
    )
    lab.close()


def run_listened(lab: Lab, listen: Callable[[Event], None]) -> None:
    """Runs a search that tells `listen` its events, which passes them on to the lab."""
    storage, ledger = open_storage(lab.url, create=True)
    try:
        run_search(
            lab.config(),
            storage=storage,
            ledger=ledger,
            plugins=lab.plugins,
            budget_kwh=1.0,
            max_trials=3,
            artifacts=ArtifactStore(str(lab.folder / "trainings")),
            listen=listen,
            finish=lab.finished.append,
        )
    finally:
        storage.engine.dispose()


def test_a_search_shows_its_energy_budget_trials_and_front(search: Search):
    found = families(search.last_ended)
    records, statement = search.lab.records(), search.lab.audited()
    assert value(found, "greensv_energy_joules_total", meter="tiny", quality="measured", role="charged") > 0
    assert found["greensv_energy_joules"].type == "counter"
    assert value(found, "greensv_budget_cap_joules", account="search") == pytest.approx(j_from_kwh(1.0))
    # The account was asked up to a second before.
    assert 0 < value(found, "greensv_budget_spent_joules_total") <= j_from_uj(statement.spent_uj)
    assert value(found, "greensv_budget_reserved_joules") > 0
    assert value(found, "greensv_budget_overrun_joules") == 0
    assert value(found, "greensv_trials", state="complete") == 3
    front = pareto_front(records)
    assert value(found, "greensv_front_trials") == len(front)
    assert value(found, "greensv_knee_eer_ratio") == pytest.approx(knee(front).eer)
    assert value(found, "greensv_knee_train_energy_joules") == pytest.approx(
        j_from_kwh(knee(front).train_energy_kwh or 0)
    )
    assert value(found, "greensv_pue_ratio") == 1
    assert value(found, "greensv_info", study="tiny", account="search") == 1


def test_the_books_agree_with_the_metrics_when_both_stand_still(search: Search):
    """What the running process is asked a second after its last charge is what the ledger holds."""
    job = RunningJob(lambda event: None)
    study, ledger = search.lab.open()
    opened = next(told for told in search.lab.events if isinstance(told, JobOpened))
    metering = dataclasses.replace(opened.metering, ledger=ledger)
    job(dataclasses.replace(opened, metering=metering))
    found = {metric.name: metric for metric in job.collect()}
    statement = ledger.statement(study.study_id, "search")
    spent = {sample.labels["purpose"]: sample.value for sample in found["greensv_budget_spent_joules"].samples}
    assert spent == {name: pytest.approx(j_from_uj(uj)) for name, uj in statement.spent_by_purpose.items()}
    assert found["greensv_carbon_grams"].samples[0].value == pytest.approx(
        search.lab.finished[0].carbon.figure.carbon_g, rel=0.05
    )


def test_the_running_trial_is_shown_while_it_runs(search: Search):
    found = families(search.second_started)
    assert value(found, "greensv_trial_number") == 1
    assert value(found, "greensv_trials", state="running") == 1
    assert value(found, "greensv_trials", state="complete") == 1
    assert "greensv_trial_number" not in families(search.afterwards)


def test_counters_only_grow(search: Search):
    early, late = families(search.first_ended), families(search.afterwards)
    for name in ("greensv_energy_joules_total", "greensv_budget_spent_joules_total"):
        assert value(early, name) <= value(late, name)


def test_promtool_finds_nothing_to_blame(search: Search):
    if shutil.which("promtool") is None:
        pytest.skip("no promtool: apt-get install prometheus")
    for text in (search.second_started, search.last_ended):
        checked = subprocess.run(
            ["promtool", "check", "metrics"], input=text, capture_output=True, text=True, check=False, timeout=60
        )
        assert checked.returncode == 0, checked.stdout + checked.stderr
        assert checked.stderr == ""


def test_a_retraining_shows_its_network_and_the_searchs_front(search: Search):
    lab = search.lab
    (record, *_), front = lab.records(), pareto_front(lab.records())
    job, texts = RunningJob(lambda event: None), dict[str, list[Metric]]()

    def told(event: Event) -> None:
        job(event)
        texts[type(event).__name__] = list(job.collect())

    lab.on_event = told
    assert lab.retrain(record).is_complete
    lab.on_event = None
    stepped = {metric.name: metric for metric in texts["Stepped"]}
    assert stepped["greensv_trial_number"].samples[0].value == record.number
    assert stepped["greensv_front_trials"].samples[0].value == len(front)
    assert {sample.labels["account"] for sample in stepped["greensv_budget_cap_joules"].samples} == {"retrain"}
    assert "greensv_trial_number" not in {metric.name for metric in texts["RetrainingEnded"]}
    before = {metric.name for metric in texts["JobOpened"]}
    assert "greensv_front_trials" not in before


def test_the_charges_are_read_the_less_often_the_longer_that_takes(search: Search, monkeypatch: pytest.MonkeyPatch):
    now_s, asked_s = 0.0, list[float]()
    _, ledger = search.lab.open()
    opened = next(told for told in search.lab.events if isinstance(told, JobOpened))
    read = CarbonBook.charges_by_minute

    def slowly(book: CarbonBook, account: str) -> list[ChargeSpan]:
        nonlocal now_s
        asked_s.append(now_s)
        now_s += 2.0
        return read(book, account)

    monkeypatch.setattr(CarbonBook, "charges_by_minute", slowly)
    job = RunningJob(lambda event: None, clock=lambda: now_s)
    job(dataclasses.replace(opened, metering=dataclasses.replace(opened.metering, ledger=ledger)))
    for at_s in (0.0, 90.0, 110.0):  # 2 s of work are 2 % of 100 s
        now_s = at_s
        assert "greensv_carbon_grams" in {metric.name for metric in job.collect()}
    assert asked_s == [0.0, 110.0]


def test_a_scrape_does_not_wait_for_a_transaction_that_writes(search: Search):
    opened = next(told for told in search.lab.events if isinstance(told, JobOpened))
    _, ledger = search.lab.open()
    job = RunningJob(lambda event: None)
    carbon = dataclasses.replace(opened.carbon.book, engine=ledger.engine)
    watch = CarbonWatch(opened.carbon.source, opened.carbon.region, carbon)
    job(dataclasses.replace(opened, metering=dataclasses.replace(opened.metering, ledger=ledger), carbon=watch))
    with transaction(ledger.engine):
        names = {metric.name for metric in job.collect()}
    assert {"greensv_carbon_grams", "greensv_budget_spent_joules"} <= names


def test_nothing_is_served_where_nothing_is_asked_for(lab: Lab):
    with exported(lab.listen, None) as listen:
        assert listen == lab.listen


def test_before_the_meters_are_open_there_is_little_to_say():
    names = {metric.name for metric in RunningJob(lambda event: None).collect()}
    assert names == {"greensv_trials"}


def test_a_port_that_is_taken_is_an_error_before_anything_runs(lab: Lab):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        expected = pytest.raises(ConfigError, match=f"port {port} .*in use.*--metrics-port")
        with expected, exported(lab.listen, Address(host="127.0.0.1", port=port)):
            raise AssertionError("nothing was to run")


@pytest.mark.parametrize("host", ["192.0.2.1", "a..b"])
def test_a_host_that_is_not_ours_is_an_error(lab: Lab, host: str):
    with (
        pytest.raises(ConfigError, match="--metrics-host"),
        exported(lab.listen, Address(host=host, port=free_port())),
    ):
        raise AssertionError("nothing was to run")


def test_the_port_is_free_again_afterwards(lab: Lab):
    port = free_port()
    for _ in range(2):
        with exported(lab.listen, Address(host="127.0.0.1", port=port)):
            assert "greensv_trials" in scrape(f"http://127.0.0.1:{port}/metrics")
