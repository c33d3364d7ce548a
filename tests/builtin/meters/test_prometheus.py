"""The meter `prometheus` on a real server that scrapes a simulated exporter."""

import math
import re
import time
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from greensv.builtin.meters.prometheus import PrometheusMeter
from greensv.builtin.meters.prometheus_series import PrometheusOptions, SeriesOptions
from greensv.config.load import validate
from greensv.energy.cluster.prometheus import PrometheusClient
from greensv.energy.meter import CounterSample, Domain, MeterRequest, MeterSession
from greensv.energy.metering.selection import choose_meters
from greensv.energy.metering.tally import OpenMeter
from greensv.energy.monitoring import Monitor
from greensv.errors import MeterError
from greensv.search.events import Event, Noted, TrialEnded
from greensv.search.exporter import Address, exported
from greensv.testing.meter_contract import MeterContract
from greensv.trial_record import TrialRecord
from simulated.prometheus_server import Answers, Exporter, Server, answering, exporter, prometheus, wait_until

HOST = "n1"
GPU, OTHER_GPU = "GPU-11111111-2222-3333-4444-555555555555", "GPU-99999999-2222-3333-4444-555555555555"
RANGE_J = 100_000.0
STEP_J = 20.0
"""The simulated package uses so much from one scrape to the next."""


class Machine:
    """What the exporter shows. Each scrape is one step, so that what was used between two scrapes is known."""

    def __init__(self) -> None:
        self.num_steps = 0
        self.reset_at: int | None = None
        self.odometer_from: int | None = None
        self.is_gone = False

    def text(self) -> str:
        self.num_steps += 1
        package_j = STEP_J * (self.num_steps - (self.reset_at or 0))
        lines = [
            f'ceems_rapl_package_joules_total{{hostname="{HOST}",index="0",path="a"}} {package_j}',
            f'ceems_rapl_package_joules_total{{hostname="n2",index="0",path="a"}} {package_j}',
            f'ceems_ipmi_dcmi_current_watts{{hostname="{HOST}"}} 400',
            f'DCGM_FI_DEV_POWER_USAGE{{gpu="0",UUID="{GPU}",Hostname="{HOST}"}} 250',
            f'DCGM_FI_DEV_POWER_USAGE{{gpu="1",UUID="{OTHER_GPU}",Hostname="{HOST}"}} 90',
            f'DCGM_FI_DEV_TOTAL_ENERGY_CONSUMPTION{{gpu="0",UUID="{GPU}"}} {50_000 * self.num_steps}',
            f"steps {self.num_steps}",
            f'fickle_watts{{UUID="{GPU}"}} {100 if self.num_steps % 2 else 300}',
        ]
        # Stands three steps before its wrap until it is let go; the other does not wrap.
        gone_j = STEP_J * (0 if self.odometer_from is None else self.num_steps - self.odometer_from)
        lines += [f"odometer {(RANGE_J - 3 * STEP_J + gone_j) % RANGE_J}", f"unwrapped {gone_j}"]
        if self.is_gone:
            lines = [line for line in lines if "ceems" not in line]
        return "\n".join(lines) + "\n"


@pytest.fixture(scope="module")
def machine() -> Machine:
    return Machine()


@pytest.fixture(scope="module")
def shown(machine: Machine) -> Iterator[Exporter]:
    with exporter(machine.text) as shown:
        yield shown


@pytest.fixture(scope="module")
def running_job() -> Iterator[str]:
    """Where greensv's own metrics are served, of a search with a front."""
    said: list[Event] = []
    with exported(said.append, Address(host="127.0.0.1", port=0)) as job:
        best = TrialRecord(number=0, state="complete", eer=0.05, train_energy_kwh=0.25)
        job(TrialEnded(record=best, front=[best]))
        assert isinstance(said[0], Noted)
        yield said[0].text.split("//")[1].removesuffix("/metrics")


