"""Trains one candidate briefly, measures it, and scores the development pairs."""

import dataclasses
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from greensv.config import Phase
from greensv.search.candidate import Candidate
from greensv.search.events import Noted
from greensv.search.gate import BudgetGate
from greensv.search.measuring import TrainingCost, measure_training, probe_training
from greensv.search.orders import TrainingOrder
from greensv.search.skips import told_skipped, unreadable_sounds
from greensv.search.training_window import noted_window
from greensv.search.workbench import Workbench
from greensv.speaker.dataset import Protocol, Skipped
from greensv.units import kwh_from_j

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from torch import nn

    from greensv.speaker.audio.store import AudioStore
    from greensv.speaker.device import Precision
    from greensv.speaker.scoring.metrics import Metrics
    from greensv.speaker.training.loop import Training

NUM_RESAMPLES = 200
"""Resamples of speakers for the interval of a test EER."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Evaluation:
    """What a short training showed. Energies include PUE."""

    eer: float
    min_dcf: float
    train_energy_kwh: float
    measured_energy_kwh: float
    joules_per_step: float
    seconds_per_step: float
    num_steps: int
    num_skipped: int
    """Training files that were left out or could not be read."""
    train_energy_uncertainty_kwh: float
    """Standard, of the energy of the full recipe."""
    measured_uncertainty_kwh: float
    """Standard, of the measured energy."""
    data_wait_s: float | None = None
    """For how long the device had nothing to do in the short training, no batch being ready."""
    data_wait_energy_kwh: float | None = None
    """The part of the measured energy that was used meanwhile: attributed, not measured."""
    net_energy_kwh: float | None = None
    """The measured energy less what the machine draws at rest; None where that is not known."""
    net_uncertainty_kwh: float | None = None


def short_phase(bench: Workbench) -> Phase:
    """Returns the recipe's first phase compressed to the search's epochs: same crop, same schedules, fewer steps."""
    return bench.config.recipe.phases[0].shortened(bench.config.search.num_epochs)


def evaluate(bench: Workbench, candidate: Candidate, *, trial_number: int, seed: int, gate: BudgetGate) -> Evaluation:
    """Trains a candidate for the search's epochs and scores the development pairs.

    Raises:
        Interrupted: the user asked to stop.
        BudgetExhausted: the budget is used up.
        TooDear: the budget cannot pay for the rest of the training.
        TrainingError: the training diverged.
    """
    metering = bench.metering
    with metering.purpose("training", trial_number=trial_number):
        training = bench.trainer.begin(TrainingOrder(candidate=candidate, phases=(short_phase(bench),), seed=seed))
        cost = measure_training(bench, training, what=f"trial {trial_number}", gate=gate, trial_number=trial_number)
    with (
        metering.purpose("evaluation", trial_number=trial_number),
        noted_window(metering, "evaluation", trial_number=trial_number),
    ):
        eer, min_dcf = score_dev(bench, training.network)
    train_j, train_uncertainty_j = _full_recipe_j(bench, candidate, cost, trial_number=trial_number)
    return Evaluation(
        eer=eer,
        min_dcf=min_dcf,
        train_energy_kwh=kwh_from_j(train_j),
        train_energy_uncertainty_kwh=kwh_from_j(train_uncertainty_j),
        measured_energy_kwh=kwh_from_j(cost.energy_j),
        measured_uncertainty_kwh=kwh_from_j(cost.uncertainty_j),
        joules_per_step=cost.joules_per_step,
        seconds_per_step=cost.seconds_per_step,
        num_steps=cost.num_steps,
        num_skipped=tell_skipped(bench, training, what=f"trial {trial_number}"),
        data_wait_s=cost.data_wait.duration_s if cost.data_wait else None,
        data_wait_energy_kwh=kwh_from_j(cost.data_wait.energy_j) if cost.data_wait else None,
        net_energy_kwh=kwh_from_j(cost.net.energy_j) if cost.net else None,
        net_uncertainty_kwh=kwh_from_j(cost.net.uncertainty_j) if cost.net else None,
    )


def probe(bench: Workbench, candidate: Candidate, *, seed: int) -> TrainingCost:
    """Measures some steps of a candidate's short training on real batches, to predict others from."""
    order = TrainingOrder(candidate=candidate, phases=(short_phase(bench),), seed=seed)
    return probe_training(bench, bench.trainer.begin(order), what="probe")


def tell_skipped(bench: Workbench, training: "Training", *, what: str) -> int:
    """Says which files a training could not read; returns their number, with those left out of the corpus before."""
    found = [Skipped(path=path, reason=reason) for path, reason in training.skipped.items()]
    if found:
        told = "training files that could not be read, others standing in for them"
        bench.listen(Noted(text=f"{what}: {told_skipped(found, what=told)}"))
    if sounds := unreadable_sounds(training):
        told = "noise and room files that could not be read, crops being left without them"
        bench.listen(Noted(text=f"{what}: {told_skipped(sounds, what=told)}"))
    return len(bench.corpus.skipped) + len(found) + len(sounds)


