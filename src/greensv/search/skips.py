"""Says which files were left out, and why."""

from collections import Counter
from collections.abc import Iterable
from typing import TYPE_CHECKING

from greensv.speaker.dataset import Skipped

if TYPE_CHECKING:
    from greensv.speaker.training.loop import Training

NUM_REASONS = 3
"""So many of the commonest reasons are told."""


def unreadable_sounds(training: "Training") -> tuple[Skipped, ...]:
    """Returns the noise and room files that crops had to do without, sorted by path.

    Those of all trainings of this process so far, which have their noise in common; in a team, the leader's.
    """
    skipped = training.augmenter.skipped if training.augmenter else {}
    return tuple(Skipped(path=path, reason=reason) for path, reason in sorted(skipped.items()))


def told_skipped(skipped: Iterable[Skipped], *, what: str) -> str:
    """Returns in one line how many files were skipped, one as an example, and the commonest reasons; not for none."""
    files = tuple(skipped)
    # Most reasons name their file, and would each be one of a kind.
    reasons = Counter(file.reason.replace(file.path, "the file") for file in files)
    told = "; ".join(f"{reason} ({count:,})" for reason, count in reasons.most_common(NUM_REASONS))
    more = f"; {len(reasons) - NUM_REASONS} other reasons" if len(reasons) > NUM_REASONS else ""
    return f"{what}: {len(files):,} (such as {files[0].path}): {told}{more}"
