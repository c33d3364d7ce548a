"""The retraining of one network: full recipe, resumable, scored once on the test pairs, kept as a checkpoint."""

import json
import logging
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from greensv import __version__
from greensv.energy.books.schema import transaction
from greensv.energy.devices.phase_book import phase_totals
from greensv.energy.grid.watch import CarbonWatch
from greensv.errors import GreensvError, TeamBroken, TrainingError
from greensv.search.accounts import phases_as_json, windows_as_json
from greensv.search.control import BudgetExhausted, Interrupted, TooDear
from greensv.search.evaluator import full_recipe_steps, score_protocol, tell_skipped
from greensv.search.events import Noted
from greensv.search.gate import BudgetGate
from greensv.search.measuring import step_listener
from greensv.search.orders import TrainingOrder
from greensv.search.skips import unreadable_sounds
from greensv.search.study import RETRAIN_SUFFIX, OpenStudy, name_metrics
from greensv.search.training_window import EpochWindows, noted_window, training_window
from greensv.search.trial_book import charged_uncertainty_kwh, component_versions
from greensv.search.workbench import Workbench, cache_folder, dataset_arguments, watched_progress
from greensv.trial_record import TrialRecord
from greensv.units import format_energy, j_from_kwh

if TYPE_CHECKING:
    from torch import nn

    from greensv.speaker.training.loop import StepReport, Training

logger = logging.getLogger(__name__)

SAVE_INTERVAL_S = 600.0
"""What a power cut may lose of a training whose epochs last longer."""
STATE_FILE = "training.pt"
RESULT_FILE = "result.json"
NUMBERS_PER_SEED = 1_000_000
MAX_SEED = 2000
"""The ledger's number of a run, (1 + seed) × 10⁶ + trial, is a 32-bit integer."""
SKIPPED_FILE = "skipped.tsv"
"""Files of the training data, of noise and of rooms that were left out or could not be read, and why."""


def run_name(run_number: int) -> str:
    """Returns the trial and seed of a number in the retrain account, as tables show them: `3`, or `3, seed 1`."""
    seeds, trial_number = divmod(run_number, NUMBERS_PER_SEED)
    return f"{trial_number}, seed {seeds - 1}" if seeds else str(trial_number)


