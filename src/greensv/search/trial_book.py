"""Writes trials down: their record, what they were charged, and their end, to Optuna, plugins and the user."""

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from greensv import __version__
from greensv.config import StudyConfig
from greensv.energy.grid.watch import CarbonWatch
from greensv.plugins import Plugins
from greensv.search.calibration import Calibration
from greensv.search.candidate import Candidate
from greensv.search.events import TrialEnded
from greensv.search.metering import Metering
from greensv.search.objectives import Constraint, Objective, values_of
from greensv.search.records import from_trial
from greensv.search.reference import reference_fields
from greensv.search.rungs.history import Run
from greensv.search.rungs.training import RungReached
from greensv.search.study import OpenStudy, derive_seed
from greensv.search.workbench import Workbench
from greensv.trial_record import TrialRecord
from greensv.units import kwh_from_j, kwh_from_uj

if TYPE_CHECKING:
    import optuna


def component_versions(config: StudyConfig, plugins: Plugins) -> dict[str, str]:
    """Returns what produces this study's numbers: distribution and version of each component it names."""
    named: list[tuple[Any, str]] = [("dataset", config.dataset.name), ("carbon source", config.energy.carbon_source)]
    named += [("backbone", name) for name in config.backbones]
    meters = (*config.energy.meters, *config.energy.also_meters)
    named += [("meter", name) for name in meters if name != "auto"]
    providers = {f"{kind} {name}": plugins.component(kind, name).provider for kind, name in named}
    return {what: f"{provider.distribution} {provider.version}" for what, provider in providers.items()}


def charged_uncertainty_kwh(metering: Metering, number: int) -> float | None:
    """Returns the standard uncertainty of what has been charged for a trial, in kWh; None where it is not known."""
    uncertainty_uj = metering.ledger.trial_uncertainty_uj(metering.study_id, metering.account, number)
    return None if uncertainty_uj is None else kwh_from_uj(uncertainty_uj)


