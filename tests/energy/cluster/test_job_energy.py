"""The energy of SLURM jobs, on a real Prometheus that holds a day of a known cluster."""

import itertools
import json
import math
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from click.testing import CliRunner

from greensv.cli.main import cli
from greensv.energy.cluster.job_energy import JobOptions, job_energy
from greensv.energy.cluster.prometheus import PrometheusClient, RawSample
from greensv.energy.cluster.raw_energy import Scale, cumulative_j
from greensv.energy.meter import Domain
from greensv.errors import MeterError
from simulated.prometheus_server import Series, Server, prometheus

START = float(int(time.time())) - 86_400
HOUR, STEP, WEEK_S = 3600.0, 15.0, 604_800.0
END = START + 2 * HOUR
RANGE_J, DRAM_RANGE_J = 262_143.328850, 65_712.999613
GPU_A, GPU_B, GPU_C = "GPU-aaaaaaaa", "GPU-bbbbbbbb", "GPU-cccccccc"
IDLE_W = 120.0


def at(from_s: float, to_s: float, value: Callable[[float], float]) -> list[RawSample]:
    """Samples of a quantity, every 15 s, both ends included; `value` of the seconds since START."""
    times = itertools.takewhile(lambda t: t <= to_s, itertools.count(from_s, STEP))
    return [(START + t, value(t)) for t in times]


def node_w(t: float) -> float:
    """120 W at rest; 400 W from half an hour on; a step within a scrape gap for nobody to see."""
    return IDLE_W if t < HOUR / 2 else 400.0


def unit(metric: str, uuid: str, **labels: str) -> str:
    pairs = {"manager": "slurm", "hostname": "n1", "cgrouphostname": "n1", "uuid": uuid, **labels}
    return f"ceems_compute_unit_{metric}{{" + ",".join(f'{k}="{v}"' for k, v in pairs.items()) + "}"


def job(
    uuid: str, from_s: float, to_s: float, *, cores: float, memory_bytes: float, hostname: str = "n1"
) -> list[Series]:
    """A job that keeps `cores` busy, a tenth of it in the kernel."""
    return [
        Series(
            unit("cpu_user_seconds_total", uuid, hostname=hostname),
            at(from_s, to_s, lambda t: 0.9 * cores * (t - from_s) + 7),
        ),
        Series(
            unit("cpu_system_seconds_total", uuid, hostname=hostname),
            at(from_s, to_s, lambda t: 0.1 * cores * (t - from_s) + 3),
        ),
        Series(unit("memory_used_bytes", uuid, hostname=hostname), at(from_s, to_s, lambda t: memory_bytes)),
    ]


def without(samples: list[RawSample], from_s: float, to_s: float) -> list[RawSample]:
    return [sample for sample in samples if not START + from_s < sample[0] < START + to_s]


def package(hostname: str, to_s: float, value: Callable[[float], float]) -> Series:
    return Series(f'ceems_rapl_package_joules_total{{hostname="{hostname}",index="0",path="p"}}', at(0, to_s, value))


def dram(hostname: str, to_s: float, value: Callable[[float], float]) -> Series:
    return Series(f'ceems_rapl_dram_joules_total{{hostname="{hostname}",index="0",path="d"}}', at(0, to_s, value))


def rapl(hostname: str, samples: list[RawSample], *, path: str = "p", job: str = "ceems") -> Series:
    return Series(
        f'ceems_rapl_package_joules_total{{hostname="{hostname}",index="0",path="{path}",job="{job}"}}', samples
    )


def dcgm(uuid: str, hostname: str, samples: list[RawSample], *, hpc_job: str) -> Series:
    return Series(f'DCGM_FI_DEV_POWER_USAGE{{UUID="{uuid}",Hostname="{hostname}",hpc_job="{hpc_job}"}}', samples)


def bmc(hostname: str, samples: list[RawSample]) -> Series:
    return Series(f'ceems_ipmi_dcmi_current_watts{{hostname="{hostname}"}}', samples)


