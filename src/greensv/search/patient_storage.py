"""Optuna's storage, with patience: a database that is away for a minute ends no search."""

from collections.abc import Callable
from functools import wraps
from typing import Any

import optuna
from optuna.storages import RDBStorage

from greensv.search.storage import patiently

PATIENT = (
    "create_new_trial",
    "get_all_studies",
    "get_all_trials",
    "get_n_trials",
    "get_study_directions",
    "get_study_id_from_name",
    "get_study_name_from_id",
    "get_study_system_attrs",
    "get_study_user_attrs",
    "get_trial",
    "get_trial_id_from_study_id_trial_number",
    "set_study_system_attr",
    "set_study_user_attr",
    "set_trial_param",
    "set_trial_state_values",
    "set_trial_system_attr",
    "set_trial_user_attr",
)
"""What a worker asks of the storage after its study has been opened. Each may be carried out twice without harm; of a
`create_new_trial` whose answer was lost, a RUNNING trial stays behind, which `reconcile` finds."""


class PatientStorage(RDBStorage):
    """`RDBStorage` whose calls are made again while the database is away; see `storage.patiently`."""


def _patient(name: str) -> Callable[..., Any]:
    method = getattr(RDBStorage, name)

    @wraps(method)
    def call(self: RDBStorage, *args: Any, **kwargs: Any) -> Any:
        num_calls = 0

        def once() -> Any:
            nonlocal num_calls
            num_calls += 1
            try:
                return method(self, *args, **kwargs)
            except optuna.exceptions.UpdateFinishedTrialError:
                if num_calls == 1 or name != "set_trial_state_values":
                    raise
                return True  # the call before had been carried out, and its answer was lost

        return patiently(once)

    return call


for _name in PATIENT:
    setattr(PatientStorage, _name, _patient(_name))
