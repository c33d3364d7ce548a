"""What the leader of a team has the other processes do. Orders are pickled, so they hold values only."""

from dataclasses import dataclass
from pathlib import Path

from greensv.config import Phase, StudyConfig
from greensv.search.candidate import Candidate


@dataclass(frozen=True, slots=True, kw_only=True)
class Enlist:
    """Take a device for this study."""

    config: StudyConfig


@dataclass(frozen=True, slots=True, kw_only=True)
class LoadCorpus:
    """Load the training data, which the leader has seen to."""

    is_full: bool
    """For trainings on all the data of the full recipe; otherwise for a search's."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainingOrder:
    """Make this training ready."""

    candidate: Candidate
    phases: tuple[Phase, ...]
    seed: int
    """Of the weights and of all else that is random."""
    is_full: bool = False
    """On all the data of the full recipe: development speakers that return to the training data, too."""
    state_path: Path | None = None
    """A saved training to go on from."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RunTraining:
    """Run the training that is ready until so many steps are done; None: to its end."""

    until_step: int | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Leave:
    """The study is over."""


Order = Enlist | LoadCorpus | TrainingOrder | RunTraining | Leave
