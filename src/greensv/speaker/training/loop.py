"""Trains a network on a corpus with a recipe; can be stopped after any step and resumed to the same bits on a CPU."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from greensv.config import FeatureConfig, Phase, Recipe
from greensv.errors import CheckpointError, DataError, TrainingError
from greensv.speaker.audio.store import AudioStore
from greensv.speaker.augmentation import Augmenter
from greensv.speaker.dataset import Utterances
from greensv.speaker.device import forked_generators, torch_settings
from greensv.speaker.distributed import Team
from greensv.speaker.memory import keep_freed_memory
from greensv.speaker.prefetch import prefetched
from greensv.speaker.training import schedule
from greensv.speaker.training.batch_maker import Batch, BatchMaker
from greensv.speaker.training.batch_share import check_share
from greensv.speaker.training.batches import check_sample_rate, steps_per_epoch
from greensv.speaker.training.crops import decoding_threads
from greensv.speaker.training.front_end import FrontEnd
from greensv.speaker.training.identity import check_identity, training_identity
from greensv.speaker.training.learner import Learner
from greensv.speaker.training.loss_watch import LossWatch
from greensv.speaker.training.phases import PhaseTimer, StepTimes
from greensv.speaker.training.skipping import SkippedUtterances
from greensv.speaker.training.streams import Stream, torch_seed

BATCHES_AHEAD = 3
"""Batches read before they are needed: what one file is slow in, others make up for."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class StepReport:
    """A completed step: `step` of `num_steps` steps are done; `epoch` (from 0, through all phases) is where it lies.

    `loss` stays on the device: `loss.item()` waits for it, so do that rarely.
    """

    step: int
    num_steps: int
    epoch: int
    loss: Float[Tensor, ""]
    learning_rate: float
    margin: float
    phase: str


