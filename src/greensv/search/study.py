"""The Optuna study: created with its configuration, continued only with the same one, read back as records."""

import json
import time
import uuid
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from greensv import __version__
from greensv.config import StudyConfig
from greensv.config.load import differences, parse_study, to_json
from greensv.errors import StudyError, did_you_mean
from greensv.search.calibration import Calibration
from greensv.search.front import pareto_front
from greensv.search.objectives import Constraint, Objective, constraints_of, objectives_of
from greensv.search.records import from_trial
from greensv.search.reference import keep_reference, unit_factor
from greensv.trial_record import TrialRecord

if TYPE_CHECKING:
    import optuna
    from optuna.storages import RDBStorage
    from optuna.trial import FrozenTrial

CONFIG_ATTRIBUTE = "greensv:config"
ID_ATTRIBUTE = "greensv:study_id"
ENVIRONMENT_ATTRIBUTE = "greensv:environment"
VERSION_ATTRIBUTE = "greensv:version"
REPETITION_ATTRIBUTE = "greensv:repetition"
"""Before the numbers of trial and repetition: what a trial's network showed with another seed."""
RETRAIN_SUFFIX = "/retrain"
CREATION_S = 2.0
"""A process that has created a study writes its id within so many seconds, or has died."""


@dataclass(frozen=True, slots=True, kw_only=True)
class OpenStudy:
    """An Optuna study, our own id of it (which survives renaming), and the configuration stored with it."""

    optuna: "optuna.Study"
    study_id: str
    config: StudyConfig
    _finished: dict[int, TrialRecord] = field(default_factory=dict, repr=False, compare=False)
    """Records of trials that are over, which nothing changes any more."""

    @property
    def objectives(self) -> tuple[Objective, ...]:
        """What the study minimises, in the order of its values."""
        return objectives_of(self.config.search.objectives)

    @property
    def constraints(self) -> tuple[Constraint, ...]:
        """What its networks must keep."""
        return constraints_of(self.config.search.constraints)

    def records(self) -> list[TrialRecord]:
        """Returns all trials as records; of a network trained with several seeds, also how its EERs scatter."""
        repetitions = self.repetitions()
        records = [self._record(trial) for trial in self.optuna.get_trials(deepcopy=False)]
        return [_with_repetitions(record, repetitions.get(record.number, ())) for record in records]

    def record(self, number: int) -> TrialRecord:
        """Returns one trial as a record; see `records`."""
        record = self._record(self.optuna._storage.get_trial(self.trial_id(number)))
        return _with_repetitions(record, self.repetitions().get(number, ()))

    def _record(self, trial: "FrozenTrial") -> TrialRecord:
        known = self._finished.get(trial.number)
        if known is None:
            known = from_trial(trial)
            if trial.state.is_finished():
                self._finished[trial.number] = known
        return known

    def front(self) -> list[TrialRecord]:
        """Returns the non-dominated trials."""
        return pareto_front(self.records(), self.objectives, constraints=self.constraints)

    def repetitions(self) -> dict[int, list[dict[str, Any]]]:
        """Returns what networks showed with other seeds, by the trial's number."""
        found: dict[int, list[dict[str, Any]]] = {}
        for key, value in sorted(self.optuna.user_attrs.items()):
            if key.startswith(REPETITION_ATTRIBUTE):
                found.setdefault(int(key.split(":")[2]), []).append(value)
        return found

    def keep_repetition(self, record: TrialRecord, repetition: int) -> None:
        """Keeps what a trial's network showed with another seed: a finished trial cannot be annotated any more."""
        kept = {
            "repetition": repetition,
            "seed": record.seed,
            "eer": record.eer,
            "min_dcf": record.min_dcf,
            "train_energy_kwh": record.train_energy_kwh,
            "measured_energy_kwh": record.measured_energy_kwh,
        }
        self.optuna.set_user_attr(f"{REPETITION_ATTRIBUTE}:{record.number}:{repetition}", kept)

    def trial_id(self, number: int) -> int:
        """Returns Optuna's own id of a trial."""
        return self.optuna._storage.get_trial_id_from_study_id_trial_number(self.optuna._study_id, number)

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
        study = optuna.create_study(
            storage=storage, study_name=config.name, directions=["minimize"] * len(config.search.objectives)
        )
        return _initialise(study, config, versions)
    except optuna.exceptions.DuplicatedStudyError:
        study = optuna.load_study(study_name=config.name, storage=storage)
    if _has_no_id(study) and not study.trials:
        _wait_for_id(study)
    if _has_no_id(study) and not study.trials:
        # Its creation was cut short: the id is written last, and before it nothing runs.
        return _initialise(study, config, versions)
    found = load(config.name, storage)
    # Not by its name: the dashboard may have given the study another one.
    named_alike = replace(found.config, name=config.name)
    changes = differences(json.loads(to_json(named_alike)), json.loads(to_json(config)))
    if changes and not study.trials:
        study.set_user_attr(CONFIG_ATTRIBUTE, to_json(config))
        study.set_user_attr(VERSION_ATTRIBUTE, {"greensv": __version__, **versions})
        return OpenStudy(optuna=study, study_id=found.study_id, config=config)
    if changes:
        listing = "\n".join(f"  {line}" for line in changes)
        raise StudyError(
            f"study {config.name!r} was started with another configuration:\n{listing}\n"
            "Continue it with the same one, or start a new study with --study-name."
        )
    return found


