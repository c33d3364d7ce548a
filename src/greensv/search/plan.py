"""What a budget buys on this machine: said before a search starts, so that nobody is surprised."""

import math
from dataclasses import dataclass

import numpy as np

from greensv.errors import BudgetError, TrainingError
from greensv.search.candidate import Candidate
from greensv.search.cost import CostModel, Measured, Prediction, Work
from greensv.search.evaluator import full_recipe_steps, is_probed_apart, probe
from greensv.search.events import Noted
from greensv.search.measuring import MIN_PROBE_STEPS, PROBE_S, PROBE_WARMUP_STEPS, check_team, first_line
from greensv.search.workbench import Workbench
from greensv.units import format_duration, format_energy, kwh_from_j

NUM_SAMPLED = 24
"""Random candidates whose predicted costs stand for the space."""
TYPICAL_FRONT = 5
MIN_TRIALS = 3
"""A budget that cannot pay for so many of the cheapest candidates makes no search."""
MAX_PROBE_SHARE = 0.03
"""A probe predicted to use more than this share of the cap is left out; the cheaper one's scale stands for it."""
DEV_PASS_SHARE = 1.0 / 3.0
"""A forward pass alone costs about a third of a training step on the same speech (forward + two products backward)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What is left of a budget in trials and time, and what follows a search. Energies in joules, PUE included."""

    left_j: float
    cheapest_trial_j: float
    typical_trial_j: float
    typical_trial_s: float
    typical_retrain_j: float
    spent_j: float = 0.0
    """What of the cap is gone already: advice for a larger one adds to it."""

    @property
    def num_trials(self) -> int:
        """Typical trials that what is left pays for."""
        return int(self.left_j / self.typical_trial_j)

    @property
    def duration_s(self) -> float:
        """How long they take."""
        return self.left_j / self.typical_trial_j * self.typical_trial_s

    def lines(self, max_trials: int | None) -> list[str]:
        """Returns the plan in words."""
        num = self.num_trials if max_trials is None else min(max_trials, self.num_trials)
        took = self.duration_s * num / max(self.num_trials, 1)
        front_j = TYPICAL_FRONT * self.typical_retrain_j
        share = f" ({front_j / self.left_j:.1f} × what is left)" if self.left_j else ""
        return [
            f"{format_energy(self.left_j)} buys about {self.num_trials:,} typical trials of "
            f"{format_energy(self.typical_trial_j)} on this machine, {format_duration(self.duration_s)} in all"
            + (
                f"; --max-trials {max_trials} ends it after about {format_duration(took)}"
                if num < self.num_trials
                else ""
            ),
            f"retraining one typical network in full will use about {format_energy(self.typical_retrain_j)}, "
            f"a front of {TYPICAL_FRONT} about {format_energy(front_j)}{share}; it has a budget of its own",
        ]

    def check(self) -> None:
        """Raises BudgetError, with advice, when what is left cannot pay for a few trials."""
        needed_j = MIN_TRIALS * self.cheapest_trial_j
        if self.left_j < needed_j:
            raise BudgetError(
                f"what is left of the budget, {format_energy(self.left_j)}, cannot pay for {MIN_TRIALS} trials of even "
                f"the cheapest candidate ({format_energy(self.cheapest_trial_j)} each on this machine); raise it to "
                f"--budget-kwh {_rounded_up(kwh_from_j(self.spent_j + 4 * needed_j))}, narrow the space, or lower "
                "search.num_epochs. The study is kept: the same command with a larger budget continues it"
            )


def _rounded_up(budget_kwh: float) -> str:
    """Two significant digits, never below the value."""
    unit = 10.0 ** (math.floor(math.log10(budget_kwh)) - 1)
    return f"{math.ceil(budget_kwh / unit) * unit:.2g}"