HISTORY = [
    # A package of 150 W that wraps every 29 min, and its memory of 50 W: a quarter of what both use.
    package("n1", 2 * HOUR, lambda t: (150 * t + 200_000) % RANGE_J),
    dram("n1", 2 * HOUR, lambda t: (50 * t) % DRAM_RANGE_J),
    bmc("n1", at(0, 2 * HOUR, node_w)),
    # Two jobs: both from 3,000 to 4,200 s, `100` alone before, `200` alone afterwards.
    *job("100", 2400, 4200, cores=3, memory_bytes=1e9),
    *job("200", 3000, 4800, cores=1, memory_bytes=3e9),
    # On another node with GPUs, of which one is split in two halves; `400` has one half.
    *job("300", 600, 3000, cores=2, memory_bytes=1e9, hostname="g1"),
    *job("400", 600, 3000, cores=2, memory_bytes=1e9, hostname="g1"),
    bmc("g1", without(at(0, HOUR, lambda t: 900.0 if t < 1500 else 1200.0), 1200, 1800)),
    Series(unit("gpu_index_flag", "300", hostname="g1", gpuuuid=GPU_A, index="0"), at(600, 3000, lambda t: 1.0)),
    Series(unit("gpu_index_flag", "400", hostname="g1", gpuuuid=GPU_B, index="1"), at(600, 3000, lambda t: 0.5)),
    Series(f'DCGM_FI_DEV_POWER_USAGE{{UUID="{GPU_A}",Hostname="g1"}}', at(4, HOUR, lambda t: 300.0)),
    Series(f'DCGM_FI_DEV_POWER_USAGE{{gpuuuid="{GPU_B}",hostname="g1"}}', at(4, HOUR, lambda t: 100.0)),
    # A job on two nodes whose BMC nobody asks.
    *job("500", 0, 600, cores=1, memory_bytes=1e9, hostname="r1"),
    *job("500", 0, 600, cores=1, memory_bytes=1e9, hostname="r2"),
    package("r1", HOUR, lambda t: 100 * t),
    package("r2", HOUR, lambda t: 100 * t),
    # A BMC that was asked from the middle of a job on only.
    *job("550", 0, 1200, cores=1, memory_bytes=1e9, hostname="late"),
    bmc("late", at(600, HOUR, lambda t: 200.0)),
    # An exporter that two scrape jobs ask, and one that moved from one scrape job to another.
    *job("800", 0, 600, cores=1, memory_bytes=1e9, hostname="twice"),
    rapl("twice", at(0, HOUR, lambda t: 100 * t), job="a"),
    rapl("twice", at(5, HOUR, lambda t: 100 * t), job="b"),
    *job("810", 0, 600, cores=1, memory_bytes=1e9, hostname="moved"),
    rapl("moved", at(0, 300, lambda t: 100 * t), job="a"),
    rapl("moved", at(315, HOUR, lambda t: 100 * t), job="b"),
    # A machine at rest at 60 W that was restarted and missed by the scrapes before a job of 100 W.
    *job("820", 4500, 6000, cores=1, memory_bytes=1e9, hostname="reset"),
    rapl("reset", at(0, 900, lambda t: 150_000 + 60 * t)),
    rapl("reset", at(1500, 6300, lambda t: (100 * (t - 1500)) % RANGE_J), path="q"),
    # Exporters that two scrape jobs asked for the first half hour, at rest at 60 W; then a job of 100 W.
    *job("825", 4500, 6000, cores=1, memory_bytes=1e9, hostname="once-twice"),
    rapl("once-twice", at(0, 6300, lambda t: (60 * t + 40 * max(0, t - HOUR)) % RANGE_J), job="a"),
    rapl("once-twice", at(5, HOUR / 2, lambda t: 60 * t), job="b"),
    *job("826", 4500, 6000, cores=1, memory_bytes=1e9, hostname="bmc-twice"),
    *(
        Series(
            f'ceems_ipmi_dcmi_current_watts{{hostname="bmc-twice",job="{name}"}}',
            at(from_s, to_s, lambda t: 60.0 if t < HOUR else 100.0),
        )
        for name, from_s, to_s in (("a", 0, HOUR / 2), ("b", 5, 6300))
    ),
    # Memory of 50 W, not scraped for 200 s within a job.
    *job("830", 0, 1200, cores=1, memory_bytes=1e9, hostname="gap"),
    rapl("gap", without(at(0, HOUR, lambda t: 100 * t), 600, 801)),
    Series(
        'ceems_rapl_dram_joules_total{hostname="gap",index="0",path="d"}',
        without(at(0, HOUR, lambda t: (50 * t) % DRAM_RANGE_J), 600, 801),
    ),
    # A GPU whose series have the SLURM job as a label.
    *job("840", 600, 1500, cores=1, memory_bytes=1e9, hostname="g2"),
    bmc("g2", at(0, HOUR, lambda t: 500.0)),
    Series(unit("gpu_index_flag", "840", hostname="g2", gpuuuid=GPU_C, index="0"), at(600, 1500, lambda t: 1.0)),
    dcgm(GPU_C, "g2", at(0, 590, lambda t: 80.0), hpc_job="1"),
    dcgm(GPU_C, "g2", at(605, 2000, lambda t: 300.0), hpc_job="840"),
    *job("600", 0, 600, cores=1, memory_bytes=1e9, hostname="nothing"),
    Series(unit("cpu_user_seconds_total", "700", hostname="n9"), at(0, 5, lambda t: 1.0)),
]


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with prometheus(tmp_path_factory.mktemp("prometheus"), history=HISTORY) as server:
        yield server


