"""`greensv launch`: a search with several workers on this machine, and what keeps it from a cluster."""

import json
from collections.abc import Mapping
from pathlib import Path

import pytest

from tiny.study import STUDY_TOML

UNSHARED = STUDY_TOML.replace("idle_s = 0.0", "idle_s = 0.0\nis_shared = false")
"""Tiny steps: what a shared meter allots each 2 s would come too late for them."""


@pytest.fixture
def command(
    study_file: Path, tiny_environment: Mapping[str, str], monkeypatch: pytest.MonkeyPatch
) -> tuple[object, ...]:
    monkeypatch.setenv("PYTHONPATH", tiny_environment["PYTHONPATH"])  # for the workers' processes
    study_file.write_text(UNSHARED)
    return "launch", study_file, "--budget-kwh", 1


@pytest.mark.slow
def test_two_workers_run_a_search_together_and_its_result_is_shown(greensv, command, tmp_path: Path):
    found = greensv(*command, "--workers", 2, "--max-trials", 3)
    assert found.code == 0, found.out + found.err
    lines = found.out.splitlines()
    log = tmp_path / "runs" / "tiny" / "workers" / "worker-1.log"
    assert any(line.startswith("worker 1 (CPU, ") and line.endswith(f"log {log}") for line in lines)
    for number in (1, 2):
        assert any(line.startswith(f"{number} | meter tiny: node") for line in lines)
        assert any(line.startswith(f"worker {number} ended: ") for line in lines)
    trials = [json.loads(line) for line in greensv("trials", "--json").out.splitlines()]
    num_trials = len(trials)
    assert num_trials in (3, 4), "both workers may begin their last trial at the same moment"
    assert any(line.startswith("The search ended: ") and f"{num_trials} trials" in line for line in lines), found.out
    assert any(line.startswith("Pareto set of 'tiny'") and f"of {num_trials} trials" in line for line in lines)
    assert lines[-1].startswith("Next: greensv retrain --knee")
    assert f"Report: {tmp_path / 'runs' / 'tiny' / 'report.html'}" in lines
    heads = [json.loads(path.read_text())["head_room_j"] for path in sorted(log.parent.glob("*.json"))]
    assert len(heads) == 2
    assert min(heads) > 0
    assert [trial["state"] for trial in trials] == ["complete"] * num_trials
    assert json.loads(greensv("budget", "--json").out)["reserved_kwh"] == 0


@pytest.mark.parametrize(
    ("options", "code", "message"),
    [
        (("--backend", "slurm"), 1, "workers on several machines cannot share an SQLite file"),
        (("--slurm-partition", "gpu"), 2, "--slurm-partition and --slurm-option are for --backend slurm"),
        (("--slurm-option", "mem=1G"), 2, "--slurm-partition and --slurm-option are for --backend slurm"),
        (("--backend", "slurm", "--storage", "postgresql+psycopg://h/d", "--slurm-option", "nodes=2"), 1, "--workers"),
        (("--backend", "kubernetes"), 2, "'--backend'"),
        (("--workers", "0"), 2, "'--workers'"),
        (("--backbone", "tinny"), 1, "did you mean 'tiny'?"),
        (("--storage", "mine.db"), 1, "for a file write sqlite:///mine.db"),
    ],
)
def test_what_cannot_be_launched_is_told_before_anything_runs(
    greensv, command, tmp_path: Path, options: tuple[str, ...], code: int, message: str
):
    found = greensv(*command, *options)
    assert found.code == code
    assert message in found.err
    assert not list(tmp_path.rglob("worker-*.log"))


@pytest.mark.slow
def test_workers_that_fail_are_told_with_what_they_said(greensv, command, study_file: Path, tmp_path: Path):
    study_file.write_text(UNSHARED.replace('meters = ["tiny"]', 'meters = ["ipmi"]'))
    found = greensv(*command, "--workers", 1)
    assert found.code == 1
    assert "error: worker 1 failed (exit code 1): error: " in found.err
    assert "ipmi" in found.err
    assert "The search ended: its workers failed." in found.out
    assert "No trial was completed" in found.out


def test_a_launch_takes_the_options_of_a_search(greensv, command):
    searched, launched = greensv("search", "--help").out, greensv("launch", "--help").out
    assert "--noise-root" in searched
    options = {word.rstrip(",") for word in searched.split() if word.startswith("--")}
    assert options - {word.rstrip(",") for word in launched.split() if word.startswith("--")} == {
        "--metrics-port",
        "--metrics-host",
    }
