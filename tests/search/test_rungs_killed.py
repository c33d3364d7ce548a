"""A search that is killed on the second of two rungs, and the one that goes on from what was saved on the first."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from greensv.search.events import Stepped
from greensv.search.rungs.book import RungBook
from greensv.units import j_from_uj
from tiny.study import CHEAPEST, STEPS, STUDY_TOML, Lab, install
from tiny.work import QUICK_VARIABLE, SLEEP_VARIABLE

pytestmark = pytest.mark.slow

RUNGS = {"scheduler": "rungs", "num_rungs": 2, "min_rung_steps": 2}
RUNGS_TOML = 'scheduler = "rungs"\nnum_rungs = 2\nmin_rung_steps = 2'
FIRST = 4
"""Steps of the first of two rungs: a third of ten, rounded up."""


def test_a_training_killed_on_its_second_rung_goes_on_from_the_first(lab: Lab, tmp_path: Path):
    kill_on_second_rung(lab, tmp_path)
    study, ledger = lab.open()
    (run,) = RungBook(ledger, study.study_id, num_rungs=2).history().in_state("running")
    assert (run.key.trial_number, run.key.rung, run.step) == (0, 1, FIRST)
    before = ledger.statement(study.study_id, "search")
    assert before.reserved_uj > 0

    lab.search(budget_j=3_600_000.0, max_trials=1, search=RUNGS)
    steps = [said.step for said in lab.events if isinstance(said, Stepped) and said.what == "trial 0"]
    assert min(steps) > FIRST, "what was saved is not trained again"
    assert max(steps) == STEPS
    (record,) = [one for one in lab.records() if one.state != "waiting"]
    assert (record.number, record.state, record.params) == (0, "complete", CHEAPEST)
    assert [point["step"] for point in record.curve] == [FIRST, STEPS]
    after = lab.audited()
    assert all(after.spent_by_purpose[purpose] >= uj for purpose, uj in before.spent_by_purpose.items())
    assert j_from_uj(after.spent_by_purpose["reaped"]) > 0

    lab.search(max_trials=1, search=RUNGS, name="unbroken")
    unbroken = lab.finished[-1].study.record(0)
    assert (record.params, record.eer, record.min_dcf) == (unbroken.params, unbroken.eer, unbroken.min_dcf)


def kill_on_second_rung(lab: Lab, folder: Path) -> None:
    """Searches in a process of its own, and kills that when its only trial was promoted and is at work again."""
    study_file = folder / "study.toml"
    study_file.write_text(STUDY_TOML.replace('scheduler = "none"', RUNGS_TOML))
    environment = {
        **install(folder),
        "XDG_CACHE_HOME": os.environ["XDG_CACHE_HOME"],
        # The probes of the space's two ends are quick, and so are the first rung and two steps; the next never ends.
        QUICK_VARIABLE: str(2 * STEPS + FIRST + 2),
        SLEEP_VARIABLE: "600",
    }
    command = [sys.executable, "-u", "-m", "greensv", "search", str(study_file), "--storage", lab.url]
    process = subprocess.Popen(
        [*command, "--budget-kwh", "1", "--max-trials", "1"],
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    assert process.stdout is not None
    said = []
    for line in process.stdout:
        said.append(line)
        if line.startswith("trial 0 (rung 2 of 2): tiny"):
            break
    time.sleep(0.3)  # most often it is in its seventh step by now, and never beyond
    process.send_signal(signal.SIGKILL)
    process.stdout.close()
    assert process.wait(timeout=60) == -signal.SIGKILL, said