def full_recipe_steps(bench: Workbench, phase: Phase) -> int:
    """Returns the steps of one phase of the full recipe, on all the training data the full recipe uses.

    An epoch has one crop of each utterance, at however many speeds crops are played.
    """
    num_utterances = len(bench.corpus.train)
    if bench.corpus.dev_rejoins_training:
        num_utterances += len(bench.corpus.dev.utterances)
    return phase.num_epochs * (num_utterances // bench.config.recipe.batch_size)


def score_dev(bench: Workbench, network: "nn.Module") -> tuple[float, float]:
    """Returns EER and minDCF on the development pairs."""
    from greensv.speaker.device import resolve_precision
    from greensv.speaker.scoring.metrics import verify_scores

    precision = resolve_precision(bench.config.recipe.precision, bench.device)
    scores = _scores(bench, network, bench.corpus.dev, bench.dev_audio, precision=precision)
    found = verify_scores(scores, bench.corpus.dev.pairs.is_target)
    return found.eer, found.min_dcf


def score_protocol(bench: Workbench, network: "nn.Module", protocol: Protocol) -> dict[str, Any]:
    """Returns EER with its 95 % interval over speakers, minDCF and the counts of a protocol, as plain values.

    Where the protocol tells conditions apart, the same but the interval for each under `conditions`: None for one
    whose pairs are of one class only. In fp32, so that `greensv evaluate` finds the same on any machine.
    """
    from greensv.speaker.audio.store import AudioStore
    from greensv.speaker.scoring.bootstrap import bootstrap, protocol_speakers
    from greensv.speaker.scoring.metrics import measure_conditions, verify_scores

    scores = _scores(bench, network, protocol, AudioStore(protocol.utterances), precision="fp32")
    found = verify_scores(scores, protocol.pairs.is_target)
    low, high = bootstrap(
        scores,
        protocol.pairs.is_target,
        protocol_speakers(protocol),
        num_resamples=NUM_RESAMPLES,
        seed=bench.config.seed,
    ).eer
    result = {"protocol": protocol.name, **dataclasses.asdict(found), "eer_low": low, "eer_high": high}
    if protocol.pairs.conditions is None:
        return result
    by_condition = measure_conditions(scores, protocol.pairs, protocol.condition_names, p_targets=(found.p_target,))
    return {**result, "conditions": {name: _condition(metrics) for name, metrics in by_condition.items()}}


def _condition(metrics: "Metrics | None") -> dict[str, Any] | None:
    if metrics is None:
        return None
    (cost,) = metrics.costs
    return {
        "eer": metrics.eer,
        "min_dcf": cost.min_dcf,
        "num_target": metrics.num_target,
        "num_nontarget": metrics.num_nontarget,
    }


def _scores(
    bench: Workbench,
    network: "nn.Module",
    protocol: Protocol,
    audio: "AudioStore",
    *,
    precision: "Precision",
) -> "NDArray[np.float32]":
    from greensv.speaker.embedding import embed
    from greensv.speaker.scoring.pairs import score_protocol_pairs

    looked_at_s = time.monotonic()

    def on_batch(done: int, total: int) -> None:
        nonlocal looked_at_s
        now = time.monotonic()
        bench.metering.longest_step_s = max(bench.metering.longest_step_s, now - looked_at_s)
        looked_at_s = now
        bench.stop.check()
        bench.metering.check()

    embeddings = embed(
        network,
        protocol.utterances,
        audio,
        features=bench.config.features,
        device=bench.device,
        precision=precision,
        on_batch=on_batch,
    )
    return score_protocol_pairs(embeddings, protocol)


def is_probed_apart(bench: Workbench, phase: Phase) -> bool:
    """Whether a trial measures some steps of this phase, whose crop is another than the first one's."""
    return phase.crop_s != bench.config.recipe.phases[0].crop_s


def _full_recipe_j(
    bench: Workbench, candidate: Candidate, cost: TrainingCost, *, trial_number: int
) -> tuple[float, float]:
    """Returns the joules of the full recipe, per phase its steps × measured joules per step; and their uncertainty.

    A phase with the crop of the first one costs what was measured in training; one with another crop is probed.

    The standard uncertainty is the sum of the phases': the meters' scale is off in all of them alike, and so, being on
    the safe side where a phase was probed, is the rest.

    Raises:
        BudgetExhausted: the account ended in a probe, so that the trial has no energy; what would another crop cost is
            never guessed.
    """
    first, *others = bench.config.recipe.phases
    num_steps = full_recipe_steps(bench, first)
    total_j, uncertainty_j = num_steps * cost.joules_per_step, num_steps * cost.joules_per_step_uncertainty
    for phase in others:
        measured = cost
        if is_probed_apart(bench, phase):
            with bench.metering.purpose("probe", trial_number=trial_number):
                order = TrainingOrder(candidate=candidate, phases=(phase.shortened(1),), seed=0)
                training = bench.trainer.begin(order)
                what = f"trial {trial_number}, phase {phase.name}"
                measured = probe_training(bench, training, what=what, trial_number=trial_number)
        num_steps = full_recipe_steps(bench, phase)
        total_j += num_steps * measured.joules_per_step
        uncertainty_j += num_steps * measured.joules_per_step_uncertainty
    return total_j, uncertainty_j
