"""Stops a training that its lease cannot pay for: at once when it is used up, early when the rest will not fit."""

import time

from greensv.energy.books.budget import Lease
from greensv.search.control import TooDear
from greensv.search.metering import Metering
from greensv.units import format_energy

LOOK_INTERVAL_S = 2.0
FIRST_LOOK_S = 5.0
"""The first seconds of a training are left out of its projection: they warm up, and meters are read once a second."""
MARGIN = 1.05
"""The rest of a training is reckoned that much dearer than its steps so far."""


class BudgetGate:
    """Watches one training. Each look costs microseconds; the projection is made every two seconds."""

    def __init__(self, metering: Metering, lease: Lease | None, *, afterwards_j: float = 0.0) -> None:
        """Watches trainings that `lease` pays for; None: only the account's end stops them.

        Args:
            metering: of this process.
            lease: what the trainings may use.
            afterwards_j: what is needed after the training, such as its evaluation.
        """
        self._metering = metering
        self._lease = lease
        self._afterwards_j = afterwards_j
        self._num_steps = 0
        self._done = 0
        self._looked_at_s = 0.0
        self._stepped_at_s = 0.0
        self._mark: tuple[float, float, int] | None = None

    def begin(self, *, num_steps: int) -> None:
        """Says how many steps the training will take from here on."""
        self._num_steps, self._done, self._mark = num_steps, 0, None
        self._looked_at_s = self._stepped_at_s = time.monotonic()

    def after_step(self) -> None:
        """Called after each step.

        Raises:
            BudgetExhausted: the lease and the account are used up.
            TooDear: they cannot pay for the steps that are left.
        """
        self._done += 1
        self._metering.check()
        now = time.monotonic()
        self._metering.longest_step_s = max(self._metering.longest_step_s, now - self._stepped_at_s)
        self._stepped_at_s = now
        if self._lease is None or now - self._looked_at_s < (LOOK_INTERVAL_S if self._mark else FIRST_LOOK_S):
            return
        self._looked_at_s = now
        used_j = self._metering.used_j
        if self._mark is None:
            self._mark = (now, used_j, self._done)
            return
        marked_s, marked_j, marked_steps = self._mark
        num_steps = self._done - marked_steps
        if num_steps == 0 or used_j <= marked_j:
            return
        joules_per_step = (used_j - marked_j) / num_steps
        rest_j = MARGIN * joules_per_step * (self._num_steps - self._done) + self._afterwards_j
        if not self._metering.cover(self._lease, rest_j):
            raise TooDear(
                f"the rest of this training would use {format_energy(rest_j)}, more than the budget has left",
                joules_per_step=joules_per_step,
                seconds_per_step=(now - marked_s) / num_steps,
            )
