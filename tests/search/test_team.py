"""Whole commands that torchrun runs in two processes."""

import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch

from greensv.errors import ConfigError, TrainingError
from greensv.search import crew
from greensv.search.crew import check_one_machine, is_follower, num_launched
from greensv.search.events import Stepped, TrialStarted
from greensv.speaker.checkpoint import read_checkpoint
from greensv.speaker.distributed import Team
from tiny.study import CHEAPEST, DEAREST, FULL_STEPS, STEPS, STUDY_TOML, Lab, install, on
from tiny.work import QUICK_VARIABLE, SLEEP_VARIABLE, WORK

pytestmark = pytest.mark.slow

TORCHRUN = (sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", "-m", "greensv")
PROBE_STEPS = 2 * STEPS
"""The probes of both ends of the space are so quick that they take all steps of a search's training."""


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory, voices: Path) -> Mapping[str, str]:
    return {**install(tmp_path_factory.mktemp("plugin")), "XDG_CACHE_HOME": str(voices)}


@pytest.fixture(scope="module")
def searched(tmp_path_factory: pytest.TempPathFactory, installed: Mapping[str, str]) -> Iterator[tuple[Lab, str, str]]:
    """A search of two processes, and what it said: one of them dies, it is continued, and at last interrupted."""
    lab = Lab(folder=tmp_path_factory.mktemp("searched"))
    died = start_and_wait_for("^trial 0: tiny", lab, installed, num_quick_steps=PROBE_STEPS)
    (follower,) = (pid for pid in children_of(died.pid) if rank_of(pid) == "1")
    os.kill(follower, signal.SIGKILL)
    first, _ = died.communicate(timeout=60)
    assert died.returncode == 1, first
    assert [record.state for record in lab.records()] == ["interrupted", "waiting"]
    lab.audited()
    stopped = start_and_wait_for("^trial 2: tiny", lab, installed, num_quick_steps=PROBE_STEPS + 2 * STEPS)
    stopped.send_signal(signal.SIGINT)
    rest, _ = stopped.communicate(timeout=60)
    yield lab, first, rest
    lab.close()


def study_file(lab: Lab) -> str:
    path = lab.folder / "study.toml"
    text = STUDY_TOML.replace("batch_size = 8", 'batch_size = 8\nprecision = "fp32"')
    path.write_text(text + "[energy.options.tiny]\npower_w = 0.0\n")
    return str(path)


