"""Trains a job from where it is saved to its rung, measures it, and scores the development pairs there."""

import json
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from greensv.errors import CheckpointError, StudyError
from greensv.search.artifacts import ArtifactStore
from greensv.search.control import BudgetExhausted, Interrupted, TooDear
from greensv.search.evaluator import (
    DevScore,
    full_recipe_j,
    is_probed_apart,
    probe,
    score_dev,
    short_phase,
    tell_skipped,
)
from greensv.search.gate import BudgetGate
from greensv.search.jobs import SAVED_AS, Job
from greensv.search.measuring import measure_training
from greensv.search.orders import TrainingOrder
from greensv.search.rungs.book import RungBook
from greensv.search.rungs.so_far import RungFigures, SoFar
from greensv.search.training_window import EpochWindows, noted_window
from greensv.search.workbench import Workbench
from greensv.units import kwh_from_j

if TYPE_CHECKING:
    from greensv.speaker.training.loop import StepReport, Training

SO_FAR = "so_far"
"""In a saved training: what was measured of it when it had reached its rung."""
SAVE_INTERVAL_S = 300.0
"""What a killed worker loses of a training at most, beside the money that its lease covers."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RungReached:
    """What a job showed at its rung."""

    so_far: SoFar
    dev: DevScore
    train_energy_kwh: float
    """Of the full recipe, on the hardware that the study began on."""
    train_energy_uncertainty_kwh: float
    latency_s: float | None


class RungTrainer:
    """Trains the jobs of one worker, one after the other; a training that goes on at once is not loaded again."""

    def __init__(self, bench: Workbench, book: RungBook, artifacts: ArtifactStore, *, unit_factor: float = 1.0) -> None:
        """Makes a trainer.

        Args:
            bench: what trainings share.
            book: told of each saved step.
            artifacts: where trainings are saved, for any worker to go on with.
            unit_factor: what a joule here is on the hardware that the study began on; parts of a training that several
                machines did are added up in that.
        """
        self._bench, self._book, self._artifacts = bench, book, artifacts
        self._unit_factor = unit_factor
        self._kept: tuple[str, Training] | None = None

    def run(self, job: Job, gate: BudgetGate) -> RungReached:
        """Trains a job to its rung, saves it there, and returns what it showed.

        Raises:
            Interrupted, BudgetExhausted, TooDear: with the training saved at the step it had come to.
            TrainingError: it diverged.
            StudyError: it cannot be saved or loaded.
        """
        began_s = time.monotonic()
        bench, number = self._bench, job.trial_number
        with bench.metering.purpose("training", trial_number=number):
            training = self._training(job)
            so_far = SoFar.from_json(job.after.data if job.after else {})
            if training.step < job.to_step:
                so_far = self._train(job, training, so_far, gate)
            else:
                so_far = self._trained_before(job, so_far)
        with (
            bench.metering.purpose("evaluation", trial_number=number),
            noted_window(bench.metering, "evaluation", trial_number=number),
        ):
            dev = score_dev(bench, training.network)
            latency_s = self._latency_s(training) if self._wants_latency(job) else None
        so_far = self._with_other_phases(job, so_far)
        train_j, uncertainty_j = full_recipe_j(bench, so_far)
        figures = RungFigures(
            step=job.to_step,
            eer=dev.eer,
            min_dcf=dev.min_dcf,
            train_energy_kwh=kwh_from_j(train_j),
            measured_energy_kwh=kwh_from_j(so_far.energy_j),
        )
        return RungReached(
            so_far=so_far.at_rung(figures, duration_s=time.monotonic() - began_s),
            dev=dev,
            train_energy_kwh=kwh_from_j(train_j),
            train_energy_uncertainty_kwh=kwh_from_j(uncertainty_j),
            latency_s=latency_s,
        )

    def _train(self, job: Job, training: "Training", so_far: SoFar, gate: BudgetGate) -> SoFar:
        """Trains to the rung and saves it, with what was measured; returns that."""
        bench = self._bench
        saving = self._saving(job, training)
        try:
            with EpochWindows(bench.metering, training, trial_number=job.trial_number) as epochs:

                def each_step(report: "StepReport") -> None:
                    epochs.after_step(report.step)
                    saving(report)

                cost = measure_training(
                    bench,
                    training,
                    what=job_name(job),
                    gate=gate,
                    trial_number=job.trial_number,
                    until_step=job.to_step,
                    each_step=each_step,
                )
        except (Interrupted, BudgetExhausted, TooDear):
            self._save(job, training)
            raise
        except StudyError:  # the database is gone for good, so that the book cannot be told
            self._keep(job, training)
            raise
        num_skipped = tell_skipped(bench, training, what=job_name(job))
        measured = so_far.plus(cost, num_skipped=num_skipped, unit_factor=self._unit_factor)
        self._save(job, training, so_far=measured)
        return measured

    def _trained_before(self, job: Job, so_far: SoFar) -> SoFar:
        """Returns what was measured of a training whose worker was stopped between its last step and its scores."""
        from greensv.speaker.checkpoint import load_training_state

        with self._artifacts.local(self._name(job)) as path:
            _, extra = load_training_state(path)
        if SO_FAR in extra:
            return SoFar.from_json(json.loads(extra[SO_FAR]))
        if so_far.steady_steps:
            return so_far
        # It was interrupted at its very last step: what a step costs is measured on a few others.
        self._kept = None  # in a team, the others are about to be given another training
        cost = probe(self._bench, job.candidate, seed=job.seed)
        return so_far.plus(cost, num_skipped=0, unit_factor=self._unit_factor)

    def forget(self, job: Job) -> None:
        """Deletes what was saved of a training that nobody will go on with."""
        self._kept = None
        self._artifacts.delete(self._name(job))

    def _name(self, job: Job) -> str:
        name: str = job.run.data[SAVED_AS]
        return name

    def _training(self, job: Job) -> "Training":
        name = self._name(job)
        kept, self._kept = self._kept, None
        if kept is not None and kept[0] == name and kept[1].step == job.from_step:
            self._kept = kept
            return kept[1]
        del kept  # its memory is needed for the next one
        order = TrainingOrder(candidate=job.candidate, phases=(short_phase(self._bench),), seed=job.seed)
        training = self._loaded(job, order) or self._bench.trainer.begin(order)
        self._kept = (name, training)
        return training

    def _loaded(self, job: Job, order: TrainingOrder) -> "Training | None":
        """Returns the saved training; None where there is none yet. It may be further than the book was told."""
        name = self._name(job)
        if job.from_step == 0 and (job.run.attempts == 1 or not self._artifacts.exists(name)):
            return None
        try:
            with self._artifacts.local(name) as path:
                return self._bench.trainer.begin(replace(order, state_path=path))
        except CheckpointError:
            if job.from_step:
                raise
            return None  # of another study that had this folder before

    def _saving(self, job: Job, training: "Training") -> "Callable[[StepReport], None]":
        saved_s = time.monotonic()

        def each_step(report: "StepReport") -> None:
            nonlocal saved_s
            if time.monotonic() - saved_s > SAVE_INTERVAL_S and report.step < job.to_step:
                self._save(job, training)
                saved_s = time.monotonic()

        return each_step

    def _save(self, job: Job, training: "Training", *, so_far: SoFar | None = None) -> None:
        if training.step == job.from_step:
            return
        self._keep(job, training, so_far=so_far)
        self._book.saved(job.run, job.lease, step=training.step)

    def _keep(self, job: Job, training: "Training", *, so_far: SoFar | None = None) -> None:
        from greensv.speaker.checkpoint import save_training_state

        extra = {} if so_far is None else {SO_FAR: json.dumps(so_far.as_json())}
        self._artifacts.save(self._name(job), lambda path: save_training_state(path, training, extra))

    def _wants_latency(self, job: Job) -> bool:
        """Where it is an objective or a bound, trainings are compared by it at each rung."""
        search = self._bench.config.search
        is_compared = any("latency" in text for text in (*search.objectives, *search.constraints))
        return is_compared or (job.is_top and job.run.key.repetition == 0)

    def _latency_s(self, training: "Training") -> float:
        from greensv.speaker.device import resolve_precision
        from greensv.speaker.latency import latency_s

        bench = self._bench
        precision = resolve_precision(bench.config.recipe.precision, bench.device)
        return latency_s(training.network, features=bench.config.features, device=bench.device, precision=precision)

    def _with_other_phases(self, job: Job, so_far: SoFar) -> SoFar:
        """Measures a step of each phase with another crop, once per training."""
        from greensv.search.evaluator import probe_other_phases

        if so_far.other_phases or not any(is_probed_apart(self._bench, p) for p in self._bench.config.recipe.phases):
            return so_far
        self._kept = None  # in a team, the others are about to be given another training
        found = probe_other_phases(self._bench, job.candidate, what=job_name(job), trial_number=job.trial_number)
        factor = self._unit_factor
        return replace(so_far, other_phases={name: (factor * j, factor * u) for name, (j, u) in found.items()})


def job_name(job: Job) -> str:
    """Returns a job in words: `trial 7`, or `trial 7, seed 2`."""
    repetition = job.run.key.repetition
    return f"trial {job.trial_number}" + (f", seed {repetition}" if repetition else "")