@dataclass(frozen=True, slots=True, kw_only=True)
class TrialBook:
    """The trials of one search, as one worker writes them down."""

    study: OpenStudy
    bench: Workbench
    carbon: CarbonWatch
    objectives: Sequence[Objective]
    constraints: Sequence[Constraint] = ()
    reference: Calibration | None = None
    """What energies are shown in units of, beside kWh."""
    unit_factor: float = 1.0
    """What a kWh here is on the hardware that the study began on, by their reference units."""
    _written: dict[int, dict[str, Any]] = field(default_factory=dict, repr=False)
    """What this worker wrote into the trials that are on their way."""

    def started(self, number: int, candidate: Candidate, *, seed: int | None = None) -> TrialRecord:
        """Returns the record of a trial that is about to run, or to go on."""
        from greensv.speaker.device import resolve_precision

        work = self.bench.work(candidate)
        return TrialRecord(
            number=number,
            state="running",
            backbone=candidate.backbone,
            params=self.bench.space.trial_params(candidate),
            summary=self.bench.space.summary(candidate),
            num_parameters=work.num_parameters,
            macs=work.macs,
            meters=self.bench.metering.domains(),
            device=self.bench.device_words,
            precision=resolve_precision(self.bench.config.recipe.precision, self.bench.device),
            seed=derive_seed(self.bench.config.seed, number) if seed is None else seed,
            versions={"greensv": __version__, **component_versions(self.bench.config, self.bench.plugins)},
        )

    def charged(self, record: TrialRecord, *, reason: str = "", was_interrupted: bool = False) -> TrialRecord:
        """Returns the record with all that was charged for the trial, and why it has no values."""
        metering = self.bench.metering
        charged_kwh = metering.trial_energy_kwh(record.number)
        carbon = self.carbon.figure(account=metering.account, trial_number=record.number)
        return dataclasses.replace(
            record,
            reason=reason,
            was_interrupted=was_interrupted,
            charged_energy_kwh=charged_kwh,
            charged_uncertainty_kwh=charged_uncertainty_kwh(metering, record.number),
            carbon_g=carbon.carbon_g,
            is_carbon_incomplete=not carbon.is_complete,
        )

    def at_rung(self, record: TrialRecord, reached: RungReached) -> TrialRecord:
        """Returns the record with what its training has shown up to a rung."""
        so_far, dev = reached.so_far, reached.dev
        return dataclasses.replace(
            self.charged(record),
            eer=dev.eer,
            min_dcf=dev.min_dcf,
            train_energy_kwh=reached.train_energy_kwh,
            train_energy_uncertainty_kwh=reached.train_energy_uncertainty_kwh,
            measured_energy_kwh=kwh_from_j(so_far.energy_j),
            measured_uncertainty_kwh=kwh_from_j(so_far.uncertainty_j),
            data_wait_s=so_far.data_wait_s,
            data_wait_energy_kwh=_kwh(so_far.data_wait_j),
            net_energy_kwh=_kwh(so_far.net_j),
            net_uncertainty_kwh=None if so_far.net_j is None else kwh_from_j(so_far.net_uncertainty_j),
            embed_energy_j=None if dev.embed_energy_j is None else self.unit_factor * dev.embed_energy_j,
            embed_energy_uncertainty_j=(
                None if dev.embed_energy_uncertainty_j is None else self.unit_factor * dev.embed_energy_uncertainty_j
            ),
            latency_s=reached.latency_s,
            joules_per_step=so_far.joules_per_step,
            seconds_per_step=so_far.seconds_per_step,
            num_steps=int(so_far.curve[-1]["step"]),
            num_skipped=so_far.num_skipped,
            duration_s=so_far.duration_s,
            curve=so_far.curve,
            **reference_fields(
                self.reference, reached.train_energy_kwh / self.unit_factor, pue=self.bench.config.energy.pue
            ),
        )

    def begun(self, record: TrialRecord) -> None:
        """Writes the record of a trial that begins, or goes on after it was left: it is interrupted no more."""
        self._written.pop(record.number, None)  # another worker may have written meanwhile
        self.note(record, {"was_interrupted": False, "reason": ""})

    def note(self, record: TrialRecord, more: Mapping[str, Any] = MappingProxyType({})) -> None:
        """Writes a record, and more attributes, into its trial, which goes on."""
        from optuna.exceptions import UpdateFinishedTrialError

        storage, trial_id = self.study.optuna._storage, self.study.trial_id(record.number)
        # Each attribute is a commit of its own; what this job wrote and has not changed needs none.
        written = self._written.setdefault(record.number, {})
        for key, value in {**record.attributes(), **more}.items():
            if key in written and written[key] == value:
                continue
            try:
                storage.set_trial_user_attr(trial_id, key, value)
                written[key] = value
            except UpdateFinishedTrialError:
                return  # another worker, which took this one for dead, has ended it

    def end(self, record: TrialRecord) -> None:
        """Writes the record, then tells Optuna: a crash between the two is mended from the record at the next start."""
        from optuna.trial import TrialState

        self.note(record)
        study = self.study.optuna
        values = values_of(record, self.objectives)
        if record.state == "complete" and values is not None:
            frozen = study.tell(record.number, list(values), skip_if_finished=True)
        else:
            state = TrialState.PRUNED if record.state in ("refused", "stopped") else TrialState.FAIL
            frozen = study.tell(record.number, state=state, skip_if_finished=True)
        self._written.pop(record.number, None)
        told = from_trial(frozen)
        self.bench.plugins.notify_trial_finished(study_name=self.study.config.name, trial=told.as_json())
        self.bench.listen(TrialEnded(record=told, front=self.front()))
        self.bench.metering.tell(self.bench.listen)

    def repeated(self, record: TrialRecord, repetition: int) -> None:
        """Keeps what the same network showed with another seed; its own trial is over and cannot be annotated."""
        self.study.keep_repetition(record, repetition)
        self.bench.listen(TrialEnded(record=record, front=self.front()))
        self.bench.metering.tell(self.bench.listen)

    def refused(self, trial: "optuna.Trial", candidate: Candidate, reason: str) -> None:
        """Ends a new trial whose candidate may not be trained, or cannot be paid for."""
        self.end(dataclasses.replace(self.started(trial.number, candidate), state="refused", reason=reason))

    def retired(self, run: Run, reason: str) -> None:
        """Ends a trial that will not be promoted any more, with what it showed last."""
        record = self.study.record(run.key.trial_number)
        if record.state in ("running", "interrupted"):
            self.end(dataclasses.replace(record, state="stopped", reason=reason))

    def front(self) -> list[TrialRecord]:
        """Returns the front as it is now."""
        return self.study.front()

    def note_constraints(self, record: TrialRecord) -> None:
        """Tells Optuna by how much each constraint is broken: 0 or less where it is kept."""
        import optuna

        trial = optuna.Trial(self.study.optuna, self.study.trial_id(record.number))
        for constraint in self.constraints:
            value = getattr(record, constraint.objective.field)
            # Optuna's Gaussian process wants every constraint of every complete trial.
            trial.set_constraint(constraint.text, 0.0 if value is None else constraint.excess(float(value)))


def _kwh(energy_j: float | None) -> float | None:
    return None if energy_j is None else kwh_from_j(energy_j)