def _has_no_id(study: "optuna.Study") -> bool:
    return len(study.directions) > 1 and ID_ATTRIBUTE not in study.user_attrs


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
    name_metrics(study, [objective.field for objective in objectives_of(config.search.objectives)])
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


def check_environment(
    study: OpenStudy, found: Mapping[str, str], *, has_begun: bool, reference: Calibration | None = None
) -> float:
    """Stores on what a study runs and what measures it, or compares with what is stored.

    `auto` may choose otherwise tomorrow (a permission gone, another GPU), and one front must not mix what it compares.
    Another processor or other meters are compared through reference units, where both were calibrated.

    Args:
        study: the study.
        found: here; see `workbench.environment`.
        has_begun: whether it has trials whose energies must compare.
        reference: the calibration in force here.

    Returns:
        What a kWh here is on the hardware that the study began on.

    Raises:
        StudyError: naming each difference.
    """
    stored = study.optuna.user_attrs.get(ENVIRONMENT_ATTRIBUTE)
    if stored is None or (not has_begun and stored != found):
        study.optuna.set_user_attr(ENVIRONMENT_ATTRIBUTE, dict(found))
        keep_reference(study.optuna, reference)
        return 1.0
    changes = differences(stored, found)
    if not changes:
        keep_reference(study.optuna, reference)
        return 1.0
    are_comparable = all(stored.get(key) == found.get(key) for key in ("precision", "processes"))
    factor = unit_factor(study.optuna, reference)
    if are_comparable and factor is not None:
        return factor
    listing = "\n".join(f"  {line}" for line in changes)
    remedy = (
        "run `greensv calibrate` on both machines, the first one before a new study, so that they compare through "
        "reference units; or continue it under the same ones, or start a new study with --study-name"
        if are_comparable
        else "continue it under the same ones, or start a new study with --study-name"
    )
    raise StudyError(
        f"study {study.config.name!r} was measured under other conditions:\n{listing}\n"
        f"Its energies would not compare: {remedy}."
    )


def derive_seed(study_seed: int, trial_number: int) -> int:
    """Returns the 32-bit seed of a trial."""
    return int(np.random.SeedSequence([study_seed, trial_number]).generate_state(1)[0])


def _with_repetitions(record: TrialRecord, repetitions: Sequence[Mapping[str, Any]]) -> TrialRecord:
    if record.eer is None or not repetitions:
        return record
    eers = [record.eer, *(float(repetition["eer"]) for repetition in repetitions)]
    return replace(
        record, repetitions=len(repetitions), eer_mean=float(np.mean(eers)), eer_std=float(np.std(eers, ddof=1))
    )
