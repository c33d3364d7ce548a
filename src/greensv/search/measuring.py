"""Runs trainings with the meters on: joules and seconds per step, of a whole training or of a few seconds of one."""

import contextlib
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from greensv.energy.baseline.idle import NetEnergy
from greensv.energy.metering.window import EnergyWindow
from greensv.errors import MeterError, TrainingError
from greensv.search.events import Noted, Stepped
from greensv.search.gate import BudgetGate
from greensv.search.training_window import DataWait, measured_window, training_window
from greensv.search.workbench import Workbench
from greensv.units import format_energy

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from greensv.speaker.training.loop import StepReport, Training

WARMUP_STEPS = 3
"""Steps left out of joules per step: the first ones allocate memory and choose algorithms."""
PROBE_WARMUP_STEPS = 5
PROBE_S = 3.0
MIN_PROBE_STEPS = 4
"""A probe ends after so many seconds, once it has so many steps."""
LOSS_INTERVAL_S = 1.0
"""Seconds between two readings of the loss for the user: a GPU waits for each."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainingCost:
    """The measured cost of some steps of training, PUE included: all of them, and one in the steady state."""

    energy_j: float
    uncertainty_j: float
    """Standard, of `energy_j`: by the meters' scale, the window's edges, and what was missed between samples."""
    joules_per_step: float
    joules_per_step_uncertainty: float
    """Standard, of the joules per step, in joules."""
    seconds_per_step: float
    num_steps: int
    num_steady_steps: int
    """Those that the joules per step are of."""
    data_wait: DataWait | None = None
    """What was lost for want of data in all steps; None where phases were not attributed."""
    net: NetEnergy | None = None
    """Less what the machine draws at rest, PUE included; None where that is not known."""


def measure_training(
    bench: Workbench,
    training: "Training",
    *,
    what: str,
    gate: BudgetGate,
    trial_number: int,
    until_step: int | None = None,
    each_step: "Callable[[StepReport], None] | None" = None,
) -> TrainingCost:
    """Runs a training to its end, or to a step, and returns its cost, its first steps apart from the rest.

    Args:
        bench: what trainings share.
        training: from its present step on.
        what: the training in words.
        gate: watches the budget.
        trial_number: what it is kept under.
        until_step: train no further.
        each_step: called after each step, beside what shows the progress.

    Raises:
        MeterError: the meters saw no energy.
    """
    last = training.num_steps if until_step is None else until_step
    num_steps = last - training.step
    warmup = min(WARMUP_STEPS, num_steps // 2)
    gate.begin(num_steps=num_steps)
    shown = step_listener(bench, what=what, gate=gate, steps_per_epoch=training.steps_per_epoch)

    def on_step(report: "StepReport") -> None:
        if each_step is not None:
            each_step(report)
        shown(report)

    with training_window(bench.metering, training, trial_number=trial_number) as whole:
        training.run(until_step=training.step + warmup, on_step=on_step)
        with measured_window(bench.metering, "steady training", trial_number=trial_number) as steady:
            training.run(until_step=last, on_step=on_step)
    pue = bench.config.energy.pue
    num_steady = num_steps - warmup
    return TrainingCost(
        energy_j=pue * whole.result.energy_j,
        uncertainty_j=pue * whole.result.uncertainty_j,
        joules_per_step=_seen(pue * steady.result.energy_j, num_steps=num_steady) / num_steady,
        joules_per_step_uncertainty=pue * steady.result.uncertainty_j / num_steady,
        seconds_per_step=steady.result.duration_s / num_steady,
        num_steps=num_steps,
        num_steady_steps=num_steady,
        data_wait=whole.data_wait(pue=pue),
        net=net_of(bench, whole.result, what=what),
    )


def net_of(bench: Workbench, window: EnergyWindow, *, what: str) -> NetEnergy | None:
    """Returns a window's energy less what the machine draws at rest, PUE included; None where that is not known."""
    net = bench.metering.idle.net(window)
    if net is None:
        return None
    if net.is_impossible:
        found = f"{what}: net energy {format_energy(net.energy_j)}: the machine draws less at work than it did at rest"
        bench.listen(Noted(text=f"{found}, so that was no rest; a new study measures its idle power anew"))
    pue = bench.config.energy.pue
    return NetEnergy(energy_j=pue * net.energy_j, uncertainty_j=pue * net.uncertainty_j)


