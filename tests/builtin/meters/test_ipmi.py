"""The meter `ipmi`: the real ipmitool and ipmi-dcmi query a simulated BMC over loopback."""

import logging
import os
import shutil
import signal
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from greensv.builtin.meters.ipmi import IpmiMeter
from greensv.builtin.meters.ipmi_query import SYSTEM_FOLDERS, IpmiOptions, PowerQuery
from greensv.builtin.meters.ipmi_text import QueryFailed
from greensv.energy.meter import Domain, MeterRequest, MeterSession
from greensv.energy.metering.selection import choose_meters, open_meters
from greensv.energy.monitoring import Monitor
from greensv.errors import MeterError
from greensv.testing.meter_contract import MeterContract
from simulated.bmc import SimulatedBmc

PASSWORD = 'a b#c"d\\e'
PATH = os.pathsep.join((os.environ["PATH"], *SYSTEM_FOLDERS))
DEADLINE_S = 30.0


@pytest.fixture(params=["ipmitool", "ipmi-dcmi"])
def tool(request: pytest.FixtureRequest) -> str:
    if shutil.which(request.param, path=PATH) is None:
        pytest.skip(f"{request.param} is not installed")
    return request.param


@pytest.fixture
def bmc() -> Iterator[SimulatedBmc]:
    with SimulatedBmc() as simulated:
        yield simulated


def options(bmc: SimulatedBmc, tool: str, **changes) -> IpmiOptions:
    """An address without a password, asked quickly. Hasty enough to time out only where a test says so."""
    values = {"interface": "lan", "includes_gpu": True, "interval_s": 0.02, "timeout_s": 20.0}
    return IpmiOptions(host="127.0.0.1", port=bmc.port, tool=tool, **{**values, **changes})  # type: ignore[arg-type]


def request_of(bmc: SimulatedBmc, tool: str, **changes) -> MeterRequest:
    return MeterRequest(options=options(bmc, tool, **changes))


@contextmanager
def opened(request: MeterRequest) -> Iterator[MeterSession]:
    session = IpmiMeter().open(request)
    try:
        yield session
    finally:
        session.close()


def wait_until_it_fails(session: MeterSession) -> None:
    deadline_s = time.monotonic() + DEADLINE_S
    while time.monotonic() < deadline_s:
        try:
            session.read()
        except MeterError:
            return
        time.sleep(0.01)
    pytest.fail("the session goes on showing an old reading")


class Watched(IpmiMeter):
    """Remembers its open sessions, for a test to wait until they have noticed that the BMC is gone."""

    opened: list[MeterSession] = []  # noqa: RUF012 - the contract makes meters without arguments

    def open(self, request: MeterRequest) -> MeterSession:
        session = super().open(request)
        self.opened.append(session)
        return session


class TestIpmiContract(MeterContract):
    @pytest.fixture
    def meter(self) -> Watched:
        Watched.opened.clear()
        return Watched()

    @pytest.fixture(autouse=True)
    def _bmc(self, bmc: SimulatedBmc) -> None:
        self.bmc = bmc

    @pytest.fixture
    def meter_request(self, bmc: SimulatedBmc, tool: str) -> MeterRequest:
        return request_of(bmc, tool)

    @contextmanager
    def lost_hardware(self) -> Iterator[None]:
        with self.bmc.broken():
            for session in Watched.opened:
                wait_until_it_fails(session)
            yield


def test_it_reads_the_present_power_and_neither_average_nor_extremes(bmc, tool):
    about = IpmiMeter().probe(request_of(bmc, tool))
    assert about.domains == (Domain("node"),)
    assert about.notes == (f"{tool} reads 332 W",)
    with opened(request_of(bmc, tool)) as session:
        (sample,) = session.read()
    assert (sample.domain, sample.power_w) == (Domain("node"), 332.0)


def test_reading_never_waits_for_the_bmc(bmc, tool):
    """It shows the latest answer, with its own time; a session that is closed ends the question under way."""
    with opened(request_of(bmc, tool)) as session:
        (first,) = session.read()
        bmc.wait_for_readings(2)  # the second question comes after the first one's answer
        bmc.is_silent = True
        (later,) = session.read()
        assert first.taken_at_s < later.taken_at_s < time.monotonic()
        bmc.wait_for_packets(1)  # now a question is under way that nobody answers
        assert session.read()[0].power_w == 332
    assert "greensv-ipmi" not in [thread.name for thread in threading.enumerate()]


def test_new_power_is_seen(bmc, tool):
    with opened(request_of(bmc, tool)) as session:
        bmc.power_w = 500
        bmc.wait_for_readings(3)  # the third question comes after the second's answer, which saw 500 W
        assert session.read()[0].power_w == 500


