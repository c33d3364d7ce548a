"""Trains a network on a corpus with a recipe; can be stopped after any step and resumed to the same bits on a CPU."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from functools import partial
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from greensv.config import FeatureConfig, Phase, Recipe
from greensv.errors import CheckpointError, ConfigError, DataError, TrainingError
from greensv.speaker import schedule
from greensv.speaker.audio import AudioStore
from greensv.speaker.augmentation import Augmenter
from greensv.speaker.batch_maker import Batch, BatchMaker
from greensv.speaker.batches import check_sample_rate, steps_per_epoch
from greensv.speaker.crops import decoding_threads
from greensv.speaker.dataset import Utterances
from greensv.speaker.device import forked_generators
from greensv.speaker.distributed import Team
from greensv.speaker.front_end import FrontEnd
from greensv.speaker.learner import Learner
from greensv.speaker.memory import keep_freed_memory
from greensv.speaker.prefetch import prefetched
from greensv.speaker.skipping import SkippedUtterances
from greensv.speaker.streams import Stream, torch_seed

STEPS_BETWEEN_CHECKS = 20
"""How often the losses are looked at: each look waits for the device."""

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
        _check_share(recipe, self._team)
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
        self._unchecked: list[Tensor] = []
        self._inside_step = False
        # Last: what fails on one process before it is agreed on there; after it the others would wait for ever.
        self._learner.join_team()

    @property
    def skipped(self) -> Mapping[str, str]:
        """The utterances that could not be read, by path, and why; others stood in for them."""
        return self._skipped.reasons

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
            _torch_settings(self._device),
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
        self._check_losses()
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
            found, expected = dict(state["identity"]), self._identity()
            differing = [
                f"{key}: {found.get(key)} → {value}" for key, value in expected.items() if found.get(key) != value
            ]
            if differing:
                raise CheckpointError(
                    f"the saved training is not this one ({'; '.join(differing)}); go on where and as it was begun, or "
                    "start a new one"
                )
            self._learner.load_state_dict(state)
            self._skipped.reasons = dict(state["skipped"])
            self.step = int(state["step"])
        except (KeyError, TypeError, ValueError, RuntimeError) as error:
            raise CheckpointError(f"the saved training does not fit this network ({error}); start a new one") from error
        self._unchecked, self._inside_step = [], False

    def _identity(self) -> dict[str, Any]:
        """What must be equal for a saved state to be continued: all that a step depends on but the data's content."""
        recipe = {key: value for key, value in asdict(self._recipe).items() if key != "phases"}
        for root in ("noise_root", "rir_root"):  # a folder may move, as that of the audio may
            recipe["augmentation"][root] = recipe["augmentation"][root] is not None
        return {
            "seed": self._seed,
            "precision": self.precision,  # as resolved: "auto" may be another one on another machine
            "num_utterances": len(self._utterances),
            "num_speakers": self._utterances.num_speakers,
            "phases": [asdict(phase) for phase in self._phases],
            "recipe": recipe,
            "features": asdict(self._features),
        }

    def _agreed(self, batches: Iterator[Batch]) -> Iterator[Batch]:
        """Yields batches when every process has its own; where one cannot have it, none goes on."""
        while True:
            with self._team.failing_together():
                batch = next(batches, None)
            if batch is None:
                return
            self._skipped.add(self._team.agree(news=batch.skipped))
            yield batch

    def _after_step(self, report: StepReport, *, last: int, on_step: Callable[[StepReport], None] | None) -> None:
        if len(self._unchecked) >= STEPS_BETWEEN_CHECKS or self.step == last:
            self._check_losses()
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
        loss = self._learner.learn(
            batch,
            self._front_end,
            learning_rate=learning_rate,
            margin=margin,
            num_classes=len(place.phase.speeds) * self._utterances.num_speakers,
        )
        self.step += 1
        num_steps_left = place.num_steps - place.step - 1
        if num_steps_left % self.steps_per_epoch == 0:
            self._learner.end_epoch(place.phase, num_epochs_left=num_steps_left // self.steps_per_epoch)
        self._inside_step = False
        if self._team.is_leader:
            self._unchecked.append(loss)
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

    def _check_losses(self) -> None:
        """Looks at the losses since the last look, which waits for the device."""
        if not self._unchecked:
            return
        is_finite = torch.stack(self._unchecked).isfinite().cpu()
        if not bool(is_finite.all()):
            bad = int(is_finite.logical_not().nonzero()[0])
            step = self.step - len(self._unchecked) + bad + 1
            raise TrainingError(
                f"the loss of step {step} of {self.num_steps} is {self._unchecked[bad].item()}: the training has "
                f"diverged; lower the learning rate of phase {self.phase_at(step - 1).name!r}, or warm up for longer"
            )
        self._unchecked = []

    def _refuse_torn_state(self) -> None:
        if self._inside_step:
            raise TrainingError(
                f"the training was interrupted inside step {self.step + 1}, so its weights are neither those before it "
                "nor those after it; go on from the last saved state"
            )


def _check_share(recipe: Recipe, team: Team) -> None:
    num_parts = team.size * recipe.num_micro_batches
    if recipe.batch_size % num_parts or recipe.batch_size < 2 * num_parts:
        raise ConfigError(
            f"a batch of {recipe.batch_size} cannot be shared by {team.size} processes in {recipe.num_micro_batches} "
            f"micro-batches each: recipe.batch_size must be a multiple of {num_parts}, and at least {2 * num_parts}; "
            + _advice(recipe)
        )


def _advice(recipe: Recipe) -> str:
    """Names the numbers of processes that can share a batch: a study's recipe is not changed once it has begun."""
    batch, num_micro_batches = recipe.batch_size, recipe.num_micro_batches
    sizes = [size for size in range(1, batch // (2 * num_micro_batches) + 1) if batch % (size * num_micro_batches) == 0]
    if not sizes:
        return "no number of processes can share it, so change recipe.batch_size or recipe.num_micro_batches"
    return f"so use {' or '.join(map(str, sizes))} processes (torchrun --nproc-per-node), or another recipe"


@contextmanager
def _torch_settings(device: torch.device) -> Iterator[None]:
    """Leaves torch's generators as they were, and lets cuDNN choose its algorithms by trying: all crops are alike."""
    benchmark = torch.backends.cudnn.benchmark
    torch.backends.cudnn.benchmark = True
    try:
        with forked_generators(device):
            yield
    finally:
        torch.backends.cudnn.benchmark = benchmark