class Training:
    """The training of one network, step by step.

    What a step computes depends on the state after the step before it and on (`seed`, step) alone: crops, speeds,
    disturbances, masks, the schedules, and torch's own generator, which a network's dropout may draw from. So the state
    is the weights, what the optimiser remembers, the sum of weights to be averaged, and the number of the step.

    Attributes:
        network: the network trained, on `device`.
        head: the margin softmax over the training speakers, a set of them for each speed.
        step: steps done.
        num_steps: steps of all phases together.
        steps_per_epoch: steps of an epoch; utterances beyond the last whole batch sit out, others each epoch.
        precision: `fp32`, `bf16` or `fp16`, as resolved.
        augmenter: what disturbs the crops; None where the recipe disturbs none.
    """

    def __init__(  # noqa: PLR0913 (a training is made of so many things, and each is somebody else's)
        self,
        *,
        network: nn.Module,
        utterances: Utterances,
        audio: AudioStore,
        recipe: Recipe,
        phases: tuple[Phase, ...],
        features: FeatureConfig,
        seed: int,
        device: torch.device,
        augmenter: Augmenter | None = None,
        team: Team | None = None,
    ) -> None:
        """Prepares the training; `network` is moved to `device`.

        Args:
            network: maps (features, lengths) to embeddings; has `embedding_dim`.
            utterances: the training data.
            audio: the same utterances' samples.
            recipe: batch, optimiser, loss, augmentation and precision. Its own phases are not looked at.
            phases: those to run, one after the other: the recipe's, or a search's shorter ones.
            features: what the network is fed.
            seed: of everything random but the network's initial weights, which are the caller's.
            device: computes.
            augmenter: of the recipe's augmentation, where the caller has one already; None: made here.
            team: the processes that train together, each with the same arguments; None: this one alone.

        Raises:
            DataError: fewer utterances than a batch, only one speaker, another sample rate than `features`, or no noise
                where the recipe says.
            ConfigError: a precision the device lacks, or a batch that cannot be shared among so many processes.
        """
        check_sample_rate(utterances, features)
        if utterances.num_speakers < 2:
            raise DataError(f"training needs two speakers at least, found {utterances.num_speakers}")
        if device.type == "cpu":
            keep_freed_memory()
        self._team = team or Team.alone()
        check_share(recipe, self._team)
        self.steps_per_epoch = steps_per_epoch(len(utterances), batch_size=recipe.batch_size)
        self.num_steps = self.steps_per_epoch * sum(phase.num_epochs for phase in phases)
        self.step = 0
        self._utterances, self._recipe, self._phases = utterances, recipe, phases
        self._features, self._seed, self._device = features, seed, device
        if augmenter is None and any(way.probability for way in recipe.augmentation.disturbances):
            augmenter = Augmenter(recipe.augmentation, sample_rate_hz=features.sample_rate_hz)
        self.augmenter = augmenter
        num_classes = utterances.num_speakers * max(len(phase.speeds) for phase in phases)
        with forked_generators(device):
            torch.manual_seed(torch_seed(seed, Stream.HEAD, 0))
            self._learner = Learner(network, num_classes=num_classes, recipe=recipe, device=device, team=self._team)
        self.network, self.head, self.precision = network, self._learner.head, self._learner.precision
        rows = self._team.rows(recipe.batch_size)
        self._front_end = FrontEnd(recipe, features, seed=seed, rows=rows, augmenter=augmenter, device=device)
        self._batches = BatchMaker(
            audio, recipe=recipe, phases=phases, features=features, seed=seed, rows=rows, augmenter=augmenter
        )
        self._skipped = SkippedUtterances(len(utterances))
        self._losses = LossWatch(num_steps=self.num_steps, phase_name=lambda step: self.phase_at(step).name)
        self._timer = PhaseTimer.of(device)
        self._inside_step = False
        # Last: what fails on one process before it is agreed on there; after it the others would wait for ever.
        self._learner.join_team()

    @property
    def skipped(self) -> Mapping[str, str]:
        """The utterances that could not be read, by path, and why; others stood in for them."""
        return self._skipped.reasons

    @property
    def step_times(self) -> StepTimes:
        """Seconds of each phase of the steps that this process has done; its own, in a team.

        What another process did before a resumption is not in them. On a GPU the steps that it has not done yet are
        missing: synchronise first.
        """
        return self._timer.times

    def phase_at(self, step: int) -> Phase:
        """Returns the phase that step `step` (from 0) lies in."""
        return self._place(step).phase

    def run(self, *, until_step: int | None = None, on_step: Callable[[StepReport], None] | None = None) -> None:
        """Trains from `step` to `until_step`, or to the end.

        Args:
            until_step: stop when this many steps are done; None for all.
            on_step: called after each complete step, in a team on its leader. What it raises stops the training and
                passes through; the state is that after the step, as good as any to save or to go on from.

        Raises:
            TrainingError: the loss was not finite; looked at every 20 steps and at the end.
            TeamStopped, TeamBroken: in a team, see `greensv.speaker.distributed`.
            DataError: more than 1 % of the utterances (and more than 10) cannot be read. Fewer are replaced.
        """
        last = self.num_steps if until_step is None else min(until_step, self.num_steps)
        self._refuse_torn_state()
        self._learner.objective.train()
        with (
            torch_settings(self._device),
            decoding_threads(self._team.size) as threads,
            prefetched(
                lambda step: self._batches.make(step, threads=threads, pin_memory=self._device.type == "cuda"),
                range(self.step, last),
                num_ahead=BATCHES_AHEAD,
            ) as batches,
        ):
            for batch in self._agreed(batches):
                with self._team.computing():
                    report = self._do_step(batch)
                self._team.relay(partial(self._after_step, report, last=last, on_step=on_step))

    def state_dict(self) -> dict[str, Any]:
        """Returns all that resuming needs. Its tensors are the live ones: save or copy it before training goes on.

        Raises:
            TrainingError: a loss was not finite, or the training was interrupted inside a step.
        """
        self._refuse_torn_state()
        self._losses.check()
        return {
            "step": self.step,
            "identity": self._identity(),
            "skipped": dict(self.skipped),
            **self._learner.state_dict(),
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Puts back what `state_dict` returned for a training of the same network, data, recipe, phases and seed.

        However many processes trained it, and however many go on.

        Raises:
            CheckpointError: the state is of another training.
        """
        try:
            check_identity(dict(state["identity"]), self._identity())
            self._learner.load_state_dict(state)
            self._skipped.reasons = dict(state["skipped"])
            self.step = int(state["step"])
        except (KeyError, TypeError, ValueError, RuntimeError) as error:
            raise CheckpointError(f"the saved training does not fit this network ({error}); start a new one") from error
        self._losses.forget()
        self._inside_step = False

    def _identity(self) -> dict[str, Any]:
        return training_identity(
            utterances=self._utterances,
            recipe=self._recipe,
            phases=self._phases,
            features=self._features,
            seed=self._seed,
            precision=self.precision,
        )

    def _agreed(self, batches: Iterator[Batch]) -> Iterator[Batch]:
        """Yields batches when every process has its own; where one cannot have it, none goes on."""
        while True:
            self._timer.begin()
            with self._team.failing_together():
                batch = next(batches, None)
            if batch is None:
                return
            self._skipped.add(self._team.agree(news=batch.skipped))
            self._timer.mark("data-wait")
            yield batch

    def _after_step(self, report: StepReport, *, last: int, on_step: Callable[[StepReport], None] | None) -> None:
        if self._losses.is_due or self.step == last:
            self._losses.check()
        if on_step is not None:
            on_step(report)

    def _do_step(self, batch: Batch) -> StepReport:
        place = self._place(self.step)
        learning_rate = schedule.learning_rate(place.step, num_steps=place.num_steps, phase=place.phase)
        margin = schedule.margin(place.step, num_steps=place.num_steps, phase=place.phase)
        # Each process has other crops, so its network draws other numbers.
        rank = (self._team.rank,) if self._team.rank else ()
        torch.manual_seed(torch_seed(self._seed, Stream.NETWORK, self.step, *rank))
        self._inside_step = True
        batch = batch.to(self._device)
        self._timer.mark("host-to-device")
        loss = self._learner.learn(
            batch,
            self._front_end,
            learning_rate=learning_rate,
            margin=margin,
            num_classes=len(place.phase.speeds) * self._utterances.num_speakers,
            mark=self._timer.mark,
        )
        self._timer.end()
        self.step += 1
        num_steps_left = place.num_steps - place.step - 1
        if num_steps_left % self.steps_per_epoch == 0:
            self._learner.end_epoch(place.phase, num_epochs_left=num_steps_left // self.steps_per_epoch)
        self._inside_step = False
        if self._team.is_leader:
            self._losses.add(loss, step=self.step)
        return StepReport(
            step=self.step,
            num_steps=self.num_steps,
            epoch=place.epoch,
            loss=loss,
            learning_rate=learning_rate,
            margin=margin,
            phase=place.phase.name,
        )

    def _place(self, step: int) -> schedule.Place:
        return schedule.place_of(step, phases=self._phases, steps_per_epoch=self.steps_per_epoch)

    def _refuse_torn_state(self) -> None:
        if self._inside_step:
            raise TrainingError(
                f"the training was interrupted inside step {self.step + 1}, so its weights are neither those before it "
                "nor those after it; go on from the last saved state"
            )