def probe_space(bench: Workbench, model: CostModel, *, seed: int) -> None:
    """Measures a few training steps of the space's cheapest candidate, and of the dearest where that is affordable."""
    metering = bench.metering
    with metering.purpose("probe"):
        for candidate in bench.space.ends():
            if model.measured and _probe_j(bench, model, candidate) > MAX_PROBE_SHARE * metering.cap_j:
                continue
            work = bench.work(candidate)
            try:
                cost = probe(bench, candidate, seed=seed)
            except (RuntimeError, MemoryError) as error:
                if not model.measured:
                    raise TrainingError(
                        f"the cheapest network of the space cannot be trained here: {first_line(error)}; lower "
                        "recipe.batch_size or narrow the space"
                    ) from error
                check_team(bench, error)
                bench.listen(Noted(text=f"the dearest network cannot be trained here: {first_line(error)}"))
                continue
            speech_s = step_speech_s(bench)
            model.add(
                Measured(
                    work=work.per_second,
                    joules=cost.joules_per_step / speech_s,
                    seconds=cost.seconds_per_step / speech_s,
                )
            )


def make_plan(bench: Workbench, model: CostModel, *, seed: int) -> Plan:
    """Predicts the trials of random candidates and returns what the rest of the budget buys of them."""
    random = np.random.default_rng(seed)
    with bench.metering.purpose("preparation"):
        drawn = [bench.space.draw(random) for _ in range(NUM_SAMPLED)]
        trials = [predict_trial(bench, model, candidate) for candidate in drawn]
        cheapest = min(predict_trial(bench, model, end).energy_j for end in bench.space.ends())
        retrains = [predict_full(bench, model, candidate) for candidate in drawn]
        bench.metering.charger.flush()
    left_j = bench.metering.left_j
    return Plan(
        left_j=left_j,
        spent_j=max(0.0, bench.metering.cap_j - left_j),
        cheapest_trial_j=cheapest,
        typical_trial_j=float(np.mean([t.energy_j for t in trials])),
        typical_trial_s=float(np.mean([t.duration_s for t in trials])),
        typical_retrain_j=float(np.median(retrains)),
    )


def predict_trial(bench: Workbench, model: CostModel, candidate: Candidate) -> Prediction:
    """Predicts a short training, its evaluation, and the probes of the phases with other crops."""
    steps = bench.config.search.num_epochs * _steps_per_epoch(bench)
    work = bench.work(candidate).per_second
    speech_s = steps * step_speech_s(bench) + speech_after_training_s(bench, model, work, is_first_rung=True)
    return model.predict(work, speech_s=speech_s)


def predict_full(bench: Workbench, model: CostModel, candidate: Candidate) -> float:
    """Predicts the joules of the full recipe."""
    return model.predict(bench.work(candidate).per_second, speech_s=full_speech_s(bench)).energy_j


def full_speech_s(bench: Workbench) -> float:
    """Returns the seconds of speech in all training steps of the full recipe."""
    batch = bench.config.recipe.batch_size
    return sum(full_recipe_steps(bench, p) * batch * p.crop_s for p in bench.config.recipe.phases)


def step_speech_s(bench: Workbench) -> float:
    """Returns the seconds of speech in one training step of the search."""
    return bench.config.recipe.batch_size * bench.config.recipe.phases[0].crop_s


def speech_after_training_s(bench: Workbench, model: CostModel, work: Work, *, is_first_rung: bool) -> float:
    """Returns how much training on speech costs what follows the training to a rung does.

    That is scoring the development pairs and, once in a trial, probing the phases with other crops.
    """
    speech_s = DEV_PASS_SHARE * bench.corpus.dev.utterances.duration_s
    if not is_first_rung:
        return speech_s
    batch = bench.config.recipe.batch_size
    for phase in bench.config.recipe.phases:
        if is_probed_apart(bench, phase):
            step_s = model.predict(work, speech_s=batch * phase.crop_s).duration_s
            steps = PROBE_WARMUP_STEPS + max(MIN_PROBE_STEPS, math.ceil(PROBE_S / step_s))
            speech_s += min(steps, _steps_per_epoch(bench)) * batch * phase.crop_s
    return speech_s


def _steps_per_epoch(bench: Workbench) -> int:
    return len(bench.corpus.train) // bench.config.recipe.batch_size


def _probe_j(bench: Workbench, model: CostModel, candidate: Candidate) -> float:
    work = bench.work(candidate).per_second
    return model.predict(work, speech_s=(PROBE_WARMUP_STEPS + MIN_PROBE_STEPS) * step_speech_s(bench)).energy_j
