"""The saved state of an unfinished retraining, and which meters measured its parts, under which corrections."""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from greensv.energy.baseline.gains import without_gain
from greensv.energy.baseline.idle import this_host
from greensv.errors import GreensvError, StudyError
from greensv.search.events import Noted
from greensv.search.retrain_job import RetrainJob

if TYPE_CHECKING:
    from greensv.speaker.training.loop import Training

logger = logging.getLogger(__name__)

STATE_FILE = "training.pt"


@dataclass(frozen=True, slots=True, kw_only=True)
class MeasuredBy:
    """What measured a part of a training."""

    host: str
    meters: dict[str, str]
    """By domain, as `Metering.domains` returns them."""

    @property
    def words(self) -> str:
        """The meters in words, without a device's own number: two GPUs of one model are alike."""
        return ", ".join(sorted({f"{words} for {domain.partition(':')[0]}" for domain, words in self.meters.items()}))


@dataclass(frozen=True, slots=True, kw_only=True)
class RetrainState:
    """The state's file, and what measured each part of the training so far; the last is this process."""

    job: RetrainJob
    measured_by: Sequence[MeasuredBy]

    @property
    def path(self) -> Path:
        """The file, which is there while the training is unfinished."""
        return self.job.folder / STATE_FILE

    @property
    def earlier_meters(self) -> list[dict[str, str]]:
        """The meters of earlier parts, where those are others than this process's."""
        *earlier, now = self.measured_by
        return [before.meters for before in earlier if before.words != now.words]

    def save(self, training: "Training") -> None:
        """Writes the state of a training between two steps.

        Raises:
            TrainingError: it is not worth continuing.
            CheckpointError: the file cannot be written.
        """
        from greensv.speaker.checkpoint import save_training_state

        extra = {"trial": self.job.record.number, "measured_by": [asdict(part) for part in self.measured_by]}
        save_training_state(self.path, training, extra)

    def try_to_save(self, training: "Training") -> None:
        """Writes the state where that is possible: another error is on its way."""
        try:
            self.save(training)
        except (GreensvError, RuntimeError, OSError) as error:
            logger.warning("%s: the state was not saved: %s", self.job.name, error)

    def remove(self) -> None:
        """Removes the file, which nothing needs after the training."""
        self.path.unlink(missing_ok=True)


def open_state(job: RetrainJob) -> RetrainState:
    """Returns the state of a retraining, saved or not, that this process's meters may go on with; says if others began.

    Another machine's meters have corrections of their own, and its part of the energy is right by those.

    Raises:
        StudyError: this machine measured a part of it with the same meters under other corrections.
        CheckpointError: the saved state is damaged.
    """
    now = MeasuredBy(host=this_host(), meters=job.bench.metering.domains())
    earlier = _saved(job.folder / STATE_FILE)
    for before in earlier:
        changes = changed_corrections(before.meters, now.meters, when="when this training began")
        if changes and before.host == now.host:
            listing = "\n".join(changes)
            raise StudyError(
                f"{job.name} was trained so far under other corrections of the same meters:\n{listing}\n"
                "The parts of one training would not add up. Put the earlier corrections in force again (`greensv "
                f"calibrate --forget-gains` removes all), or delete {job.folder / STATE_FILE} to train it anew."
            )
    if earlier and earlier[-1].words != now.words:
        where = "" if earlier[-1].host == now.host else " on another machine"
        text = f"{job.name}: its training so far was measured{where} by {earlier[-1].words}; the rest is by {now.words}"
        job.bench.listen(Noted(text=text))
    return RetrainState(job=job, measured_by=(*(part for part in earlier if part != now), now))


def changed_corrections(before: Mapping[str, str], now: Mapping[str, str], *, when: str) -> list[str]:
    """Returns a line for each domain that the same meter reads under another correction than `when`."""
    return [
        f"  meter of {domain}: {before[domain]} {when}, {words} now"
        for domain, words in now.items()
        if domain in before and before[domain] != words and without_gain(before[domain]) == without_gain(words)
    ]


def _saved(path: Path) -> list[MeasuredBy]:
    """Returns what measured the saved training; nothing of one that an older greensv saved."""
    from greensv.speaker.checkpoint import load_training_state

    if not path.exists():
        return []
    return [MeasuredBy(**part) for part in load_training_state(path)[1].get("measured_by", [])]
