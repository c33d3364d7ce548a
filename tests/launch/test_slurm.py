"""Workers as SLURM jobs: options, and a real slurmctld and slurmd on loopback with a real PostgreSQL.

The real cluster's tests take some minutes; GREENSV_TEST_SLURM=1 runs them.
"""

import importlib.util
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

from greensv.errors import ConfigError
from greensv.launch.slurm import WorkerJob, minutes, slurm_options, submit
from postgresql import new_database, running_server
from slurm_cluster import Cluster, running_cluster
from tiny.study import STUDY_TOML, install
from tiny.work import SLEEP_VARIABLE

HAS_SUBMITIT = importlib.util.find_spec("submitit") is not None
WANTED = "GREENSV_TEST_SLURM"
STUDY = STUDY_TOML.replace("idle_s = 0.0", "idle_s = 0.0\nis_shared = false")
"""Two workers of tiny steps: what a shared meter allots each 2 s would come too late for them."""


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("30", 30),
        ("90:00", 90),
        ("0:10", 1),
        ("12:00:00", 720),
        ("00:01:30", 2),
        ("1-0", 1440),
        ("2-12", 3600),
        ("2-12:30", 3630),
        ("1-00:00:01", 1441),
    ],
)
def test_time_limits_are_read_as_sbatch_does(text: str, expected: int):
    assert minutes(text) == expected


@pytest.mark.parametrize("text", ["", "soon", "1:2:3:4", "x-1", "1.5"])
def test_a_time_limit_that_is_none_is_told(text: str):
    with pytest.raises(ConfigError, match="write minutes, 12:00:00 or 2-00:00:00"):
        minutes(text)


def test_options_of_sbatch_may_be_written_in_any_of_their_forms():
    found = slurm_options(["gpus-per-node=1", "--mem=32G", "exclusive", "comment=a=b"])
    assert found == {"gpus_per_node": "1", "mem": "32G", "exclusive": "", "comment": "a=b"}


@pytest.mark.parametrize("setting", ["array=0-3", "nodes=2", "--output=x", "=3", ""])
def test_options_that_the_launch_decides_are_refused(setting: str):
    with pytest.raises(ConfigError, match="--slurm-option"):
        slurm_options([setting])


@pytest.mark.skipif(HAS_SUBMITIT, reason="submitit is installed")
def test_without_submitit_it_is_told_what_to_install(tmp_path: Path):
    with pytest.raises(ConfigError, match=r"pip install 'greensv\[slurm\]'"):
        submit(["worker"], 1, environment={}, options={}, folder=tmp_path, name="x")