@dataclass(frozen=True, slots=True, kw_only=True)
class RetrainJob:
    """The retraining of one trial's network."""

    study: OpenStudy
    bench: Workbench
    record: TrialRecord
    folder: Path
    carbon: CarbonWatch
    seed: int | None = None
    """Instead of the trial's own."""

    @property
    def name(self) -> str:
        """The retraining in words."""
        return f"trial {self.record.number}" + ("" if self.seed is None else f", seed {self.seed}")

    @property
    def run_number(self) -> int:
        """What its energy is booked under in the retrain account: the trial's number, or one for trial and seed."""
        return self.record.number if self.seed is None else (1 + self.seed) * NUMBERS_PER_SEED + self.record.number

    def run(self) -> dict[str, Any]:
        """Returns the result: the stored one where the network is ready already."""
        result_path = self.folder / RESULT_FILE
        number = self.run_number
        if result_path.exists():
            self.bench.listen(Noted(text=f"{self.name} is retrained and scored already: {result_path}"))
            stored: dict[str, Any] = json.loads(result_path.read_text(encoding="utf-8"))
            self._add_sibling(stored)
            return stored
        training = self._training()
        remaining_j = self._remaining_j(training)
        metering = self.bench.metering
        metering.check()
        self.bench.listen(
            Noted(
                text=f"{self.name}: {training.num_steps - training.step:,} of {training.num_steps:,} steps to "
                f"train, reckoned {format_energy(remaining_j)}"
            )
        )
        lease = metering.reserve(min(remaining_j, metering.left_j), purpose="training", trial_number=number)
        if lease is None:
            raise BudgetExhausted(f"the retraining of {self.name} needs about {format_energy(remaining_j)}")
        with metering.holding(lease):
            gate = BudgetGate(metering, lease)
            with metering.purpose("training", trial_number=number):
                self._train(training, gate)
                self._save(training)
            with (
                metering.purpose("evaluation", trial_number=number),
                noted_window(metering, "evaluation", trial_number=number),
            ):
                protocols = self._score(training.network)
        return self._finish(training, protocols)

    def _training(self) -> "Training":
        bench = self.bench
        state_path = self.folder / STATE_FILE
        order = TrainingOrder(
            candidate=bench.space.candidate(self.record.params),
            phases=bench.config.recipe.phases,
            seed=self.record.seed or 0 if self.seed is None else self.seed,
            is_full=True,
            state_path=state_path if state_path.exists() else None,
        )
        with bench.metering.purpose("preparation"):
            training = bench.trainer.begin(order)
        if order.state_path is not None:
            bench.listen(Noted(text=f"{self.name}: continuing after step {training.step:,}"))
        return training

    def _remaining_j(self, training: "Training") -> float:
        full = sum(full_recipe_steps(self.bench, phase) for phase in self.bench.config.recipe.phases)
        train_j = j_from_kwh(self.record.train_energy_kwh or 0.0)
        return max(1.0, train_j * (training.num_steps - training.step) / max(full, 1))

    def _train(self, training: "Training", gate: BudgetGate) -> None:
        """Trains to the end, saving after each epoch, every ten minutes, and wherever it is stopped."""
        what = self.name
        gate.begin(num_steps=training.num_steps - training.step)
        listener = step_listener(self.bench, what=what, gate=gate, steps_per_epoch=training.steps_per_epoch)

        saved_at_s = time.monotonic()
        epochs = EpochWindows(self.bench.metering, training, trial_number=self.run_number)

        def on_step(report: "StepReport") -> None:
            nonlocal saved_at_s
            listener(report)
            if report.step % training.steps_per_epoch == 0 or time.monotonic() - saved_at_s >= SAVE_INTERVAL_S:
                self._save_state(training)
                saved_at_s = time.monotonic()
            epochs.after_step(report.step)

        try:
            with training_window(self.bench.metering, training, trial_number=self.run_number), epochs:
                training.run(on_step=on_step)
        except (Interrupted, BudgetExhausted, TooDear):
            self._save_state(training)
            raise
        except (TrainingError, TeamBroken):
            raise
        except BaseException:
            # A meter, the ledger or the data failed, or a second Ctrl-C came: between two steps as good a place to go
            # on from as any. Inside a step the state is torn, and not saved.
            self._try_to_save_state(training)
            raise

    def _save_state(self, training: "Training") -> None:
        from greensv.speaker.checkpoint import save_training_state

        save_training_state(self.folder / STATE_FILE, training, {"trial": self.record.number})

    def _try_to_save_state(self, training: "Training") -> None:
        try:
            self._save_state(training)
        except (GreensvError, RuntimeError, OSError) as error:
            logger.warning("%s: the state was not saved: %s", self.name, error)

    def _save(self, training: "Training") -> None:
        from greensv.speaker.checkpoint import CheckpointInfo, save_checkpoint

        bench = self.bench
        candidate = bench.space.candidate(self.record.params)
        backbone = bench.space.backbones[candidate.backbone]
        info = CheckpointInfo(
            backbone=candidate.backbone,
            backbone_version=backbone.version,
            params=dict(candidate.params),
            features=bench.config.features,
            embedding_dim=int(training.network.embedding_dim),  # type: ignore[arg-type]
            provenance={
                "study": self.study.config.name,
                "study_id": self.study.study_id,
                "trial": self.record.number,
                "seed": self.record.seed if self.seed is None else self.seed,
                **self._computed_by(training),
                "dataset": asdict(bench.config.dataset),
                "recipe": asdict(bench.config.recipe),
                "versions": {"greensv": __version__, **component_versions(bench.config, bench.plugins)},
            },
        )
        save_checkpoint(self.folder, training.network, info)

    def _computed_by(self, training: "Training") -> dict[str, Any]:
        """Returns what computed this retraining, which may be another machine than the search's."""
        return {
            "device": self.bench.device_words,
            "precision": training.precision,
            "num_processes": self.bench.crew.team.size,
        }

    def _score(self, network: "nn.Module") -> list[dict[str, Any]]:
        """Scores every test protocol: the first and only time the test pairs are looked at."""
        bench = self.bench
        dataset, root, options = dataset_arguments(bench.config, bench.plugins)
        progress = watched_progress(bench.listen, bench.stop, bench.metering)
        protocols = dataset.load_tests(root, options, cache_dir=cache_folder() / dataset.name, progress=progress)
        scored = []
        for protocol in protocols:
            found = score_protocol(bench, network, protocol)
            bench.listen(
                Noted(
                    text=f"{self.name} on {protocol.name}: EER {100 * found['eer']:.2f} % "
                    f"(95 % interval {100 * found['eer_low']:.2f} to {100 * found['eer_high']:.2f}), "
                    f"minDCF {found['min_dcf']:.3f}"
                )
            )
            scored.append(found)
        return scored

    def _finish(self, training: "Training", protocols: list[dict[str, Any]]) -> dict[str, Any]:
        """Writes the result, then drops the training state, which nothing needs any more."""
        from greensv.speaker.checkpoint import write_whole

        metering = self.bench.metering
        energy_kwh = metering.trial_energy_kwh(self.run_number)
        self.carbon.refresh()
        carbon = self.carbon.figure(account=metering.account, trial_number=self.run_number)
        result = {
            "study": self.study.config.name,
            "trial": self.record.number,
            **({} if self.seed is None else {"seed": self.seed}),
            "backbone": self.record.backbone,
            "params": dict(self.record.params),
            "num_parameters": self.record.num_parameters,
            "macs": self.record.macs,
            "num_steps": training.num_steps,
            **self._computed_by(training),
            "num_skipped": tell_skipped(self.bench, training, what=self.name),
            "predicted_train_energy_kwh": self.record.train_energy_kwh,
            "predicted_train_energy_uncertainty_kwh": self.record.train_energy_uncertainty_kwh,
            "charged_energy_kwh": energy_kwh,
            "charged_uncertainty_kwh": charged_uncertainty_kwh(metering, self.run_number),
            "carbon_g": carbon.carbon_g,
            "is_carbon_incomplete": not carbon.is_complete,
            "training_phases": self._phases(),
            "windows": self._windows(),
            "meters": metering.domains(),
            "protocols": protocols,
            "checkpoint": str(self.folder),
            "greensv": __version__,
        }
        text = json.dumps(result, indent=2, allow_nan=False) + "\n"
        self._write_skipped(training)
        write_whole(self.folder / RESULT_FILE, lambda file: file.write(text.encode()))
        (self.folder / STATE_FILE).unlink(missing_ok=True)
        self._add_sibling(result)
        return result

    def _phases(self) -> dict[str, Any]:
        """Returns the energy of all its training by phase of a step, of runs that were interrupted, too."""
        metering = self.bench.metering
        with transaction(metering.ledger.engine) as connection:
            found = phase_totals(connection, metering.study_id, metering.account, trial_number=self.run_number)
        return phases_as_json(found)

    def _windows(self) -> list[dict[str, Any]]:
        """Returns what each meter read in all its training, also beside the charges; PUE included."""
        metering = self.bench.metering
        found = windows_as_json(metering.ledger, metering.study_id, metering.account, pue=metering.pue)
        return found.get(self.run_number, [])

    def _write_skipped(self, training: "Training") -> None:
        """Names every file that was left out: too many for the result, which is kept in the database, too."""
        from greensv.speaker.checkpoint import write_whole

        left_out = (*self.bench.corpus.skipped, *unreadable_sounds(training))
        files = {file.path: file.reason for file in left_out} | dict(training.skipped)
        path = self.folder / SKIPPED_FILE
        if not files:
            path.unlink(missing_ok=True)
            return
        lines = "".join(f"{name}\t{' '.join(reason.split())}\n" for name, reason in sorted(files.items()))
        write_whole(path, lambda file: file.write(lines.encode()))

    def _add_sibling(self, result: dict[str, Any]) -> None:
        """Adds the result to the study `NAME/retrain`, once: a finished trial cannot be annotated any more."""
        import optuna

        storage = self.study.optuna._storage
        sibling = optuna.create_study(
            storage=storage,
            study_name=self.study.config.name + RETRAIN_SUFFIX,
            directions=["minimize", "minimize"],
            load_if_exists=True,
        )
        name_metrics(sibling, ["test_eer", "charged_energy_kwh"])
        tests = [protocol["eer"] for protocol in result["protocols"]]
        run = (result["trial"], result.get("seed"))
        done = [(t.user_attrs.get("trial"), t.user_attrs.get("seed")) for t in sibling.get_trials(deepcopy=False)]
        is_there = run in done
        if tests and not is_there:
            values = [float(sum(tests) / len(tests)), float(result["charged_energy_kwh"])]
            sibling.add_trial(optuna.trial.create_trial(values=values, user_attrs=result))
