"""Trains a network on a corpus with a recipe; can be stopped after any step and resumed to the same bits on a CPU."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from dataclasses import asdict, dataclass
from typing import Any, cast

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from greensv.config import FeatureConfig, Phase, Recipe
from greensv.errors import CheckpointError, DataError, TrainingError
from greensv.speaker import schedule
from greensv.speaker.audio import AudioStore
from greensv.speaker.batches import EpochPlan, check_sample_rate, plan_epoch, read_crops, steps_per_epoch
from greensv.speaker.dataset import Utterances
from greensv.speaker.device import autocast, place_network, resolve_precision
from greensv.speaker.features import Fbank, subtract_mean
from greensv.speaker.losses import AamSoftmax
from greensv.speaker.prefetch import prefetched
from greensv.speaker.spec_augment import spec_augment

STEPS_BETWEEN_CHECKS = 20
"""How often the losses are looked at: each look waits for the device."""

_HEAD_STREAM, _NETWORK_STREAM, _MASK_STREAM = 1, 2, 3


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

    What a step computes depends on the state after the step before it and on (`seed`, step) alone: crops, masks, the
    schedules, and torch's own generator, which a network's dropout may draw from. So the state is the weights, the
    optimiser's momentum and the number of the step.

    Attributes:
        network: the network trained, on `device`.
        head: the AAM-softmax over the training speakers.
        step: steps done.
        num_steps: steps of all phases together.
        steps_per_epoch: steps of an epoch; utterances beyond the last whole batch sit out, others each epoch.
        precision: `fp32` or `bf16`, as resolved.
    """

    def __init__(
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
    ) -> None:
        """Prepares the training; `network` is moved to `device`.

        Args:
            network: maps (features, lengths) to embeddings; has `embedding_dim`.
            utterances: the training data.
            audio: the same utterances' samples.
            recipe: batch, optimiser, loss and precision. Its own phases are not looked at.
            phases: those to run, one after the other: the recipe's, or a search's shorter ones.
            features: what the network is fed.
            seed: of everything random but the network's initial weights, which are the caller's.
            device: computes.

        Raises:
            DataError: fewer utterances than a batch, only one speaker, or another sample rate than `features`.
            ConfigError: a precision the device lacks.
        """
        check_sample_rate(utterances, features)
        if utterances.num_speakers < 2:
            raise DataError(f"training needs two speakers at least, found {utterances.num_speakers}")
        self.steps_per_epoch = steps_per_epoch(len(utterances), batch_size=recipe.batch_size)
        self.num_steps = self.steps_per_epoch * sum(phase.num_epochs for phase in phases)
        self.step = 0
        self.precision = resolve_precision(recipe.precision, device)
        self.network = place_network(network, device)
        self._utterances, self._audio, self._recipe, self._phases = utterances, audio, recipe, phases
        self._features, self._seed, self._device = features, seed, device
        with _forked_generators(device):
            torch.manual_seed(self._torch_seed(_HEAD_STREAM, 0))
            dim = cast(int, network.embedding_dim)
            self.head = AamSoftmax(dim, utterances.num_speakers, scale=recipe.scale).to(device)
        self._fbank = Fbank(features).to(device)
        self._optimizer = torch.optim.SGD(
            [
                {"params": list(network.parameters()), "weight_decay": recipe.weight_decay},
                {"params": list(self.head.parameters()), "weight_decay": 0.0},
            ],
            lr=phases[0].learning_rate,
            momentum=recipe.momentum,
            fused=True,
        )
        self._plan: tuple[int, EpochPlan] | None = None
        self._unchecked: list[Tensor] = []
        self._inside_step = False

    def phase_at(self, step: int) -> Phase:
        """Returns the phase that step `step` (from 0) lies in."""
        return self._place(step).phase

    def run(self, *, until_step: int | None = None, on_step: Callable[[StepReport], None] | None = None) -> None:
        """Trains from `step` to `until_step`, or to the end.

        Args:
            until_step: stop when this many steps are done; None for all.
            on_step: called after each complete step. What it raises stops the training and passes through; the state
                is that after the step, as good as any to save or to go on from.

        Raises:
            TrainingError: the loss was not finite; looked at every 20 steps and at the end.
            DataError: an utterance cannot be read.
        """
        last = self.num_steps if until_step is None else min(until_step, self.num_steps)
        self._refuse_torn_state()
        self.network.train()
        self.head.train()
        with _torch_settings(self._device), prefetched(self._batch, range(self.step, last)) as batches:
            for batch in batches:
                report = self._do_step(batch)
                if len(self._unchecked) >= STEPS_BETWEEN_CHECKS or self.step == last:
                    self._check_losses()
                if on_step is not None:
                    on_step(report)

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
            "network": self.network.state_dict(),
            "head": self.head.state_dict(),
            "optimizer": self._optimizer.state_dict(),
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Puts back what `state_dict` returned for a training of the same network, data, recipe, phases and seed.

        Raises:
            CheckpointError: the state is of another training.
        """
        try:
            found, expected = dict(state["identity"]), self._identity()
            differing = [
                f"{key}: {found.get(key)} → {value}" for key, value in expected.items() if found.get(key) != value
            ]
            if differing:
                raise CheckpointError(f"the saved training is not this one ({'; '.join(differing)}); start a new one")
            self.network.load_state_dict(state["network"])
            self.head.load_state_dict(state["head"])
            self._optimizer.load_state_dict(state["optimizer"])
            self.step = int(state["step"])
        except (KeyError, TypeError, ValueError, RuntimeError) as error:
            raise CheckpointError(f"the saved training does not fit this network ({error}); start a new one") from error
        self._unchecked, self._inside_step = [], False

    def _identity(self) -> dict[str, Any]:
        """What must be equal for a saved state to be continued: all that a step depends on but the data's content."""
        return {
            "seed": self._seed,
            "num_utterances": len(self._utterances),
            "num_speakers": self._utterances.num_speakers,
            "phases": [asdict(phase) for phase in self._phases],
            "recipe": {key: value for key, value in asdict(self._recipe).items() if key != "phases"},
            "features": asdict(self._features),
        }

    def _do_step(self, batch: tuple[Tensor, Tensor]) -> StepReport:
        place = self._place(self.step)
        learning_rate = schedule.learning_rate(place.step, num_steps=place.num_steps, phase=place.phase)
        margin = schedule.margin(place.step, num_steps=place.num_steps, phase=place.phase)
        for group in self._optimizer.param_groups:
            group["lr"] = learning_rate
        torch.manual_seed(self._torch_seed(_NETWORK_STREAM, self.step))
        self._inside_step = True
        loss = self._loss(*(part.to(self._device, non_blocking=True) for part in batch), margin=margin)
        self._optimizer.zero_grad()
        torch.autograd.backward(loss)
        self._optimizer.step()
        self.step += 1
        self._inside_step = False
        self._unchecked.append(loss.detach())
        return StepReport(
            step=self.step,
            num_steps=self.num_steps,
            epoch=place.epoch,
            loss=loss.detach(),
            learning_rate=learning_rate,
            margin=margin,
            phase=place.phase.name,
        )

    def _loss(
        self, waveforms: Float[Tensor, "batch samples"], speakers: Int[Tensor, "batch"], *, margin: float
    ) -> Tensor:
        generator = torch.Generator().manual_seed(self._torch_seed(_MASK_STREAM, self.step))
        with torch.no_grad():
            features = subtract_mean(self._fbank(waveforms)[0])
            features = spec_augment(features, self._recipe.spec_augment, generator)
        with autocast(self._device, self.precision):
            embeddings = self.network(features, None)
        return cast(Tensor, self.head(embeddings, speakers, margin=margin))

    def _batch(self, step: int) -> tuple[Tensor, Tensor]:
        """Waveforms and speakers of a step, on the CPU; called by the background thread only."""
        epoch, row = divmod(step, self.steps_per_epoch)
        crop_samples = round(self._place(step).phase.crop_s * self._features.sample_rate_hz)
        if self._plan is None or self._plan[0] != epoch:
            plan = plan_epoch(
                self._utterances.num_samples,
                batch_size=self._recipe.batch_size,
                crop_samples=crop_samples,
                seed=self._seed,
                epoch=epoch,
            )
            self._plan = epoch, plan
        indices, starts = self._plan[1].utterances[row], self._plan[1].starts[row]
        waveforms = read_crops(self._audio, indices, starts, crop_samples=crop_samples)
        batch = torch.from_numpy(waveforms), torch.from_numpy(self._utterances.speakers[indices].astype(np.int64))
        return (batch[0].pin_memory(), batch[1].pin_memory()) if self._device.type == "cuda" else batch

    def _place(self, step: int) -> schedule.Place:
        return schedule.place_of(step, phases=self._phases, steps_per_epoch=self.steps_per_epoch)

    def _torch_seed(self, stream: int, index: int) -> int:
        sequence = np.random.SeedSequence(self._seed, spawn_key=(stream, index))
        return int(sequence.generate_state(1, np.uint64)[0])

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


def _forked_generators(device: torch.device) -> AbstractContextManager[None]:
    """Lets torch's generators be seeded inside, and puts them back."""
    return torch.random.fork_rng(devices=[device] if device.type == "cuda" else [])


@contextmanager
def _torch_settings(device: torch.device) -> Iterator[None]:
    """Leaves torch's generators as they were, and lets cuDNN choose its algorithms by trying: all crops are alike."""
    benchmark = torch.backends.cudnn.benchmark
    torch.backends.cudnn.benchmark = True
    try:
        with _forked_generators(device):
            yield
    finally:
        torch.backends.cudnn.benchmark = benchmark