@pytest.mark.skipif(not HAS_SUBMITIT, reason="submitit is not installed (greensv[slurm])")
def test_without_slurm_it_is_told_where_to_go(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(ConfigError, match=r"no sbatch, srun, scontrol\); run this on a login node"):
        submit(["worker"], 1, environment={}, options={}, folder=tmp_path, name="x")


def test_a_job_gives_back_how_its_worker_ended():
    assert WorkerJob(["--version"], environment={})() == 0
    with pytest.raises(Exception, match=r"failed \(exit code 2\)"):
        WorkerJob(["no-such-command"], environment={})()


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    if not os.environ.get(WANTED):
        pytest.skip(f"takes some minutes; set {WANTED}=1")
    if not HAS_SUBMITIT:
        pytest.skip("submitit is not installed (greensv[slurm])")
    folder = Path(tempfile.mkdtemp(prefix="greensv-slurm-"))  # a short path: it holds sockets
    try:
        with running_cluster(folder) as running:
            yield running
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    with running_server() as server, new_database(server.url) as database:
        yield database


@pytest.fixture(scope="module")
def environment(tmp_path_factory: pytest.TempPathFactory, cluster: Cluster) -> Mapping[str, str]:
    installed = install(tmp_path_factory.mktemp("site-packages"))
    paths = [installed["PYTHONPATH"], *filter(None, [os.environ.get("PYTHONPATH")])]
    return {**installed, "PYTHONPATH": os.pathsep.join(paths), **cluster.environment}


class Desk:
    """A folder in which commands are typed."""

    def __init__(self, folder: Path, environment: Mapping[str, str], url: str) -> None:
        self.folder, self.environment, self.url = folder, environment, url
        (folder / "study.toml").write_text(STUDY)

    def type(self, *arguments: object) -> str:
        command = [sys.executable, "-m", "greensv", *map(str, arguments), "--storage", self.url]
        done = subprocess.run(
            command, env=self.environment, cwd=self.folder, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stderr + done.stdout
        return done.stdout

    def launch(self, name: str, *options: object, **environment: str) -> str:
        before, self.environment = self.environment, {**self.environment, **environment}
        told = self.type(
            "launch", "study.toml", "--backend", "slurm", "--budget-kwh", 1, "--study-name", name, *options
        )
        self.environment = before
        found = re.search(r"scancel (\d+)", told)
        assert found, told
        return found[1]

    def states(self, name: str) -> list[str]:
        return [json.loads(line)["state"] for line in self.type("trials", "--study-name", name, "--json").splitlines()]

    def logs(self, name: str) -> str:
        return "\n".join(path.read_text() for path in sorted((self.folder / "runs" / name / "workers").glob("*_log.*")))

    def wait_for(self, name: str, words: str, times: int = 1) -> None:
        until_s = time.monotonic() + 300
        while self.logs(name).count(words) < times:
            assert time.monotonic() < until_s, self.logs(name)
            time.sleep(0.1)


@pytest.fixture
def desk(tmp_path: Path, environment: Mapping[str, str], url: str) -> Desk:
    return Desk(tmp_path, environment, url)


def test_an_array_of_workers_runs_a_search_together(cluster: Cluster, desk: Desk):
    options = ("--slurm-partition", "test", "--slurm-option", "time=10:00", "--slurm-option", "comment=from the test")
    job = desk.launch("together", "--workers", 2, "--max-trials", 4, *options)
    shown = cluster.run("scontrol", "show", "job", job)
    assert "Comment=from the test" in shown
    assert "TimeLimit=00:10:00" in shown
    assert "greensv-together" in shown
    cluster.wait_for(job, "COMPLETED")
    assert desk.states("together") == ["complete"] * 4
    budget = json.loads(desk.type("budget", "--study-name", "together", "--json"))
    assert budget["reserved_kwh"] == 0
    assert budget["spent_kwh"] > 0
    assert len(re.findall("This worker ended: 4 trials were run", desk.logs("together"))) == 2
    assert (desk.folder / "runs" / "together" / "workers").stat().st_mode & 0o077 == 0, "the URL has a password"


def test_a_cancelled_worker_saves_and_the_next_goes_on(cluster: Cluster, desk: Desk):
    job = desk.launch("cancelled", "--max-trials", 2, **{SLEEP_VARIABLE: "0.3"})
    desk.wait_for("cancelled", "trial 0: tiny")
    cluster.run("scancel", job)
    desk.wait_for("cancelled", "This worker ended: interrupted")
    cluster.wait_for(job, "CANCELLED", "FAILED")
    assert json.loads(desk.type("budget", "--study-name", "cancelled", "--json"))["reserved_kwh"] == 0
    job = desk.launch("cancelled", "--max-trials", 2)
    cluster.wait_for(job, "COMPLETED")
    assert desk.states("cancelled").count("complete") == 2


def test_a_worker_whose_time_is_over_saves_and_its_job_is_put_back(cluster: Cluster, desk: Desk):
    job = desk.launch("over", "--max-trials", 2, **{SLEEP_VARIABLE: "0.3"})
    desk.wait_for("over", "trial 0: tiny")
    cluster.run("scancel", "--signal=USR2", job)  # what SLURM itself sends 90 s before the end
    desk.wait_for("over", "This worker ended: interrupted")
    desk.wait_for("over", "Requeued job")
    cluster.wait_for(job, "COMPLETED")  # after up to two minutes in the queue: SLURM lets the old run's traces go first
    assert desk.states("over").count("complete") == 2
