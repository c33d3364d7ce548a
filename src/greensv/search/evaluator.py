"""What trainings of a search and of the full recipe are judged by: scores, energy of the recipe, files left out."""

import dataclasses
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from greensv.config import Phase
from greensv.errors import MeterError
from greensv.search.candidate import Candidate
from greensv.search.events import Noted
from greensv.search.measuring import TrainingCost, probe_training
from greensv.search.orders import TrainingOrder
from greensv.search.skips import told_skipped, unreadable_sounds
from greensv.search.workbench import Workbench
from greensv.speaker.dataset import Protocol, Skipped

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from torch import nn

    from greensv.energy.monitoring import Window
    from greensv.search.rungs.so_far import SoFar
    from greensv.speaker.audio.store import AudioStore
    from greensv.speaker.device import Precision
    from greensv.speaker.scoring.metrics import Metrics
    from greensv.speaker.training.loop import Training

NUM_RESAMPLES = 200
"""Resamples of speakers for the interval of a test EER."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DevScore:
    """What a network shows on the development pairs, and what embedding their utterances used, PUE included."""

    eer: float
    min_dcf: float
    embed_energy_j: float | None
    """Joules per second of speech; None where the meters cannot tell it."""
    embed_energy_uncertainty_j: float | None
    """Its standard uncertainty."""


def short_phase(bench: Workbench) -> Phase:
    """Returns the recipe's first phase compressed to the search's epochs: same crop, same schedules, fewer steps."""
    return bench.config.recipe.phases[0].shortened(bench.config.search.num_epochs)


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


def score_dev(bench: Workbench, network: "nn.Module") -> DevScore:
    """Returns EER and minDCF on the development pairs, and the energy of embedding their utterances."""
    from greensv.speaker.device import resolve_precision
    from greensv.speaker.scoring.metrics import verify_scores
    from greensv.speaker.scoring.pairs import score_protocol_pairs

    dev = bench.corpus.dev
    precision = resolve_precision(bench.config.recipe.precision, bench.device)
    with bench.metering.monitor.window("embedding") as window:
        embeddings = _embeddings(bench, network, dev, bench.dev_audio, precision=precision)
    found = verify_scores(score_protocol_pairs(embeddings, dev), dev.pairs.is_target)
    energy_j, uncertainty_j = _per_second_of_speech(bench, window, speech_s=dev.utterances.duration_s)
    return DevScore(
        eer=found.eer, min_dcf=found.min_dcf, embed_energy_j=energy_j, embed_energy_uncertainty_j=uncertainty_j
    )


def _per_second_of_speech(
    bench: Workbench, window: "Window", *, speech_s: float
) -> tuple[float, float] | tuple[None, None]:
    """Returns joules per second of speech and their uncertainty; None for both where the meters saw nothing."""
    try:
        result = window.result
    except MeterError:
        return None, None
    if result.energy_j <= 0:
        return None, None
    pue = bench.config.energy.pue
    return pue * result.energy_j / speech_s, pue * result.uncertainty_j / speech_s


def score_protocol(bench: Workbench, network: "nn.Module", protocol: Protocol) -> dict[str, Any]:
    """Returns EER with its 95 % interval over speakers, minDCF and the counts of a protocol, as plain values.

    Where the protocol tells conditions apart, the same but the interval for each under `conditions`: None for one
    whose pairs are of one class only. In fp32, so that `greensv evaluate` finds the same on any machine.
    """
    from greensv.speaker.audio.store import AudioStore
    from greensv.speaker.scoring.bootstrap import bootstrap, protocol_speakers
    from greensv.speaker.scoring.metrics import measure_conditions, verify_scores
    from greensv.speaker.scoring.pairs import score_protocol_pairs

    embeddings = _embeddings(bench, network, protocol, AudioStore(protocol.utterances), precision="fp32")
    scores = score_protocol_pairs(embeddings, protocol)
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


def _embeddings(
    bench: Workbench,
    network: "nn.Module",
    protocol: Protocol,
    audio: "AudioStore",
    *,
    precision: "Precision",
) -> "NDArray[np.float32]":
    from greensv.speaker.embedding import embed

    looked_at_s = time.monotonic()

    def on_batch(done: int, total: int) -> None:
        nonlocal looked_at_s
        now = time.monotonic()
        bench.metering.longest_step_s = max(bench.metering.longest_step_s, now - looked_at_s)
        looked_at_s = now
        bench.stop.check()
        bench.metering.check()

    return embed(
        network,
        protocol.utterances,
        audio,
        features=bench.config.features,
        device=bench.device,
        precision=precision,
        on_batch=on_batch,
    )


def is_probed_apart(bench: Workbench, phase: Phase) -> bool:
    """Whether a trial measures some steps of this phase, whose crop is another than the first one's."""
    return phase.crop_s != bench.config.recipe.phases[0].crop_s


def probe_other_phases(
    bench: Workbench, candidate: Candidate, *, what: str, trial_number: int
) -> dict[str, tuple[float, float]]:
    """Measures some steps of each phase of the recipe with another crop than the first one's.

    Returns:
        By the phase's name, its joules per step and their uncertainty, PUE included.

    Raises:
        BudgetExhausted: the account ended in a probe, so that the trial has no energy; what would another crop cost is
            never guessed.
    """
    found = {}
    for phase in bench.config.recipe.phases[1:]:
        if is_probed_apart(bench, phase):
            with bench.metering.purpose("probe", trial_number=trial_number):
                training = bench.trainer.begin(TrainingOrder(candidate=candidate, phases=(phase.shortened(1),), seed=0))
                cost = probe_training(bench, training, what=f"{what}, phase {phase.name}", trial_number=trial_number)
            found[phase.name] = (cost.joules_per_step, cost.joules_per_step_uncertainty)
    return found


def full_recipe_j(bench: Workbench, so_far: "SoFar") -> tuple[float, float]:
    """Returns the joules of the full recipe, per phase its steps × measured joules per step; and their uncertainty.

    A phase with the crop of the first one costs what was measured in training; one with another crop was probed.

    The standard uncertainty is the sum of the phases': the meters' scale is off in all of them alike, and so, being on
    the safe side where a phase was probed, is the rest.
    """
    total_j = uncertainty_j = 0.0
    for phase in bench.config.recipe.phases:
        num_steps = full_recipe_steps(bench, phase)
        per_step = (so_far.joules_per_step, so_far.joules_per_step_uncertainty)
        if is_probed_apart(bench, phase):
            per_step = so_far.other_phases[phase.name]
        total_j += num_steps * per_step[0]
        uncertainty_j += num_steps * per_step[1]
    return total_j, uncertainty_j