@pytest.fixture(scope="module")
def server(shown: Exporter, running_job: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with prometheus(tmp_path_factory.mktemp("prometheus"), scrape=[shown.url, running_job]) as server:
        wait_until(lambda: shown.scrapes >= 4)
        yield server


def rapl(server: Server, **changes: object) -> PrometheusOptions:
    # The clock of a busy machine stands still for a second at times; a counter of 100 kJ is unambiguous for 10 s.
    values = {"url": server.url, "presets": ("ceems",), "hostname": HOST, "cpu_range_j": RANGE_J, "timeout_s": 0.3}
    return PrometheusOptions(**{**values, **changes})  # type: ignore[arg-type]


@contextmanager
def opened(options: PrometheusOptions, *gpu_uuids: str) -> Iterator[MeterSession]:
    session = PrometheusMeter().open(MeterRequest(gpu_uuids=gpu_uuids, options=options))
    try:
        yield session
    finally:
        session.close()


@contextmanager
def monitored(options: PrometheusOptions, *gpu_uuids: str) -> Iterator[Monitor]:
    meter, request = PrometheusMeter(), MeterRequest(gpu_uuids=gpu_uuids, options=options)
    session = meter.open(request)
    open_meter = OpenMeter(name=meter.name, quality=meter.quality, session=session, availability=meter.probe(request))
    with Monitor([open_meter], interval_s=0.05) as monitor:
        yield monitor


def joules(session: MeterSession) -> dict[str, float]:
    samples = session.read()
    assert all(isinstance(sample, CounterSample) for sample in samples)
    return {str(s.domain): s.count * s.unit_j for s in samples if isinstance(s, CounterSample)}


def reason(options: PrometheusOptions, **request: object) -> str:
    about = PrometheusMeter().probe(MeterRequest(options=options, **request))  # type: ignore[arg-type]
    assert not about.is_available
    assert about.remedy
    return about.reason or ""


class TestPrometheusContract(MeterContract):
    MAX_AGE_S = 1.2

    @pytest.fixture
    def meter(self) -> PrometheusMeter:
        return PrometheusMeter()

    @pytest.fixture
    def meter_request(self, server: Server) -> MeterRequest:
        self.server = server
        options = rapl(server, presets=("ceems", "dcgm"), max_age_s=self.MAX_AGE_S)
        return MeterRequest(gpu_uuids=(GPU,), options=options)

    @pytest.fixture(autouse=True)
    def _server(self, server: Server) -> None:
        self.server = server

    @contextmanager
    def lost_hardware(self) -> Iterator[None]:
        with self.server.frozen():
            yield

    def test_reading_lost_hardware_raises_a_meter_error(
        self, meter: PrometheusMeter, meter_request: MeterRequest
    ) -> None:
        """A sample is good for `max_age_s`: only then is a server that is gone an error."""
        with self._opened(meter, meter_request) as session:
            session.read()
            with self.lost_hardware():
                time.sleep(self.MAX_AGE_S)
                with pytest.raises(MeterError, match=r"s old .* did not answer within 0\.3 s"):
                    session.read()
            wait_until(lambda: _reads(session))


def _reads(session: MeterSession) -> bool:
    try:
        session.read()
    except MeterError:
        return False
    return True


def test_every_sample_of_wrapping_counters_and_of_power_counts(server: Server, machine: Machine):
    """The power is 200 W on average, which no single sample shows: seen every other time it is 100 or 300 W."""
    unwrapped = SeriesOptions(query="unwrapped", kind="counter-joules", domain="dram")
    odometer = SeriesOptions(
        query="odometer", kind="counter-joules", domain="cpu:0", range_j=RANGE_J, max_power_w=RANGE_J / 10
    )
    fickle = SeriesOptions(query="fickle_watts", kind="power-watts", domain="gpu:{UUID}")
    with opened(rapl(server, presets=(), series=(unwrapped, odometer, fickle)), GPU) as session:
        began_s = {str(sample.domain): sample.taken_at_s for sample in session.read()}
        machine.odometer_from = machine.num_steps
        wait_until(lambda: joules(session)["cpu:0"] >= 6 * STEP_J)
        last = {str(sample.domain): sample for sample in session.read()}
        found_j = joules(session)
    assert math.remainder(found_j["cpu:0"], STEP_J) == pytest.approx(0.0, abs=1e-5)
    # Both counters are of the same scrapes; between the two requests there may have been another.
    assert abs(found_j["dram"] - found_j["cpu:0"]) <= STEP_J + 1e-5
    gpu = f"gpu:{GPU}"
    assert found_j[gpu] / (last[gpu].taken_at_s - began_s[gpu]) == pytest.approx(200, rel=0.1)


def test_the_ceems_preset_is_of_this_host_and_tells_what_is_missing(server: Server):
    about = PrometheusMeter().probe(MeterRequest(options=rapl(server)))
    assert about.domains == (Domain("cpu", "0"),)
    assert any("ceems_rapl_dram_joules_total" in note for note in about.notes)


def test_the_resolution_is_the_scrape_interval_and_a_bit(server: Server):
    about = PrometheusMeter().probe(MeterRequest(options=rapl(server, scrape_interval_s=15.0)))
    assert about.resolution_s == pytest.approx(15 + 3.75)
    measured = PrometheusMeter().probe(MeterRequest(options=rapl(server)))
    assert measured.resolution_s >= 0.2


def test_only_the_gpus_in_use_are_read(server: Server, monkeypatch: pytest.MonkeyPatch):
    options = rapl(server, presets=("dcgm",))
    meter = PrometheusMeter()
    assert meter.probe(MeterRequest(gpu_uuids=(GPU,), options=options)).domains == (Domain("gpu", GPU),)
    assert "GPUs in use: none" in reason(options)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", f"{OTHER_GPU[:12]}")
    visible = meter.probe(MeterRequest(uses_visible_gpus=True, options=options))
    assert visible.domains == (Domain("gpu", OTHER_GPU),)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0")
    assert "names no GPU by its UUID" in reason(options, uses_visible_gpus=True)


def test_the_beginning_of_a_uuid_that_other_machines_gpus_share_is_refused(
    server: Server, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "GPU-")
    said = reason(rapl(server, presets=("dcgm",)), uses_visible_gpus=True)
    assert "GPU- begins the UUIDs of 2 GPUs that the server knows" in said
    assert "full UUIDs" in said


@pytest.mark.parametrize("hidden", ["", "-1"])
def test_where_all_gpus_are_hidden_none_is_asked_for(server: Server, monkeypatch: pytest.MonkeyPatch, hidden: str):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", hidden)
    request = MeterRequest(uses_visible_gpus=True, options=rapl(server, presets=("ceems", "dcgm")))
    assert PrometheusMeter().probe(request).domains == (Domain("cpu", "0"),)


def test_the_gpus_own_counters_are_in_millijoules(server: Server):
    with opened(rapl(server, presets=("dcgm-energy",)), GPU) as session:
        wait_until(lambda: joules(session)[f"gpu:{GPU}"] >= 100)
        assert math.remainder(joules(session)[f"gpu:{GPU}"], 50) == pytest.approx(0.0, abs=1e-4)


def test_a_node_is_whole_only_where_its_power_holds_the_gpus(server: Server):
    meter = PrometheusMeter()
    for includes_gpu, domain in ((False, Domain("host")), (True, Domain("node"))):
        options = rapl(server, presets=("ceems-ipmi",), ipmi_includes_gpu=includes_gpu)
        assert meter.probe(MeterRequest(options=options)).domains == (domain,)


def test_a_machine_and_its_processors_are_a_whole_and_its_part(server: Server):
    options = {"prometheus": {"url": server.url, "presets": ["ceems", "ceems-ipmi"], "hostname": HOST}}
    (choice,) = choose_meters([PrometheusMeter()], ["prometheus"], options=options)
    assert choice.roles == {Domain("cpu", "0"): "part", Domain("host"): "charged"}


def test_what_would_be_counted_twice_is_refused(server: Server):
    every_socket = SeriesOptions(query="steps", kind="counter-joules", domain="cpu")
    assert "would both count the same energy" in reason(rapl(server, series=(every_socket,)))
    twice = SeriesOptions(query="steps", kind="counter-joules", domain="cpu:0")
    assert "would both count cpu:0" in reason(rapl(server, series=(twice,)))


def test_two_series_where_one_is_expected_are_named(server: Server):
    every_host = SeriesOptions(query="ceems_rapl_package_joules_total", kind="counter-joules", domain="cpu:{index}")
    said = reason(rapl(server, presets=(), series=(every_host,)))
    assert "two series for cpu:0" in said
    assert 'hostname="n2"' in said


def test_a_label_that_is_not_there_is_named(server: Server):
    wrong = SeriesOptions(
        query=f'ceems_rapl_package_joules_total{{hostname="{HOST}"}}', kind="counter-joules", domain="cpu:{socket}"
    )
    assert "has no label 'socket'" in reason(rapl(server, presets=(), series=(wrong,)))


def test_a_missing_series_is_an_error_and_says_what_was_asked(server: Server):
    said = reason(rapl(server, hostname="elsewhere"))
    assert 'ceems_rapl_package_joules_total{hostname="elsewhere"}' in said


def test_a_function_in_a_query_is_refused_with_advice(server: Server):
    rate = SeriesOptions(query="rate(steps[1m])", kind="power-watts", domain="node")
    assert "give a selector" in reason(rapl(server, presets=(), series=(rate,)))


def test_a_counter_that_goes_back_without_a_range_fails_for_good(server: Server, machine: Machine):
    series = SeriesOptions(
        query=f'ceems_rapl_package_joules_total{{hostname="{HOST}"}}', kind="counter-joules", domain="cpu:{index}"
    )
    with opened(rapl(server, presets=(), series=(series,))) as session:
        session.read()
        machine.reset_at = machine.num_steps
        try:
            wait_until(lambda: not _reads(session))
            with pytest.raises(MeterError, match="went back"):
                session.read()
        finally:
            machine.reset_at = None


def test_a_series_that_ends_is_an_error_when_it_is_too_old(server: Server, machine: Machine):
    with opened(rapl(server, max_age_s=1.0)) as session:
        machine.is_gone = True
        try:
            wait_until(lambda: not _reads(session))
            with pytest.raises(MeterError, match="the server has no newer one"):
                session.read()
            assert "s old (at most 1 s)" in reason(rapl(server, max_age_s=1.0))
        finally:
            machine.is_gone = False


def test_a_monitor_counts_it_and_notes_the_gaps(server: Server):
    options = rapl(server, scrape_interval_s=0.02)
    wait_until(lambda: PrometheusMeter().probe(MeterRequest(options=options)).is_available)
    with monitored(options) as monitor:
        with monitor.window("work") as window:
            wait_until(lambda: sum(reading.energy_j for reading in monitor.known_totals()) > 0)
        (reading,) = window.result.readings
        assert reading.energy_j > 0
        # A window's edges are later than the samples, and are held at their power; totals are of samples alone.
        (total,) = monitor.known_totals()
        assert math.remainder(total.energy_j, STEP_J) == pytest.approx(0.0, abs=1e-5)
        assert reading.uncertainty_j > 0
        assert any("cpu:0: no samples for" in note and "its counter bridges it" in note for note in monitor.notes)


def test_a_server_scrapes_greensvs_own_metrics(server: Server):
    """Here, because a server takes 5 s to begin; tests/search/test_exporter.py looks at all of them."""
    client = PrometheusClient(server.url)
    wait_until(lambda: client.raw("greensv_knee_train_energy_joules", duration_s=60))
    (eer,) = client.raw("greensv_knee_eer_ratio", duration_s=60)
    assert eer.samples[-1][1] == 0.05


def test_nothing_is_asked_where_no_server_is_configured():
    assert reason(PrometheusOptions()) == "no server is configured"
    assert reason(PrometheusOptions(url="http://127.0.0.1:1")) == "no series is configured"


def test_a_server_that_is_not_there_is_a_reason():
    said = reason(PrometheusOptions(url="http://127.0.0.1:1", presets=("ceems",)))
    assert re.search(r"127\.0\.0\.1:1 cannot be reached .*refused", said)


def test_the_token_is_sent_and_never_shown(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("GREENSV_PROMETHEUS_TOKEN", "secret-token")
    with answering(Answers(status=401, body="go away")) as answers:
        said = reason(PrometheusOptions(url=answers.url, presets=("ceems",)))
    assert answers.asked[0][1]["Authorization"] == "Bearer secret-token"
    assert "refuses the token in the environment variable GREENSV_PROMETHEUS_TOKEN" in said
    assert "secret-token" not in said


def test_options_come_from_toml_and_mistakes_are_named():
    raw = {"url": "http://p", "series": [{"query": "x", "kind": "power-watts", "domain": "gpu:{UUID}", "scale": 0.001}]}
    options, problems = validate(PrometheusOptions, raw)
    assert not problems
    assert options is not None
    assert options.all_series()[0].scale == 0.001
    _, problems = validate(PrometheusOptions, {"series": [{"query": "x", "kind": "power-watts", "domain": "socket:0"}]})
    assert "domain 'socket:0' is none of cpu" in str(problems[0])


def test_the_limit_of_the_memory_is_its_own_and_an_option():
    package, dram = PrometheusOptions(presets=("ceems",)).all_series()
    assert (package.max_power_w, dram.max_power_w) == (1000.0, 250.0)
    _, dram = PrometheusOptions(presets=("ceems",), dram_max_power_w=80.0).all_series()
    assert dram.max_power_w == 80.0