def start_and_wait_for(
    line: str, lab: Lab, environment: Mapping[str, str], *, num_quick_steps: int
) -> "subprocess.Popen[str]":
    """Starts a search whose first steps are quick and whose others last 1 s; returns when it has said `line`."""
    command = [*TORCHRUN, "search", study_file(lab), "--budget-kwh", "1", "--max-trials", "3", "--storage", lab.url]
    process = subprocess.Popen(
        command,
        env={**environment, QUICK_VARIABLE: str(num_quick_steps), SLEEP_VARIABLE: "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    assert process.stdout is not None
    said = []
    for found in process.stdout:
        said.append(found)
        if re.search(line, found):
            return process
    raise AssertionError("".join(said))


def children_of(pid: int) -> list[int]:
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def rank_of(pid: int) -> str:
    return dict(item.split("=", 1) for item in Path(f"/proc/{pid}/environ").read_text().split("\0") if item)["RANK"]


def interrupt() -> None:
    signal.raise_signal(signal.SIGINT)


def test_a_follower_that_dies_ends_the_search_with_an_error_and_its_candidate_runs_again(
    searched: tuple[Lab, str, str],
):
    team, first, _ = searched
    assert "error: process 1 of 2 (counted from 0) has died" in first
    records = team.records()
    assert (records[0].state, records[0].params) == ("complete", CHEAPEST)


def test_ctrl_c_ends_all_processes_cleanly(searched: tuple[Lab, str, str]):
    team, _, rest = searched
    assert "The search ended: interrupted; the same command continues." in rest
    records = team.records()
    assert [record.state for record in records] == ["complete", "complete", "interrupted"]
    team.audited()


def test_a_search_of_two_processes_finds_what_one_process_finds(searched: tuple[Lab, str, str], lab: Lab):
    team, *_ = searched
    settings = {"recipe": {"precision": "fp32"}, "energy": {"options": {"tiny": {"power_w": 0.0}}}}
    lab.on_event = on(TrialStarted, 0, interrupt)
    lab.search(max_trials=2, **settings)
    lab.on_event = None
    lab.search(max_trials=2, **settings)
    for found, expected in zip(team.records()[:2], lab.records(), strict=True):
        assert (found.state, found.params, found.seed) == ("complete", expected.params, expected.seed)
        assert found.eer == pytest.approx(expected.eer, abs=0.05)
        assert found.joules_per_step == pytest.approx(expected.joules_per_step, rel=0.01)
        assert found.device.startswith("2 × CPU")
        assert (found.num_steps, found.num_skipped) == (expected.num_steps, 0)
    study, _ = team.open()
    assert study.optuna.user_attrs["greensv:environment"]["processes"] == "2"


def test_a_retraining_begun_in_one_process_goes_on_in_two_to_the_weights_of_one(
    searched: tuple[Lab, str, str], installed: Mapping[str, str], monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr("greensv.search.measuring.LOSS_INTERVAL_S", 0.0)
    team, *_ = searched
    folder = team.folder / "runs" / "tiny" / "trial-0001"
    record = team.records()[1]
    assert record.params == DEAREST
    team.on_event = on(Stepped, 6, interrupt)
    assert team.retrain(record, budget_j=3.6e6).was_interrupted
    team.on_event = None
    command = [*TORCHRUN, "retrain", "--trial", "1", "--budget-kwh", "1", "--storage", team.url]
    ended = subprocess.run(command, env=installed, capture_output=True, text=True, timeout=120, check=False)
    assert ended.returncode == 0, ended.stdout + ended.stderr
    assert "continuing after step 8" in ended.stdout
    info, found = read_checkpoint(folder)
    assert (info.provenance["num_processes"], info.provenance["precision"]) == (2, "fp32")
    assert info.provenance["device"].startswith("2 × CPU")
    folder.rename(folder.with_name("of-two-processes"))
    (result,) = team.retrain(record, budget_j=3.6e6).results
    assert (result["num_steps"], result["num_processes"]) == (FULL_STEPS, 1)
    expected = read_checkpoint(folder)[1]
    for name, tensor in expected.items():
        torch.testing.assert_close(found[name], tensor, atol=1e-4, rtol=1e-3, msg=name)


def out_of_memory() -> None:
    raise RuntimeError("CUDA out of memory")


def breaks_the_team(team: Team) -> Iterator[None]:
    try:
        yield
    except BaseException:
        team.is_broken = True
        raise


def test_out_of_memory_in_one_process_ends_the_search_which_goes_on_with_the_next_candidate(
    lab: Lab, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(Team, "computing", contextmanager(breaks_the_team))
    lab.on_event = on(TrialStarted, 0, lambda: monkeypatch.setattr(WORK, "on_step", out_of_memory))
    with pytest.raises(TrainingError, match="out of memory; the processes of torchrun cannot go on"):
        lab.search(max_trials=2)
    assert [record.state for record in lab.records()] == ["failed", "waiting"]
    lab.audited()
    monkeypatch.setattr(WORK, "on_step", None)
    lab.search(max_trials=2)
    assert [record.state for record in lab.records()] == ["failed", "complete"]


def test_a_network_that_cannot_be_retrained_is_left_out(lab: Lab, monkeypatch: pytest.MonkeyPatch):
    lab.search(max_trials=2)
    first, second = lab.records()

    def fail_once() -> None:
        WORK.on_step = None
        out_of_memory()

    monkeypatch.setattr(WORK, "on_step", fail_once)
    found = lab.retrain(first, second)
    assert [result["trial"] for result in found.results] == [1]
    assert not found.is_complete
    assert "trial 0 is left out: it could not be trained: CUDA out of memory" in lab.notes()


def test_without_torchrun_there_is_one_process(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.delenv("TORCHELASTIC_RUN_ID", raising=False)
    monkeypatch.setenv("WORLD_SIZE", "4")
    monkeypatch.setenv("RANK", "2")
    assert (num_launched(), is_follower()) == (1, False), "other launchers' variables are not torchrun's"
    check_one_machine()


def test_processes_on_several_machines_are_refused(monkeypatch: pytest.MonkeyPatch, lab: Lab):
    for name, value in {"TORCHELASTIC_RUN_ID": "x", "WORLD_SIZE": "8", "LOCAL_WORLD_SIZE": "4", "RANK": "0"}.items():
        monkeypatch.setenv(name, value)
    assert (num_launched(), is_follower()) == (8, False)
    with (
        pytest.raises(ConfigError, match="8 processes, 4 of them on this machine"),
        crew.assembled(lab.config()),
    ):
        pass
