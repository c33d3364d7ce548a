"""Writes trials down: their record, what they were charged, and their end, to Optuna, plugins and the user."""

import dataclasses
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from greensv import __version__
from greensv.config import StudyConfig
from greensv.energy.grid.watch import CarbonWatch
from greensv.plugins import Plugins
from greensv.search.calibration import Calibration
from greensv.search.candidate import Candidate
from greensv.search.evaluator import Evaluation
from greensv.search.events import TrialEnded
from greensv.search.front import pareto_front
from greensv.search.metering import Metering
from greensv.search.records import from_trial
from greensv.search.reference import reference_fields
from greensv.search.study import OpenStudy, derive_seed
from greensv.search.workbench import Workbench
from greensv.trial_record import TrialRecord
from greensv.units import kwh_from_uj

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
    """The trials of one search."""

    study: OpenStudy
    bench: Workbench
    carbon: CarbonWatch
    reference: Calibration | None = None
    """What energies are shown in units of, beside kWh."""

    def started(self, trial: "optuna.Trial", candidate: Candidate) -> TrialRecord:
        """Returns the record of a trial that is about to run."""
        from greensv.speaker.device import resolve_precision

        work = self.bench.work(candidate)
        return TrialRecord(
            number=trial.number,
            state="running",
            backbone=candidate.backbone,
            params=dict(trial.params),
            summary=self.bench.space.summary(candidate),
            num_parameters=work.num_parameters,
            macs=work.macs,
            meters=self.bench.metering.domains(),
            device=self.bench.device_words,
            precision=resolve_precision(self.bench.config.recipe.precision, self.bench.device),
            seed=derive_seed(self.bench.config.seed, trial.number),
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

    def completed(self, record: TrialRecord, evaluation: Evaluation, duration_s: float) -> TrialRecord:
        """Returns the record of a trial that ran to its end."""
        return dataclasses.replace(
            self.charged(record),
            state="complete",
            duration_s=duration_s,
            **dataclasses.asdict(evaluation),
            **reference_fields(self.reference, evaluation.train_energy_kwh, pue=self.bench.config.energy.pue),
        )

    def end(self, trial: "optuna.Trial", record: TrialRecord) -> None:
        """Writes the record, then tells Optuna: a crash between the two is mended from the record at the next start."""
        from optuna.trial import TrialState

        for key, value in record.attributes().items():
            trial.set_user_attr(key, value)
        if record.state == "complete":
            values = [float(record.eer or 0.0), float(record.train_energy_kwh or 0.0)]
            frozen = self.study.optuna.tell(trial, values, skip_if_finished=True)
        else:
            state = TrialState.PRUNED if record.state == "refused" else TrialState.FAIL
            frozen = self.study.optuna.tell(trial, state=state, skip_if_finished=True)
        told = from_trial(frozen)
        self.bench.plugins.notify_trial_finished(study_name=self.study.config.name, trial=told.as_json())
        self.bench.listen(TrialEnded(record=told, front=pareto_front(self.study.records())))
        self.bench.metering.tell(self.bench.listen)
