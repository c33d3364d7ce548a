"""From an Optuna trial to its record."""

import dataclasses
from typing import TYPE_CHECKING

from greensv.trial_record import TrialRecord

if TYPE_CHECKING:
    from optuna.trial import FrozenTrial

STATES = {"COMPLETE": "complete", "RUNNING": "running", "FAIL": "failed", "PRUNED": "refused", "WAITING": "waiting"}


def from_trial(trial: "FrozenTrial") -> TrialRecord:
    """Returns the record of an Optuna trial. Attributes of other tools are left alone."""
    known = {f.name for f in dataclasses.fields(TrialRecord)}
    attributes = {key: value for key, value in trial.user_attrs.items() if key in known}
    if "curve" in attributes:
        attributes["curve"] = tuple(attributes["curve"])
    state = STATES[trial.state.name]
    if state == "refused" and (attributes.get("curve") or attributes.get("was_interrupted")):
        state = "stopped"
    if state in ("failed", "running") and attributes.get("was_interrupted"):
        state = "interrupted"
    return TrialRecord(**{**attributes, "number": trial.number, "state": state, "params": dict(trial.params)})