def test_a_bmc_that_stops_answering_is_no_zero_and_recovers(bmc, tool, caplog):
    with opened(request_of(bmc, tool)) as session:
        with bmc.broken(0xC0), caplog.at_level(logging.WARNING):
            wait_until_it_fails(session)
            with pytest.raises(MeterError, match=r"no reading for \d.*the BMC is busy .*raise energy.options.ipmi.int"):
                session.read()
        bmc.wait_for_readings(3)
        assert session.read()[0].power_w == 332
    assert len([r for r in caplog.records if "the BMC is busy" in r.message]) == 1


def test_two_missing_readings_are_bridged_by_the_one_before(bmc, tool, caplog):
    with opened(request_of(bmc, tool)) as session, caplog.at_level(logging.WARNING):
        bmc.num_busy = 2
        bmc.wait_for_readings(2)
        assert session.read()[0].power_w == 332
        bmc.wait_for_readings(2)
        assert session.read()[0].power_w == 332
    assert len([r for r in caplog.records if "the BMC is busy" in r.message]) == 1


@pytest.mark.parametrize(
    ("completion_code", "reason", "remedy"),
    [
        (0xC1, "the BMC knows no DCMI power reading", "another meter"),
        (0xFF, "the BMC refused without saying why, as many do when they are asked too often", "interval_s"),
        (0xC0, "the BMC is busy", "interval_s"),
        (0xD4, "this user may not read the power", "privilege"),
    ],
)
def test_refusals_have_a_reason_and_a_remedy(bmc, tool, completion_code, reason, remedy):
    with bmc.broken(completion_code):
        about = IpmiMeter().probe(request_of(bmc, tool))
        assert (about.reason or "").startswith(reason)
        assert remedy in (about.remedy or "")
        with pytest.raises(MeterError, match=f"meter 'ipmi' is not available: {reason}"):
            IpmiMeter().open(request_of(bmc, tool))


@pytest.mark.parametrize("power_w", [0, 65_535])
def test_watts_that_mean_none_are_failures(bmc, tool, power_w):
    bmc.power_w = power_w
    for trust in (False, True):
        about = IpmiMeter().probe(request_of(bmc, tool, trust_deactivated=trust))
        assert (about.reason or "").startswith(f"the BMC reports {power_w} W (acti")
        assert "does not know" in (about.reason or "")


def test_a_measurement_that_is_not_active_is_trusted_only_where_that_is_said(bmc, tool):
    bmc.is_active = False
    about = IpmiMeter().probe(request_of(bmc, tool))
    assert "reports 332 W, but that its measurement is" in (about.reason or "")
    assert "trust_deactivated" in (about.remedy or "")
    assert IpmiMeter().probe(request_of(bmc, tool, trust_deactivated=True)).is_available
    bmc.power_w = 0
    assert not IpmiMeter().probe(request_of(bmc, tool, trust_deactivated=True)).is_available


def test_a_silent_bmc_is_given_up(bmc, tool):
    bmc.is_silent = True
    about = IpmiMeter().probe(request_of(bmc, tool, timeout_s=0.2))
    assert about.reason == f"no answer of the BMC within 0.2 s ({tool} was stopped)"
    assert "timeout_s" in (about.remedy or "")


def test_the_password_is_used_and_seen_on_no_command_line(tool, monkeypatch):
    monkeypatch.setenv("IPMI_PASSWORD", PASSWORD)
    command_lines: list[str] = []
    real = subprocess.Popen

    def spy(command, **kwargs):
        command_lines.append(" ".join(command))
        return real(command, **kwargs)

    monkeypatch.setattr("greensv.builtin.meters.ipmi_query.subprocess.Popen", spy)
    with SimulatedBmc(user="bob", password=PASSWORD) as bmc:
        about = IpmiMeter().probe(request_of(bmc, tool, user="bob"))
    assert about.notes == (f"{tool} reads 332 W",)
    assert command_lines
    assert not [line for line in command_lines if PASSWORD in line]
    assert PASSWORD not in repr(about)


@pytest.mark.parametrize(("user", "password"), [("eve", PASSWORD), ("bob", "wrong")])
def test_a_refused_login_says_what_to_check(tool, user, password, monkeypatch):
    monkeypatch.setenv("IPMI_PASSWORD", password)
    with SimulatedBmc(user="bob", password=PASSWORD) as bmc:
        about = IpmiMeter().probe(request_of(bmc, tool, user=user, timeout_s=3.0))  # the tools give up at half of it
    assert (about.reason or "").startswith("the BMC did not accept the user or the password")
    assert "IPMI_PASSWORD" in (about.remedy or "")
    assert password not in repr(about)


def test_a_user_without_a_password_is_told_where_to_put_it(bmc, tool, monkeypatch):
    monkeypatch.delenv("IPMI_PASSWORD", raising=False)
    about = IpmiMeter().probe(request_of(bmc, tool, user="bob"))
    assert about.reason == "no password for user 'bob' of the BMC at 127.0.0.1"
    assert about.remedy == "set the environment variable IPMI_PASSWORD"


