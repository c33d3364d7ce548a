"""Runs one retraining: the full recipe, resumable, scored once on the test pairs, kept as a checkpoint."""

import time
from dataclasses import asdict, fields
from typing import TYPE_CHECKING, Any

from greensv import __version__
from greensv.errors import TeamBroken, TrainingError
from greensv.search.control import BudgetExhausted, Interrupted, TooDear
from greensv.search.evaluator import full_recipe_steps, score_protocol
from greensv.search.events import Noted
from greensv.search.gate import BudgetGate
from greensv.search.measuring import step_listener
from greensv.search.orders import TrainingOrder
from greensv.search.retrain_job import RetrainJob
from greensv.search.retrain_result import keep_result, stored_result
from greensv.search.retrain_state import RetrainState, open_state
from greensv.search.training_window import EpochWindows, noted_window, training_window
from greensv.search.trial_book import component_versions
from greensv.search.workbench import cache_folder, dataset_arguments, watched_progress
from greensv.units import format_energy, j_from_kwh

if TYPE_CHECKING:
    from torch import nn

    from greensv.speaker.training.loop import StepReport, Training

SAVE_INTERVAL_S = 600.0
"""What a power cut may lose of a training whose epochs last longer."""


def run_job(job: RetrainJob) -> dict[str, Any]:
    """Returns the result: the stored one where the network is ready already.

    Raises:
        TrainingError: the network cannot be trained.
        StudyError, CheckpointError: a saved training cannot be continued here.
        BudgetExhausted, TooDear, Interrupted: it ended early, and its state is saved.
    """
    if (stored := stored_result(job)) is not None:
        return stored
    metering, number = job.bench.metering, job.run_number
    state = open_state(job)
    training = _begin(job, state)
    remaining_j = _remaining_j(job, training)
    metering.check()
    job.bench.listen(
        Noted(
            text=f"{job.name}: {training.num_steps - training.step:,} of {training.num_steps:,} steps to "
            f"train, reckoned {format_energy(remaining_j)}"
        )
    )
    lease = metering.reserve(min(remaining_j, metering.left_j), purpose="training", trial_number=number)
    if lease is None:
        raise BudgetExhausted(f"the retraining of {job.name} needs about {format_energy(remaining_j)}")
    with metering.holding(lease):
        gate = BudgetGate(metering, lease)
        with metering.purpose("training", trial_number=number):
            _train(job, training, gate, state)
            _save_checkpoint(job, training)
        with (
            metering.purpose("evaluation", trial_number=number),
            noted_window(metering, "evaluation", trial_number=number),
        ):
            _add_dev_result(job, training.network)
            protocols = _score(job, training.network)
    result = keep_result(job, training, protocols, earlier_meters=state.earlier_meters)
    state.remove()
    return result


def _begin(job: RetrainJob, state: RetrainState) -> "Training":
    bench = job.bench
    order = TrainingOrder(
        candidate=bench.space.candidate(job.record.params),
        phases=bench.config.recipe.phases,
        seed=job.record.seed or 0 if job.seed is None else job.seed,
        is_full=True,
        state_path=state.path if state.path.exists() else None,
    )
    with bench.metering.purpose("preparation"):
        training = bench.trainer.begin(order)
    if order.state_path is not None:
        bench.listen(Noted(text=f"{job.name}: continuing after step {training.step:,}"))
    return training


def _remaining_j(job: RetrainJob, training: "Training") -> float:
    full = sum(full_recipe_steps(job.bench, phase) for phase in job.bench.config.recipe.phases)
    train_j = j_from_kwh(job.record.train_energy_kwh or 0.0)
    return max(1.0, train_j * (training.num_steps - training.step) / max(full, 1))


def _train(job: RetrainJob, training: "Training", gate: BudgetGate, state: RetrainState) -> None:
    """Trains to the end, saving after each epoch, every ten minutes, and wherever it is stopped."""
    gate.begin(num_steps=training.num_steps - training.step)
    listener = step_listener(job.bench, what=job.name, gate=gate, steps_per_epoch=training.steps_per_epoch)

    saved_at_s = time.monotonic()
    epochs = EpochWindows(job.bench.metering, training, trial_number=job.run_number)

    def on_step(report: "StepReport") -> None:
        nonlocal saved_at_s
        listener(report)
        if report.step % training.steps_per_epoch == 0 or time.monotonic() - saved_at_s >= SAVE_INTERVAL_S:
            state.save(training)
            saved_at_s = time.monotonic()
        epochs.after_step(report.step)

    try:
        with training_window(job.bench.metering, training, trial_number=job.run_number), epochs:
            training.run(on_step=on_step)
    except (Interrupted, BudgetExhausted, TooDear):
        state.save(training)
        raise
    except (TrainingError, TeamBroken):
        raise
    except BaseException:
        # A meter, the ledger or the data failed, or a second Ctrl-C came: between two steps as good a place to go
        # on from as any. Inside a step the state is torn, and not saved.
        state.try_to_save(training)
        raise


def _save_checkpoint(job: RetrainJob, training: "Training") -> None:
    from greensv.speaker.checkpoint import CheckpointInfo, save_checkpoint

    bench = job.bench
    candidate = bench.space.candidate(job.record.params)
    backbone = bench.space.backbones[candidate.backbone]
    info = CheckpointInfo(
        backbone=candidate.backbone,
        backbone_version=backbone.version,
        params=dict(candidate.params),
        features=bench.config.features,
        embedding_dim=int(training.network.embedding_dim),  # type: ignore[arg-type]
        provenance={
            "study": job.study.config.name,
            "study_id": job.study.study_id,
            "trial": job.record.number,
            "seed": job.record.seed if job.seed is None else job.seed,
            **job.computed_by(training),
            "dataset": asdict(bench.config.dataset),
            "recipe": asdict(bench.config.recipe),
            "versions": {"greensv": __version__, **component_versions(bench.config, bench.plugins)},
        },
    )
    save_checkpoint(job.folder, training.network, info)


def _add_dev_result(job: RetrainJob, network: "nn.Module") -> None:
    """Gives the checkpoint the threshold of the development pairs, unless their speakers were trained on."""
    from greensv.speaker.checkpoint import DevResult, annotate_checkpoint

    if job.bench.corpus.dev_rejoins_training:
        return
    found = score_protocol(job.bench, network, job.bench.corpus.dev)
    dev = DevResult(**{key.name: found[key.name] for key in fields(DevResult)})
    annotate_checkpoint(job.folder, dev=dev)


def _score(job: RetrainJob, network: "nn.Module") -> list[dict[str, Any]]:
    """Scores every test protocol: the first and only time the test pairs are looked at."""
    bench = job.bench
    dataset, root, options = dataset_arguments(bench.config, bench.plugins)
    progress = watched_progress(bench.listen, bench.stop, bench.metering)
    protocols = dataset.load_tests(root, options, cache_dir=cache_folder() / dataset.name, progress=progress)
    scored = []
    for protocol in protocols:
        found = score_protocol(bench, network, protocol)
        bench.listen(
            Noted(
                text=f"{job.name} on {protocol.name}: EER {100 * found['eer']:.2f} % "
                f"(95 % interval {100 * found['eer_low']:.2f} to {100 * found['eer_high']:.2f}), "
                f"minDCF {found['min_dcf']:.3f}"
            )
        )
        scored.append(found)
    return scored
