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
from greensv.search.events import TrialStarted
from greensv.speaker.checkpoint import read_checkpoint
from greensv.speaker.distributed import Team
from greensv.units import kwh_from_j
from tiny.study import CHEAPEST, DEAREST, FULL_STEPS, STUDY_TOML, Lab, install, on
from tiny.work import SLEEP_VARIABLE, WORK

TORCHRUN = (sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", "-m", "greensv")


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory, voices: Path) -> Mapping[str, str]:
    return {**install(tmp_path_factory.mktemp("plugin")), "XDG_CACHE_HOME": str(voices)}


@pytest.fixture(scope="module")
def searched(tmp_path_factory: pytest.TempPathFactory, installed: Mapping[str, str]) -> Iterator[tuple[Lab, str]]:
    """A search of two processes, and what it said."""
    lab = Lab(folder=tmp_path_factory.mktemp("searched"))
    done = command(lab, installed, "search", study_file(lab), "--budget-kwh", "1", "--max-trials", "2")
    assert done.returncode == 0, done.stdout + done.stderr
    yield lab, done.stdout
    lab.close()


def study_file(lab: Lab, **narrowing: int) -> str:
    path = lab.folder / "study.toml"
    text = STUDY_TOML.replace("batch_size = 8", 'batch_size = 8\nprecision = "fp32"')
    lines = "".join(f"{name} = {value}\n" for name, value in narrowing.items())
    path.write_text(text.replace("[backbones.tiny]\n", f"[backbones.tiny]\n{lines}"))
    return str(path)


def command(lab: Lab, environment: Mapping[str, str], *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*TORCHRUN, *arguments, "--storage", lab.url],
        env=environment,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


def start_and_wait_for(line: str, lab: Lab, environment: Mapping[str, str]) -> "subprocess.Popen[str]":
    """Starts a search of one candidate whose steps last 0.3 s, and returns when it has said `line`."""
    process = subprocess.Popen(
        [
            *TORCHRUN,
            "search",
            study_file(lab, **CHEAPEST),
            "--budget-kwh",
            "1",
            "--max-trials",
            "1",
            "--storage",
            lab.url,
        ],
        env={**environment, SLEEP_VARIABLE: "0.3"},
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


def test_a_search_of_two_processes_finds_what_one_process_finds(searched: tuple[Lab, str], lab: Lab):
    team, said = searched
    assert said.count("probing the ends of the search space") == 1, "the follower is silent"
    lab.search(max_trials=2, recipe={"precision": "fp32"})
    for found, expected in zip(team.records(), lab.records(), strict=True):
        assert (found.state, found.params, found.seed) == ("complete", expected.params, expected.seed)
        assert found.eer == pytest.approx(expected.eer, abs=0.02)
        assert found.joules_per_step == pytest.approx(expected.joules_per_step, rel=0.1)
        assert found.device.startswith("2 × CPU")
        assert (found.num_steps, found.num_skipped) == (expected.num_steps, 0)
    team.audited()
    study, _ = team.open()
    assert study.optuna.user_attrs["greensv:environment"]["processes"] == "2"


def test_a_retraining_stops_with_its_budget_and_goes_on_to_the_weights_of_one_process(
    searched: tuple[Lab, str], installed: Mapping[str, str]
):
    team, _ = searched
    folder = team.folder / "runs" / "tiny" / "trial-0001"
    record = team.records()[1]
    assert record.params == DEAREST
    slowly = {**installed, SLEEP_VARIABLE: "0.05"}
    stopped = command(team, slowly, "retrain", "--trial", "1", "--budget-kwh", str(kwh_from_j(200.0)))
    assert stopped.returncode == 1
    assert "the training so far is saved, raise --budget-kwh to continue it" in stopped.stdout
    saved = torch.load(folder / "training.pt", weights_only=False)["training"]
    assert 0 < saved["step"] < FULL_STEPS
    ended = command(team, installed, "retrain", "--trial", "1", "--budget-kwh", "1")
    assert ended.returncode == 0, ended.stdout + ended.stderr
    assert f"continuing after step {saved['step']}" in ended.stdout
    found = read_checkpoint(folder)[1]
    folder.rename(folder.with_name("of-two-processes"))
    (result,) = team.retrain(record, budget_j=3.6e6).results
    assert result["num_steps"] == FULL_STEPS
    expected = read_checkpoint(folder)[1]
    for name, tensor in expected.items():
        torch.testing.assert_close(found[name], tensor, atol=1e-4, rtol=1e-3, msg=name)


def test_ctrl_c_ends_all_processes_cleanly(lab: Lab, installed: Mapping[str, str]):
    process = start_and_wait_for("^trial 0: tiny", lab, installed)
    process.send_signal(signal.SIGINT)
    said, _ = process.communicate(timeout=60)
    assert "The search ended: interrupted; the same command continues." in said
    assert [record.state for record in lab.records()] == ["interrupted", "waiting"]
    lab.audited()


def test_a_follower_that_dies_ends_the_search_with_an_error_and_its_candidate_runs_again(
    lab: Lab, installed: Mapping[str, str]
):
    process = start_and_wait_for("^trial 0: tiny", lab, installed)
    (follower,) = (pid for pid in children_of(process.pid) if rank_of(pid) == "1")
    os.kill(follower, signal.SIGKILL)
    said, _ = process.communicate(timeout=60)
    assert process.returncode == 1
    assert "error: process 1 of 2 (counted from 0) has died" in said
    assert [record.state for record in lab.records()] == ["interrupted", "waiting"]
    lab.audited()
    lab.search(budget_j=3.6e6, max_trials=1, recipe={"precision": "fp32"}, backbones={"tiny": CHEAPEST})
    assert [record.state for record in lab.records()] == ["interrupted", "complete"]


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
