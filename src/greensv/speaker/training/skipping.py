"""The utterances that a training could not read: remembered, told, and too many of them an error."""

from collections import Counter
from collections.abc import Iterable

from greensv.errors import DataError
from greensv.speaker.dataset import Skipped

FEWEST_TOO_MANY = 10
SHARE_TOO_MANY = 0.01
"""More than so many unreadable utterances, and more than this share of all, are a broken corpus and no accident."""


class SkippedUtterances:
    """Which utterances could not be read, each once.

    Attributes:
        reasons: by path.
    """

    def __init__(self, num_utterances: int) -> None:
        self.reasons: dict[str, str] = {}
        self._num_utterances = num_utterances

    def add(self, skipped: Iterable[Skipped]) -> None:
        """Remembers them.

        Raises:
            DataError: naming the commonest reasons; there are too many.
        """
        for file in skipped:
            self.reasons.setdefault(file.path, file.reason)
        if len(self.reasons) > max(FEWEST_TOO_MANY, SHARE_TOO_MANY * self._num_utterances):
            commonest = Counter(reason.replace(path, "the file") for path, reason in self.reasons.items())
            told = "; ".join(f"{count} times: {reason}" for reason, count in commonest.most_common(3))
            raise DataError(
                f"{len(self.reasons)} of {self._num_utterances} training utterances cannot be read, such as "
                f"{next(iter(self.reasons))} ({told}); put the files right, or run `greensv data check`"
            )
