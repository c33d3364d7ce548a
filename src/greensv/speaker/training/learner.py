"""What a training changes: weights, what the optimiser remembers, the loss scale, the sum of weights to average."""

from collections.abc import Callable, Mapping
from contextlib import nullcontext
from typing import Any, cast

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.amp.grad_scaler import GradScaler

from greensv.config import Phase, Recipe
from greensv.speaker.device import place_network, resolve_precision
from greensv.speaker.distributed import Team
from greensv.speaker.training.averaging import WeightAverage
from greensv.speaker.training.batch_maker import Batch
from greensv.speaker.training.front_end import FrontEnd
from greensv.speaker.training.losses import MarginSoftmax
from greensv.speaker.training.objective import Objective
from greensv.speaker.training.optimizer import forget, make_optimizer, take_step
from greensv.speaker.training.phases import StepPhase


class Learner:
    """A network and its head, learning from one batch at a time.

    Attributes:
        network: the network, moved to the device.
        head: the margin softmax, its weights drawn from torch's generator.
        objective: both as one module, synchronised over the team once `join_team` was called.
        precision: `fp32`, `bf16` or `fp16`, as resolved.
    """

    def __init__(
        self, network: nn.Module, *, num_classes: int, recipe: Recipe, device: torch.device, team: Team
    ) -> None:
        self._recipe, self._device, self._team = recipe, device, team
        self.precision = resolve_precision(recipe.precision, device)
        self.network = place_network(network, device)
        dim = cast(int, network.embedding_dim)
        self.head = MarginSoftmax.of_recipe(recipe, embedding_dim=dim, num_classes=num_classes).to(device)
        self._both = Objective(self.network, self.head, device=device, precision=self.precision)
        self.objective: nn.Module = self._both
        self._optimizer = make_optimizer(recipe, network=self.network, head=self.head)
        self._scaler = GradScaler(device.type, enabled=self.precision == "fp16")
        self._average = WeightAverage()

    def join_team(self) -> None:
        """Synchronises the objective over the team; all processes call it, before the first step."""
        self.objective = self._team.prepare(self._both)

    def learn(
        self,
        batch: Batch,
        front_end: FrontEnd,
        *,
        learning_rate: float,
        margin: float,
        num_classes: int,
        mark: Callable[[StepPhase], None],
    ) -> Float[Tensor, ""]:
        """Takes one step, the batch computed in as many parts as the recipe says; returns the mean loss of the team.

        Args:
            batch: this process's share, on the device.
            front_end: makes features of it.
            learning_rate: of the step.
            margin: of the loss.
            num_classes: so many first classes compete.
            mark: told at the end of each phase of the step.
        """
        for group in self._optimizer.param_groups:
            group["lr"] = learning_rate
        self._optimizer.zero_grad()
        num_parts = self._recipe.num_micro_batches
        waveforms = front_end.waveforms(batch)
        parts = zip(*(rows.chunk(num_parts) for rows in (waveforms, batch.classes, batch.masks.T)), strict=True)
        losses = []
        for number, (some, classes, masks) in enumerate(parts, start=1):
            with nullcontext() if number == num_parts else self._team.without_sync(self.objective):
                features = front_end.features(some, masks.T)
                loss = self.objective(features, classes, margin=margin, num_classes=num_classes) / num_parts
                mark("forward")
                torch.autograd.backward(self._scaler.scale(loss))
                mark("backward")
            losses.append(loss.detach())
        take_step(
            self._optimizer,
            self._scaler,
            self._both.parameters(),
            max_gradient_norm=self._recipe.max_gradient_norm,
        )
        mark("optimiser")
        return self._team.mean(torch.stack(losses).sum())

    def end_epoch(self, phase: Phase, *, num_epochs_left: int) -> None:
        """Adds the weights to the average of the phase's last epochs; at the phase's end, goes on from the average."""
        if num_epochs_left < phase.num_averaged_epochs:
            self._average.add(self._both)
            if num_epochs_left == 0:
                self._average.put_into(self._both)
                forget(self._optimizer)

    def state_dict(self) -> dict[str, Any]:
        """Returns the state; its tensors are the live ones."""
        return {
            "network": self.network.state_dict(),
            "head": self.head.state_dict(),
            "optimizer": self._optimizer.state_dict(),
            "scaler": self._scaler.state_dict(),
            "average": self._average.state_dict(),
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Puts back what `state_dict` returned. What is missing or does not fit raises as torch and dicts do."""
        self.network.load_state_dict(state["network"])
        self.head.load_state_dict(state["head"])
        self._optimizer.load_state_dict(state["optimizer"])
        self._scaler.load_state_dict(state["scaler"])
        self._average.load_state_dict(state["average"], device=self._device)
