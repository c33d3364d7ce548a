"""A real SLURM cluster of one node, this machine, for tests: munged, slurmctld and slurmd on loopback."""

import os
import shutil
import socket
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

PROGRAMS = ("munged", "mungekey", "slurmctld", "slurmd", "sbatch", "squeue", "scontrol", "scancel")
CONF = """\
ClusterName=greensv-test
SlurmctldHost={host}(127.0.0.1)
SlurmUser=root
SlurmctldPort={controller_port}
SlurmdPort={node_port}
AuthType=auth/munge
AuthInfo=socket={folder}/munge.socket
CredType=cred/munge
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/slurmd.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU
SwitchType=switch/none
MpiDefault=none
ReturnToService=2
KillWait=30
SchedulerParameters=batch_sched_delay=0,sched_interval=1,sched_min_interval=0
NodeName={host} NodeAddr=127.0.0.1 CPUs={num_cpus} State=UNKNOWN
PartitionName=test Nodes={host} Default=YES MaxTime=INFINITE State=UP
"""


@dataclass(frozen=True)
class Cluster:
    """Where the cluster's configuration lies, and how its commands are run."""

    environment: Mapping[str, str]

    def run(self, *command: str) -> str:
        done = subprocess.run(
            command, env={**os.environ, **self.environment}, capture_output=True, text=True, check=True
        )
        return done.stdout

    def states(self, job_id: str) -> set[str]:
        """Returns the states of an array's tasks, also of those that have ended a short while ago."""
        shown = self.run("scontrol", "--oneliner", "show", "job", job_id)
        return {word.partition("=")[2] for word in shown.split() if word.startswith("JobState=")}

    def end_jobs(self) -> None:
        """Cancels what a failed test has left, so that no process outlives the cluster."""
        self.run("scancel", "--user", "root")
        until_s = time.monotonic() + 60
        while self.run("squeue", "--noheader").strip() and time.monotonic() < until_s:
            time.sleep(0.25)

    def wait_for(self, job_id: str, *states: str, seconds: float = 300.0) -> None:
        until_s = time.monotonic() + seconds
        while not self.states(job_id) <= set(states):
            assert time.monotonic() < until_s, f"job {job_id} is {self.states(job_id)}, not {states}"
            time.sleep(0.25)


@contextmanager
def running_cluster(folder: Path) -> Iterator[Cluster]:
    """Yields a cluster that takes jobs, or skips the test, saying what is missing."""
    path = os.pathsep.join((os.environ.get("PATH", ""), "/usr/sbin", "/sbin"))
    found = {name: shutil.which(name, path=path) for name in PROGRAMS}
    if missing := [name for name, where in found.items() if where is None]:
        pytest.skip(f"SLURM is not installed: no {', '.join(missing)} (Debian: slurm-wlm, munge)")
    if os.geteuid() != 0:
        pytest.skip("slurmd starts as root only")
    for name in ("state", "spool"):
        (folder / name).mkdir()
    controller_port, node_port = _free_ports(2)
    (folder / "slurm.conf").write_text(
        CONF.format(
            host=socket.gethostname().partition(".")[0],
            folder=folder,
            controller_port=controller_port,
            node_port=node_port,
            num_cpus=os.cpu_count(),
        )
    )
    environment = {"SLURM_CONF": str(folder / "slurm.conf")}
    key = folder / "munge.key"
    subprocess.run([str(found["mungekey"]), "--create", "--keyfile", str(key)], check=True)
    files = {"--socket": "munge.socket", "--pid-file": "munged.pid", "--log-file": "munged.log", "--seed-file": "seed"}
    options = [f"{option}={folder / name}" for option, name in files.items()]
    # --force: the socket lies in a temporary folder.
    daemons = [
        [str(found["munged"]), "--foreground", "--force", f"--key-file={key}", *options],
        [str(found["slurmctld"]), "-D", "-c"],
        [str(found["slurmd"]), "-D", "-c"],
    ]
    processes: list[subprocess.Popen[bytes]] = []
    try:
        with (folder / "daemons.log").open("wb") as log:
            for command in daemons:
                processes.append(subprocess.Popen(command, env={**os.environ, **environment}, stdout=log, stderr=log))
                if "munged" in command[0]:
                    _wait_for((folder / "munge.socket").exists, folder)
        cluster = Cluster(environment=environment)
        _wait_for(lambda: _is_idle(cluster), folder)
        yield cluster
        cluster.end_jobs()
    finally:
        for process in reversed(processes):
            process.terminate()
            process.wait(timeout=60)


def _is_idle(cluster: Cluster) -> bool:
    try:
        return "State=IDLE" in cluster.run("scontrol", "show", "node")
    except subprocess.CalledProcessError:
        return False


def _wait_for(is_so: Callable[[], bool], folder: Path) -> None:

    until_s = time.monotonic() + 60
    while not is_so():
        if time.monotonic() > until_s:
            logs = "\n".join(path.read_text(errors="replace")[-2_000:] for path in sorted(folder.glob("*.log")))
            pytest.fail(f"the SLURM cluster does not start:\n{logs}")
        time.sleep(0.1)


def _free_ports(count: int) -> list[int]:
    sockets = [socket.socket() for _ in range(count)]
    try:
        for one in sockets:
            one.bind(("127.0.0.1", 0))
        return [one.getsockname()[1] for one in sockets]
    finally:
        for one in sockets:
            one.close()
