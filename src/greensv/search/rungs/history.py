"""The history of a search as its policy sees it: which candidate has been trained how far, and what it showed there."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from greensv.search.candidate import Candidate

RunState = Literal["running", "waiting", "done", "failed", "retired"]
"""running: a worker holds it; waiting: its worker died or was interrupted, and anyone may go on with it; done: it has
reached the rung and may be promoted; failed: it never will; retired: it has reached it and is promoted no more."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RunKey:
    """A candidate on its way to one rung."""

    trial_number: int
    rung: int
    """From 0; the last of the study's rungs is a whole short training."""
    repetition: int = 0
    """0: the trial's own training. Others train the same network with other seeds."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """One candidate's way from the rung below to a rung."""

    key: RunKey
    state: RunState
    candidate: Candidate
    step: int
    """Training steps done and saved, counted from the training's beginning."""
    attempts: int = 1
    """How often it has been begun: workers die, or a candidate kills them."""
    objectives: tuple[float, ...] | None = None
    """At this rung, all minimised, in the study's order; None until it is reached."""
    must_finish: bool = False
    """It goes through all rungs whatever it shows: the rungs themselves are being judged by it."""
    data: Mapping[str, Any] = field(default_factory=dict)
    """What was measured, for the trial's record and for going on."""

    @property
    def is_reached(self) -> bool:
        """Whether the rung has been reached and judged."""
        return self.objectives is not None


class History:
    """All runs of a study. Cheap to keep: a run is looked up by its key, a rung's results are kept in a list."""

    def __init__(self, runs: Iterable[Run] = (), *, num_rungs: int) -> None:
        self.num_rungs = num_rungs
        self._runs: dict[RunKey, Run] = {}
        self._trials: set[int] = set()
        self._at_rung: list[dict[RunKey, Run]] = [{} for _ in range(num_rungs)]
        for run in runs:
            self.put(run)

    @property
    def top(self) -> int:
        """The number of the last rung."""
        return self.num_rungs - 1

    def put(self, run: Run) -> None:
        """Adds a run, or replaces what was known of it."""
        self._runs[run.key] = run
        self._trials.add(run.key.trial_number)
        self._at_rung[run.key.rung][run.key] = run

    def get(self, key: RunKey) -> Run | None:
        """Returns a run; None when it has not begun."""
        return self._runs.get(key)

    def remove(self, key: RunKey) -> None:
        """Forgets a run that is known by another key now."""
        self._runs.pop(key, None)
        self._at_rung[key.rung].pop(key, None)
        if not any(known.trial_number == key.trial_number for known in self._runs):
            self._trials.discard(key.trial_number)

    @property
    def num_runs(self) -> int:
        """How many runs have been begun."""
        return len(self._runs)

    @property
    def num_trials(self) -> int:
        """How many candidates have been begun."""
        return len(self._trials)

    def all(self) -> Iterable[Run]:
        """Returns every run, in the order in which they became known."""
        return self._runs.values()

    def at_rung(self, rung: int) -> Iterable[Run]:
        """Returns the runs to a rung, in whatever state."""
        return self._at_rung[rung].values()

    def reached(self, rung: int, *, repetition: int | None = 0) -> list[Run]:
        """Returns what has reached a rung; `repetition` None: with any seed."""
        return [
            run
            for run in self._at_rung[rung].values()
            if run.is_reached and (repetition is None or run.key.repetition == repetition)
        ]

    def above(self, run: Run) -> Run | None:
        """Returns the run of the same training to the next rung; None when it has not been promoted."""
        return self._runs.get(
            RunKey(trial_number=run.key.trial_number, rung=run.key.rung + 1, repetition=run.key.repetition)
        )

    def in_state(self, state: RunState) -> list[Run]:
        """Returns the runs in a state."""
        return [run for run in self._runs.values() if run.state == state]