@pytest.fixture
def client(server: Server) -> PrometheusClient:
    return PrometheusClient(server.url)


def test_counters_that_wrapped_and_power_are_exact_from_raw_samples(client: PrometheusClient):
    """`increase()` loses what was counted between the last scrape and each wrap: -0.8 % of this series."""
    (package,) = client.raw('ceems_rapl_package_joules_total{hostname="n1"}', duration_s=2 * HOUR, end_s=END)
    scale = Scale(domain=Domain("cpu", "0"), kind="counter-joules", range_j=RANGE_J, max_power_w=1000.0)
    curve, gaps = cumulative_j(package.samples, scale, interval_s=STEP)
    assert curve[-1][1] == pytest.approx(150 * 2 * HOUR, abs=0.01)
    assert gaps == []


def test_weeks_are_asked_one_by_one_and_give_each_sample_once(client: PrometheusClient):
    (package,) = client.raw(
        'ceems_rapl_package_joules_total{hostname="n1"}', duration_s=2 * WEEK_S, end_s=END - HOUR + WEEK_S
    )
    assert len(package.samples) == 2 * HOUR / STEP + 1


def test_a_job_alone_on_a_node_gets_all_of_it(client: PrometheusClient):
    (node,) = job_energy(client, "100", JobOptions(idle_w=IDLE_W), end_s=END).nodes
    # `100` is alone for 600 s of its 1,800 s, and shares the node with `200` for 1,200 s.
    alone_j, both_s = 400 * 600, 1200
    busy_j = (400 - IDLE_W) * both_s
    together_j = IDLE_W * both_s / 2 + busy_j * (0.75 * 3 / 4 + 0.25 * 1 / 4)
    assert node.host_j == pytest.approx(alone_j + together_j)
    assert node.idle_j == pytest.approx(IDLE_W * 600 + IDLE_W * both_s / 2)
    assert node.node_j == pytest.approx(400 * 1800)
    assert (node.last_at - node.first_at) == 1800


def test_the_shares_of_a_nodes_jobs_add_up_to_the_node(client: PrometheusClient):
    options = JobOptions()
    first, second = (job_energy(client, name, options, end_s=END).nodes[0] for name in ("100", "200"))
    # Both were there from 3,000 to 4,200 s; alone each of them has all of the node's 400 W for 600 s.
    assert first.energy_j + second.energy_j == pytest.approx(400 * (600 + 1200 + 600))


def test_idle_power_is_the_lowest_of_the_day(client: PrometheusClient):
    (node,) = job_energy(client, "100", JobOptions(), end_s=END).nodes
    assert node.idle_w == pytest.approx(IDLE_W)
    assert any(note.startswith("idle power: 120 W") for note in node.notes)


def test_gpus_go_to_the_jobs_they_are_bound_to(client: PrometheusClient):
    options = JobOptions(idle_w=0.0, ipmi_includes_gpu=True)
    (whole,) = job_energy(client, "300", options, end_s=END).nodes
    (half,) = job_energy(client, "400", options, end_s=END).nodes
    assert whole.gpu_j == pytest.approx(300 * 2400)
    assert half.gpu_j == pytest.approx(100 * 2400 / 2)
    # Both jobs are alike, and the other half of a GPU is nobody's.
    assert whole.host_j == pytest.approx(half.host_j)
    unused_j = 100 * 2400 / 2
    assert whole.energy_j + half.energy_j + unused_j == pytest.approx(whole.node_j)
    excluded = job_energy(client, "300", JobOptions(idle_w=0.0, ipmi_includes_gpu=False), end_s=END).nodes[0]
    assert excluded.host_j == pytest.approx(whole.host_j + (300 + 100) * 2400 / 2)


def test_a_gap_is_told_and_the_uncertainty_holds_what_it_hides(client: PrometheusClient):
    """The power rose at 1,500 s, in a gap from 1,200 to 1,800 s. Interpolated it is right by luck; it is not known."""
    (node,) = job_energy(client, "300", JobOptions(idle_w=0.0, ipmi_includes_gpu=False), end_s=END).nodes
    assert any("node: no samples for 600 s; its power was interpolated" in note for note in node.notes)
    true_host_j = (900 * 900 + 1200 * 1500) / 2
    assert abs(node.host_j - true_host_j) < node.uncertainty_j
    gap_j = 300 / math.sqrt(12) * 600 / 2
    edges_j = math.sqrt(7 / 6) * node.energy_j / 2400 * STEP
    assert node.uncertainty_j == pytest.approx(
        math.hypot(0.05 * node.host_j, 0.05 * node.gpu_j, gap_j, edges_j), rel=1e-6
    )