def probe_training(
    bench: Workbench, training: "Training", *, what: str, trial_number: int | None = None
) -> TrainingCost:
    """Runs a training for a few seconds and returns the cost of its steps.

    Only the account's end stops it: what the rest of such a training would use is never trained, so nothing is
    projected.

    A step that was held up (by another program, a cold disk) would be multiplied by thousands, so the energy of the
    measured steps is scaled to their median duration. The uncertainty is scaled with it; that of the median is
    not in it.
    """
    warmup = min(PROBE_WARMUP_STEPS, training.num_steps // 2)
    gate = BudgetGate(bench.metering, None)
    gate.begin(num_steps=training.num_steps)
    shown = step_listener(bench, what=what, gate=gate, steps_per_epoch=training.steps_per_epoch)
    training.run(until_step=warmup, on_step=shown)
    ended_s = [time.monotonic()]

    def on_step(report: "StepReport") -> None:
        shown(report)
        ended_s.append(time.monotonic())
        if len(ended_s) > MIN_PROBE_STEPS and ended_s[-1] - ended_s[0] > PROBE_S:
            raise _ProbeDone

    with (
        measured_window(bench.metering, "probe", trial_number=trial_number) as window,
        contextlib.suppress(_ProbeDone),
    ):
        training.run(on_step=on_step)
    durations_s = np.diff(ended_s)
    median_s = typical_step_s(durations_s)
    pue = bench.config.energy.pue
    energy_j = _seen(pue * window.result.energy_j, num_steps=len(durations_s))
    uncertainty_j = pue * window.result.uncertainty_j
    return TrainingCost(
        energy_j=energy_j,
        uncertainty_j=uncertainty_j,
        joules_per_step=energy_j / window.result.duration_s * median_s,
        joules_per_step_uncertainty=uncertainty_j / window.result.duration_s * median_s,
        seconds_per_step=median_s,
        num_steps=len(durations_s),
        num_steady_steps=len(durations_s),
    )


def typical_step_s(durations_s: "NDArray[np.float64]") -> float:
    """Returns the duration of a step that nothing held up."""
    return float(np.median(durations_s))


def step_listener(
    bench: Workbench, *, what: str, gate: BudgetGate, steps_per_epoch: int
) -> "Callable[[StepReport], None]":
    """Returns what is called after each step: it stops on Ctrl-C and at the budget's end, and shows the progress."""
    last_shown_s = -LOSS_INTERVAL_S

    def on_step(report: "StepReport") -> None:
        nonlocal last_shown_s
        bench.stop.check()
        gate.after_step()
        now = time.monotonic()
        if now - last_shown_s < LOSS_INTERVAL_S and report.step < report.num_steps:
            return
        last_shown_s = now
        bench.listen(
            Stepped(
                what=what,
                epoch=report.epoch + 1,
                num_epochs=report.num_steps // steps_per_epoch,
                step=report.step,
                num_steps=report.num_steps,
                loss=float(report.loss),
            )
        )
        bench.metering.tell(bench.listen)

    return on_step


def _seen(energy_j: float, *, num_steps: int) -> float:
    """Returns the energy, refusing a zero: no training uses none."""
    if energy_j <= 0:
        raise MeterError(
            f"the meters saw no energy in {num_steps} steps of training: their counters change too rarely for so short "
            "a training; raise search.num_epochs, or use another meter (`greensv meters` says how often each changes)"
        )
    return energy_j


def check_team(bench: Workbench, error: BaseException) -> None:
    """Ends the command after a failure inside a step, where other processes still wait.

    Raises:
        TrainingError: there are such processes.
    """
    if bench.crew.team.is_broken:
        raise TrainingError(
            f"a network could not be trained: {first_line(error)}; the processes of torchrun cannot go on from the "
            "middle of a step, so run the same command again: a search continues with the next candidate. If a "
            "retraining ran out of memory, use more processes (torchrun --nproc-per-node), or start a new study with a "
            "smaller recipe.batch_size or more recipe.num_micro_batches"
        ) from error


def first_line(error: BaseException) -> str:
    """Returns the first line of an error's message, or its kind when it says nothing."""
    return (str(error).splitlines() or [type(error).__name__])[0]


class _ProbeDone(Exception):
    pass
