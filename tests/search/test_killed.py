"""A search that is killed in the middle of a trial, and the one that follows."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from greensv.units import j_from_uj
from tiny.study import CHEAPEST, DEAREST, STEPS, STUDY_TOML, Lab, install
from tiny.work import QUICK_VARIABLE, SLEEP_VARIABLE

pytestmark = pytest.mark.slow


def test_after_a_kill_in_mid_trial_the_next_search_charges_it_and_runs_its_candidate_again(lab: Lab, tmp_path: Path):
    study_file = tmp_path / "study.toml"
    study_file.write_text(STUDY_TOML)
    environment = {
        **install(tmp_path),
        "XDG_CACHE_HOME": os.environ["XDG_CACHE_HOME"],
        # The probes of the space's two ends are quick, and so are two steps of the trial; the next never ends.
        QUICK_VARIABLE: str(2 * STEPS + 2),
        SLEEP_VARIABLE: "600",
    }
    command = [sys.executable, "-u", "-m", "greensv", "search", str(study_file), "--storage", lab.url]
    process = subprocess.Popen(
        [*command, "--budget-kwh", "1", "--max-trials", "2"],
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    assert process.stdout is not None
    said = []
    for line in process.stdout:
        said.append(line)
        if line.startswith("trial 0: tiny"):
            break
    time.sleep(0.5)  # most often it is in its third step by now, and never beyond
    process.send_signal(signal.SIGKILL)
    process.stdout.close()
    assert process.wait(timeout=60) == -signal.SIGKILL, said
    study, ledger = lab.open()
    before = ledger.statement(study.study_id, "search")
    assert ledger.leased_trials(study.study_id) == {0}
    assert before.reserved_uj > 0
    assert [trial.state for trial in study.records()] == ["running", "waiting"]

    lab.search(budget_j=3_600_000.0, max_trials=2)
    records = lab.records()
    assert [record.state for record in records] == ["complete", "complete"]
    assert [record.params for record in records] == [CHEAPEST, DEAREST]
    ledger.verify(study.study_id)
    after = ledger.statement(study.study_id, "search")
    assert after.reserved_uj == 0
    # What the dead process had reported stays, and the time since its last beat is charged by estimate.
    for purpose, spent_uj in before.spent_by_purpose.items():
        assert after.spent_by_purpose[purpose] >= spent_uj
    assert j_from_uj(after.spent_by_purpose["reaped"]) > 0
