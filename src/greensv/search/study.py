"""The Optuna study: created with its configuration, continued only with the same one, read back as records."""

import json
import time
import uuid
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from greensv import __version__
from greensv.config import StudyConfig
from greensv.config.load import differences, parse_study, to_json
from greensv.errors import StudyError, did_you_mean
from greensv.search.records import from_trial
from greensv.trial_record import TrialRecord

if TYPE_CHECKING:
    import optuna
    from optuna.samplers import BaseSampler
    from optuna.storages import RDBStorage

OBJECTIVES = ("eer", "train_energy_kwh")
CONFIG_ATTRIBUTE = "greensv:config"
ID_ATTRIBUTE = "greensv:study_id"
ENVIRONMENT_ATTRIBUTE = "greensv:environment"
VERSION_ATTRIBUTE = "greensv:version"
RETRAIN_SUFFIX = "/retrain"
CREATION_S = 2.0
"""A process that has created a study writes its id within so many seconds, or has died."""


@dataclass(frozen=True, slots=True, kw_only=True)
class OpenStudy:
    """An Optuna study, our own id of it (which survives renaming), and the configuration stored with it."""

    optuna: "optuna.Study"
    study_id: str
    config: StudyConfig

    def records(self) -> list[TrialRecord]:
        """Returns all trials as records."""
        return [from_trial(trial) for trial in self.optuna.get_trials(deepcopy=False)]

    def retrained(self) -> list[dict[str, Any]]:
        """Returns the results of retraining, as in each network's result.json."""
        import optuna

        name, storage = self.config.name + RETRAIN_SUFFIX, self.optuna._storage
        if name not in optuna.get_all_study_names(storage):
            return []
        sibling = optuna.load_study(study_name=name, storage=storage)
        return [dict(trial.user_attrs) for trial in sibling.get_trials(deepcopy=False)]


def create_or_continue(config: StudyConfig, storage: "RDBStorage", *, versions: Mapping[str, str]) -> OpenStudy:
    """Returns the study named in `config`, new with its configuration stored, or an existing one with an equal one.

    A study without any trial takes the new configuration: nothing depends on the old one, which may have named a
    folder or a meter that is not there.

    Raises:
        StudyError: a study of that name has another configuration (each difference is named), or is not ours.
    """
    import optuna

    try:
        study = optuna.create_study(storage=storage, study_name=config.name, directions=["minimize", "minimize"])
        return _initialise(study, config, versions)
    except optuna.exceptions.DuplicatedStudyError:
        study = optuna.load_study(study_name=config.name, storage=storage)
    if _has_no_id(study) and not study.trials:
        _wait_for_id(study)
    if _has_no_id(study) and not study.trials:
        # Its creation was cut short: the id is written last, and before it nothing runs.
        return _initialise(study, config, versions)
    found = load(config.name, storage)
    changes = differences(json.loads(to_json(found.config)), json.loads(to_json(config)))
    if changes and not study.trials:
        study.set_user_attr(CONFIG_ATTRIBUTE, to_json(config))
        return OpenStudy(optuna=study, study_id=found.study_id, config=config)
    if changes:
        listing = "\n".join(f"  {line}" for line in changes)
        raise StudyError(
            f"study {config.name!r} was started with another configuration:\n{listing}\n"
            "Continue it with the same one, or start a new study with --study-name."
        )
    return found


def _has_no_id(study: "optuna.Study") -> bool:
    return len(study.directions) == len(OBJECTIVES) and ID_ATTRIBUTE not in study.user_attrs


def _wait_for_id(study: "optuna.Study") -> None:
    """Another process may be about to write it; two ids would be two ledgers."""
    until_s = time.monotonic() + CREATION_S
    while _has_no_id(study) and time.monotonic() < until_s:
        time.sleep(CREATION_S / 20)


def name_metrics(study: "optuna.Study", names: Sequence[str]) -> None:
    """Sets the names that Optuna and its dashboard show for the objectives."""
    import optuna

    with warnings.catch_warnings():
        # Optuna calls it experimental since version 3.2.
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        study.set_metric_names(list(names))


