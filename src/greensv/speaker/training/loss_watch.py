"""Notices a training that diverges, without waiting for the device at each step."""

from collections.abc import Callable

import torch
from jaxtyping import Float
from torch import Tensor

from greensv.errors import TrainingError

STEPS_BETWEEN_CHECKS = 20
"""How often the losses are looked at: each look waits for the device."""


class LossWatch:
    """The losses of the steps since the last look.

    Args:
        num_steps: of the whole training, for the message.
        phase_name: names the recipe's phase that a step, counted from 0, lies in.
    """

    def __init__(self, *, num_steps: int, phase_name: Callable[[int], str]) -> None:
        self._num_steps = num_steps
        self._phase_name = phase_name
        self._losses: list[Tensor] = []
        self._last_step = 0

    @property
    def is_due(self) -> bool:
        """Whether there are so many losses that it is time to look."""
        return len(self._losses) >= STEPS_BETWEEN_CHECKS

    def add(self, loss: Float[Tensor, ""], *, step: int) -> None:
        """Keeps the loss of step `step`, counted from 1, for the next look."""
        self._losses.append(loss)
        self._last_step = step

    def forget(self) -> None:
        """Drops the losses: they are of a training that is gone on with elsewhere."""
        self._losses = []

    def check(self) -> None:
        """Looks at the losses since the last look, which waits for the device.

        Raises:
            TrainingError: one is not finite.
        """
        if not self._losses:
            return
        is_finite = torch.stack(self._losses).isfinite().cpu()
        if not bool(is_finite.all()):
            bad = int(is_finite.logical_not().nonzero()[0])
            step = self._last_step - len(self._losses) + bad + 1
            raise TrainingError(
                f"the loss of step {step} of {self._num_steps} is {self._losses[bad].item()}: the training has "
                f"diverged; lower the learning rate of phase {self._phase_name(step - 1)!r}, or warm up for longer"
            )
        self._losses = []
