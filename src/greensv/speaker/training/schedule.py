"""Learning rate and margin as functions of the step alone, so that nothing has to be saved to resume them.

Step `s` of a phase of `n` steps spans the progress from s/n to (s+1)/n; schedules are read at its middle. So no step is
spent at a learning rate of 0, and one epoch of a phase sees the same schedule as forty.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from greensv.config import Phase

EXPONENTIAL_RISE = 1e-3
"""What an exponentially rising margin lacks of the whole at the end of its rise (WeSpeaker's value)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """Where a step lies: its phase, its number in it (from 0), the phase's steps, and its epoch through all phases."""

    phase: Phase
    step: int
    num_steps: int
    epoch: int


def place_of(step: int, *, phases: Sequence[Phase], steps_per_epoch: int) -> Place:
    """Returns where step `step` (from 0, through all phases) lies."""
    epoch = step // steps_per_epoch
    first_epoch = 0
    for phase in phases:
        if epoch < first_epoch + phase.num_epochs:
            return Place(
                phase=phase,
                step=step - first_epoch * steps_per_epoch,
                num_steps=phase.num_epochs * steps_per_epoch,
                epoch=epoch,
            )
        first_epoch += phase.num_epochs
    raise IndexError(f"step {step} lies behind the {first_epoch * steps_per_epoch} steps of all phases")


def learning_rate(step: int, *, num_steps: int, phase: Phase) -> float:
    """Returns the learning rate of step `step` (from 0) of a phase of `num_steps` steps.

    Rises linearly from 0 over `warmup_fraction`, then falls from `learning_rate`: exponentially to
    `final_learning_rate`, as WeSpeaker's ExponentialDecrease does per iteration; as half a cosine to it (Loshchilov and
    Hutter 2017, arXiv 1608.03983, eq. 5, without restarts); or by the factor `gamma` at each of the `milestones`.
    """
    progress = _progress(step, num_steps)
    highest, lowest = phase.learning_rate, phase.final_learning_rate
    if progress < phase.warmup_fraction:
        return highest * progress / phase.warmup_fraction
    decay = (progress - phase.warmup_fraction) / (1 - phase.warmup_fraction)
    match phase.schedule:
        case "exponential":
            return float(highest * (lowest / highest) ** decay)
        case "cosine":
            return lowest + (highest - lowest) * (1 + math.cos(math.pi * decay)) / 2
        case "multistep":
            return float(highest * phase.gamma ** sum(progress >= milestone for milestone in phase.milestones))


def margin(step: int, *, num_steps: int, phase: Phase) -> float:
    """Returns the margin of step `step` (from 0) of a phase of `num_steps` steps.

    0 up to `margin_start_fraction`, `margin` from `margin_full_fraction` on. Between them it rises linearly, or as
    1 - EXPONENTIAL_RISE^x over x from 0 to 1, as WeSpeaker's MarginScheduler does: half of it is there after a tenth.
    """
    progress = _progress(step, num_steps)
    if progress <= phase.margin_start_fraction:
        return 0.0
    if progress >= phase.margin_full_fraction:
        return phase.margin
    rise = phase.margin_full_fraction - phase.margin_start_fraction
    if phase.margin_rise == "exponential":
        return float(phase.margin * (1 - EXPONENTIAL_RISE ** ((progress - phase.margin_start_fraction) / rise)))
    return phase.margin * (progress - phase.margin_start_fraction) / rise


def _progress(step: int, num_steps: int) -> float:
    assert 0 <= step < num_steps, (step, num_steps)
    return (step + 0.5) / num_steps