def test_whether_the_bmc_sees_gpus_must_be_said(client: PrometheusClient):
    with pytest.raises(MeterError, match="--ipmi-includes-gpu or --ipmi-excludes-gpu"):
        job_energy(client, "300", JobOptions(), end_s=END)


def test_a_job_on_two_nodes_without_bmc_has_the_counters_of_both(client: PrometheusClient):
    found = job_energy(client, "500", JobOptions(idle_w=0.0), end_s=END)
    assert [node.hostname for node in found.nodes] == ["r1", "r2"]
    assert found.energy_j == pytest.approx(2 * 100 * 600)
    assert all("not power supply" in " ".join(node.notes) for node in found.nodes)


def test_what_is_left_out_of_a_job_is_told_and_uncertain(client: PrometheusClient):
    (node,) = job_energy(client, "550", JobOptions(idle_w=0.0), end_s=END).nodes
    assert node.host_j == pytest.approx(200 * 600)
    assert "not known for 600 s of the job" in " ".join(node.notes)
    assert node.uncertainty_j > node.host_j / 2


def test_an_exporter_that_two_scrape_jobs_ask_is_not_counted_twice(client: PrometheusClient):
    with pytest.raises(MeterError, match="scrapes the same exporter twice"):
        job_energy(client, "800", JobOptions(idle_w=0.0), end_s=END)
    assert job_energy(client, "810", JobOptions(idle_w=0.0), end_s=END).energy_j == pytest.approx(100 * 600)


@pytest.mark.parametrize("name", ["825", "826"])
def test_an_exporter_that_was_asked_twice_before_a_job_only_is_not_in_the_way(client: PrometheusClient, name):
    (node,) = job_energy(client, name, JobOptions(), end_s=END).nodes
    assert node.host_j == pytest.approx(100 * 1500)
    assert node.idle_w == pytest.approx(60)


@pytest.mark.parametrize(("idle_w", "expected_w"), [(None, 60.0), (30.0, 30.0)])
def test_a_reset_in_the_day_before_a_job_leaves_the_job_alone(client: PrometheusClient, idle_w, expected_w):
    (node,) = job_energy(client, "820", JobOptions(idle_w=idle_w), end_s=END).nodes
    assert node.host_j == pytest.approx(100 * 1500)
    assert node.idle_w == pytest.approx(expected_w)


def test_the_limit_of_the_memory_is_its_own(client: PrometheusClient):
    """65.7 kJ at up to 250 W: a gap of 210 s holds one wrap at the most; at 1,000 W it might hold three."""
    (node,) = job_energy(client, "830", JobOptions(idle_w=0.0), end_s=END).nodes
    assert node.host_j == pytest.approx(150 * 1200)
    with pytest.raises(MeterError, match="may have wrapped more than once") as told:
        job_energy(client, "830", JobOptions(idle_w=0.0, dram_max_power_w=1000.0), end_s=END)
    assert "and so is that of the job on gap" in str(told.value)
    assert "run the same command again" not in str(told.value)


def test_labels_that_change_with_the_job_do_not_make_a_gpu_two(client: PrometheusClient):
    (node,) = job_energy(client, "840", JobOptions(idle_w=0.0, ipmi_includes_gpu=False), end_s=END).nodes
    assert node.gpu_j == pytest.approx(300 * 900, rel=0.01)


def test_what_is_not_known_is_an_error(client: PrometheusClient):
    with pytest.raises(MeterError, match="no samples of SLURM job 999"):
        job_energy(client, "999", JobOptions(), end_s=END)
    with pytest.raises(MeterError, match="a single sample of job 700"):
        job_energy(client, "700", JobOptions(), end_s=END)
    with pytest.raises(MeterError, match="neither ceems_ipmi"):
        job_energy(client, "600", JobOptions(), end_s=END)


def run(*arguments: str) -> str:
    result = CliRunner().invoke(cli, ["job-energy", *arguments], catch_exceptions=False, standalone_mode=False)
    return result.output


def test_the_command_gives_json_and_prose(server: Server, tmp_path: Path):
    where = ["--url", server.url, "--look-back-days", "2", "--idle-w", "120"]
    record = json.loads(run("100", *where, "--pue", "1.5", "--json"))
    assert record["energy_j"] == pytest.approx(1.5 * record["nodes"][0]["energy_j"])
    assert record["quality"] == "attributed"
    assert 0 < record["uncertainty_j"] < record["energy_j"]
    text = run("100", *where)
    assert "Job 100:" in text
    assert "n1, 30 min 0 s from 20" in text