def _initialise(study: "optuna.Study", config: StudyConfig, versions: Mapping[str, str]) -> OpenStudy:
    name_metrics(study, OBJECTIVES)
    study.set_user_attr(CONFIG_ATTRIBUTE, to_json(config))
    study.set_user_attr(VERSION_ATTRIBUTE, {"greensv": __version__, **versions})
    study.set_user_attr(ID_ATTRIBUTE, uuid.uuid4().hex)
    return OpenStudy(optuna=study, study_id=study.user_attrs[ID_ATTRIBUTE], config=config)


def load(name: str | None, storage: "RDBStorage") -> OpenStudy:
    """Returns a stored study. `name` None: the only one there is.

    Raises:
        StudyError: there is no such study, or several to choose from, or greensv did not make it.
    """
    import optuna

    names = [n for n in optuna.get_all_study_names(storage) if not n.endswith(RETRAIN_SUFFIX)]
    if name is None and len(names) == 1:
        name = names[0]
    if name is None:
        listing = ", ".join(sorted(names)) or "none; start one with `greensv search`"
        raise StudyError(f"the storage holds {len(names)} studies; choose one with --study-name (there: {listing})")
    if name not in names:
        raise StudyError(
            f"no study named {name!r}{did_you_mean(name, names)} (there: {', '.join(sorted(names)) or 'none'})"
        )
    study = optuna.load_study(study_name=name, storage=storage)
    attributes = study.user_attrs
    if ID_ATTRIBUTE not in attributes or CONFIG_ATTRIBUTE not in attributes:
        raise StudyError(f"study {name!r} was not made by greensv; choose another --study-name")
    config = parse_study(
        json.loads(attributes[CONFIG_ATTRIBUTE]), source=f"the configuration stored with study {name!r}"
    )
    return OpenStudy(optuna=study, study_id=attributes[ID_ATTRIBUTE], config=config)


def check_environment(study: OpenStudy, found: Mapping[str, str]) -> None:
    """Stores on what a study runs and what measures it; refuses to go on elsewhere once a trial is complete.

    `auto` may choose otherwise tomorrow (a permission gone, another GPU), and one front must not mix what it compares.

    Raises:
        StudyError: naming each difference.
    """
    stored = study.optuna.user_attrs.get(ENVIRONMENT_ATTRIBUTE)
    changes = differences(stored or {}, found)
    has_results = any(record.state == "complete" for record in study.records())
    if stored is not None and changes and has_results:
        listing = "\n".join(f"  {line}" for line in changes)
        raise StudyError(
            f"study {study.config.name!r} was measured under other conditions:\n{listing}\n"
            "Its energies would not compare. Continue it under the same ones, or start a new study with --study-name."
        )
    if stored is None or changes:
        study.optuna.set_user_attr(ENVIRONMENT_ATTRIBUTE, dict(found))


def make_sampler(config: StudyConfig, *, trial_number: int, num_backbones: int) -> "BaseSampler":
    """Returns a sampler for one trial, seeded by study and trial number: a continued search never repeats the random
    candidates of its beginning, and proposes what an uninterrupted one would have unless a trial was interrupted.
    """
    import optuna

    seed = derive_seed(config.seed, trial_number)
    if config.search.sampler == "random":
        return optuna.samplers.RandomSampler(seed=seed)
    with warnings.catch_warnings():
        # `group` models the parameters of each backbone apart; Optuna calls it experimental since version 2.8.
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        return optuna.samplers.TPESampler(
            multivariate=True, group=num_backbones > 1, n_startup_trials=config.search.num_startup_trials, seed=seed
        )


def derive_seed(study_seed: int, trial_number: int) -> int:
    """Returns the 32-bit seed of a trial."""
    return int(np.random.SeedSequence([study_seed, trial_number]).generate_state(1)[0])
