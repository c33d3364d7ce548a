"""Workers as processes of this machine: real processes of the real command, cheap ones."""

import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from greensv.errors import ConfigError
from greensv.launch.local import Ended, Place, cpu_places, gpu_places, run_local

QUICK = Place(words="anywhere", environment={"GREENSV_LOAD_PLUGINS": ""})
SLEEPER = (
    "measure",
    "--meter",
    "estimate",
    "--",
    sys.executable,
    "-uc",
    "print('asleep'); import time; time.sleep(60)",
)


def test_each_worker_gets_a_gpu_of_its_own():
    places = gpu_places(3, None, visible=None)
    assert [place.environment["CUDA_VISIBLE_DEVICES"] for place in places] == ["0", "1", "2"]
    assert [place.words for place in places] == ["GPU 0", "GPU 1", "GPU 2"]


def test_gpus_are_those_that_this_process_may_use():
    places = gpu_places(2, 2, visible="GPU-aaaa, 5")
    assert [place.environment["CUDA_VISIBLE_DEVICES"] for place in places] == ["GPU-aaaa", "5"]
    assert len(gpu_places(2, 1, visible="4,7")) == 1


def test_two_workers_on_one_gpu_are_refused():
    with pytest.raises(ConfigError, match="2 workers were asked for, and torch finds 1 GPUs"):
        gpu_places(1, 2, visible=None)


@pytest.mark.parametrize(("num_cpus", "num_workers", "threads"), [(8, None, "8"), (8, 3, "2"), (2, 4, "1")])
def test_the_threads_of_the_cpu_are_split(num_cpus: int, num_workers: int | None, threads: str):
    places = cpu_places(num_cpus, num_workers)
    assert len(places) == (num_workers or 1)
    assert {place.environment["OMP_NUM_THREADS"] for place in places} == {threads}
    assert {place.environment["CUDA_VISIBLE_DEVICES"] for place in places} == {""}


def test_workers_are_followed_to_their_end_and_none_is_started_again(tmp_path: Path):
    told: list[str] = []
    ended = run_local(["--version"], [QUICK, QUICK], environment={}, folder=tmp_path / "workers", tell=told.append)
    assert [(worker.number, worker.exit_code) for worker in ended] == [(1, 0), (2, 0)]
    assert [line.partition(" (")[0] for line in told[:2]] == ["worker 1", "worker 2"]
    assert "log " + str(tmp_path / "workers" / "worker-1.log") in told[0]
    assert sorted(told[2:]) == ["worker 1 ended: no reason given", "worker 2 ended: no reason given"]
    assert (tmp_path / "workers" / "worker-1.json").read_text().startswith("greensv, version")


def test_what_a_worker_failed_of_is_told_and_a_second_run_adds_to_its_log(tmp_path: Path):
    told: list[str] = []
    for _ in range(2):
        (ended,) = run_local(["serch"], [QUICK], environment={}, folder=tmp_path, tell=told.append)
        assert ended.exit_code == 2
        assert "No such command 'serch'" in ended.words
        assert ended.words.startswith("failed (exit code 2)")
    log = (tmp_path / "worker-1.log").read_text()
    assert log.count("No such command 'serch'") == 2
    assert sum("1 | " in line and "No such command" in line for line in told) == 2, "old lines are not told again"


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_what_this_process_is_told_reaches_the_workers(tmp_path: Path, number: int):
    def told(line: str) -> None:
        pass

    def tell_once_asleep() -> None:
        until_s = time.monotonic() + 60
        while time.monotonic() < until_s and "asleep" not in _text(tmp_path / "worker-1.json"):
            time.sleep(0.05)
        os.kill(os.getpid(), number)

    before = signal.getsignal(number)
    thread = threading.Thread(target=tell_once_asleep)
    thread.start()
    try:
        (ended,) = run_local(SLEEPER, [QUICK], environment={}, folder=tmp_path, tell=told)
    finally:
        thread.join()
    expected = signal.SIGINT if number == signal.SIGINT else signal.SIGTERM
    assert ended.exit_code == 128 + expected
    assert signal.getsignal(number) is before


def test_workers_end_when_their_logs_cannot_be_followed(tmp_path: Path):
    processes: list[int] = []

    def fails(line: str) -> None:
        if "process " in line:
            processes.append(int(line.partition("process ")[2].partition(",")[0]))
        raise OSError("no space")

    with pytest.raises(Exception, match="cannot be started or followed: no space"):
        run_local(SLEEPER, [QUICK, QUICK], environment={}, folder=tmp_path, tell=fails)
    assert len(processes) == 1
    with pytest.raises(ProcessLookupError):
        os.kill(processes[0], 0)


@pytest.mark.parametrize(
    ("code", "words"),
    [
        (0, "ended: 4 trials were run"),
        (130, "ended: interrupted; its training is saved"),
        (137, "was killed by SIGKILL; another worker goes on with its training"),
        (1, "failed (exit code 1): error: no GPU"),
    ],
)
def test_how_a_worker_ended_in_words(code: int, words: str):
    result = {"ended_because": "4 trials were run"} if code == 0 else {}
    assert Ended(number=1, exit_code=code, result=result, last_line="error: no GPU").words == words


def _text(path: Path) -> str:
    return path.read_text() if path.exists() else ""


def test_launching_loads_neither_torch_nor_optuna():
    code = "import sys, greensv.launch.local, greensv.launch.slurm; print({'torch', 'optuna'} & {*sys.modules})"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "set()\n"