@pytest.mark.skipif(bool(list(Path("/dev").glob("ipmi*"))), reason="this machine has a BMC")
def test_a_machine_without_a_bmc_says_so(tool):
    about = IpmiMeter().probe(MeterRequest(options=IpmiOptions(tool=tool)))  # type: ignore[arg-type]
    assert (about.reason or "").startswith(("this machine shows no BMC", "no permission to talk"))
    assert "energy.options.ipmi.host" in (about.remedy or "") or "root" in (about.remedy or "")


def test_where_gpus_are_in_use_it_must_be_stated_whether_they_are_included(bmc, tool):
    unstated = options(bmc, tool, includes_gpu=None)
    about = IpmiMeter().probe(MeterRequest(options=unstated, gpu_uuids=("GPU-1",)))
    assert about.reason == "GPUs are in use, and it is not stated whether the BMC's power holds theirs"
    assert "set energy.options.ipmi.includes_gpu" in (about.remedy or "")
    assert bmc.num_power_readings == 0
    about = IpmiMeter().probe(MeterRequest(options=unstated))
    assert about.domains == (Domain("host"),)
    assert "includes_gpu does not say otherwise" in about.notes[1]


@pytest.mark.parametrize(("includes_gpu", "domain"), [(True, "node"), (False, "host")])
def test_the_domain_is_what_is_stated(bmc, tool, includes_gpu, domain):
    request = MeterRequest(options=options(bmc, tool, includes_gpu=includes_gpu), gpu_uuids=("GPU-1",))
    assert IpmiMeter().probe(request).domains == (Domain(domain),)


def test_the_monitor_integrates_its_watts(bmc, tool):
    """Real time passes here, and is measured with the window: the power is what counts."""
    raw = {"host": "127.0.0.1", "port": bmc.port, "interface": "lan", "includes_gpu": True, "tool": tool}
    choices = choose_meters([IpmiMeter()], ["ipmi"], options={"ipmi": {**raw, "interval_s": 0.02, "timeout_s": 20}})
    with Monitor(open_meters(choices), interval_s=0.05) as monitor:
        with monitor.window("busy") as window:
            bmc.wait_for_readings(3)
        result = window.result
    assert result.energy_j / result.duration_s == pytest.approx(332, rel=1e-6)
    (reading,) = result.readings
    assert (str(reading.domain), reading.quality, reading.meter) == ("node", "measured", "ipmi")
    assert reading.uncertainty_j >= 0.05 * reading.energy_j * (1 - 1e-9)


def test_a_tool_that_is_not_installed_is_named(monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr("greensv.builtin.meters.ipmi_query.SYSTEM_FOLDERS", ())
    about = IpmiMeter().probe(MeterRequest())
    assert about.reason == "ipmitool and ipmi-dcmi are not installed"
    about = IpmiMeter().probe(MeterRequest(options=IpmiOptions(tool="ipmi-dcmi")))
    assert about.reason == "ipmi-dcmi is not installed"
    assert "apt-get install" in (about.remedy or "")


def test_auto_takes_the_tool_that_is_there(bmc, tool, monkeypatch, tmp_path):
    (tmp_path / tool).symlink_to(shutil.which(tool, path=PATH) or "")
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr("greensv.builtin.meters.ipmi_query.SYSTEM_FOLDERS", ())
    assert IpmiMeter().probe(request_of(bmc, "auto")).notes == (f"{tool} reads 332 W",)


def test_its_resolution_is_no_better_than_how_often_it_is_asked(bmc, tool):
    about = IpmiMeter().probe(request_of(bmc, tool, interval_s=5.0, resolution_s=1.0))
    assert about.resolution_s == 5.0
    assert IpmiMeter().probe(request_of(bmc, tool, interval_s=0.5, resolution_s=2.0)).resolution_s == 2.0


def test_a_tool_whose_own_child_holds_its_output_is_given_up_too(monkeypatch, tmp_path):
    script = tmp_path / "ipmitool"
    script.write_text(f"#!/bin/sh\nsleep 600 &\necho $! > {tmp_path}/child\nwait\n")
    script.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)
    try:
        query = PowerQuery(IpmiOptions(tool="ipmitool", timeout_s=2.0))
        with pytest.raises(QueryFailed, match="no answer of the BMC within 2 s"):
            query.power_w()
        os.kill(int((tmp_path / "child").read_text()), 0)  # it has not been waited for
    finally:
        os.kill(int((tmp_path / "child").read_text()), signal.SIGKILL)


def test_whatever_fails_in_the_thread_is_told(bmc, tool, monkeypatch, caplog):
    with opened(request_of(bmc, tool)) as session:

        def fail(self: PowerQuery) -> float:
            raise ValueError("nobody expected this")

        monkeypatch.setattr(PowerQuery, "power_w", fail)
        wait_until_it_fails(session)
        with pytest.raises(MeterError, match=r"ValueError: nobody expected this.*report this"):
            session.read()
