"""Errors meant for users: printed without a traceback, exit code 1."""

import difflib
from collections.abc import Iterable


class GreensvError(Exception):
    """Something the user can mend. The message says what happened, what was found, and what to do."""


class ConfigError(GreensvError):
    """A study configuration or a command-line value that cannot be used."""


class PluginError(GreensvError):
    """A plugin that cannot be loaded, or a component that is not installed."""


class DataError(GreensvError):
    """A corpus, a trial list or an audio file that cannot be used; names the file, and the line where there is one."""


class MeterError(GreensvError):
    """A meter that cannot measure, or meters that contradict each other."""


class CarbonError(GreensvError):
    """A carbon source that gave no factor: not reached, not allowed, empty, too old or not understood."""


class BudgetError(GreensvError):
    """An energy budget that cannot be opened, raised or spent as asked."""


class StudyError(GreensvError):
    """A study that cannot be opened, continued or read."""


class TrainingError(GreensvError):
    """A training that cannot go on: the loss or the embeddings are not finite; names the step."""


class CheckpointError(GreensvError):
    """A checkpoint that is not ours, is damaged, or belongs to another backbone version."""


class TeamBroken(GreensvError):
    """A process that trained a network together with this one has died."""


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """Returns `; did you mean 'x'?` for the closest of `known`, or an empty string when nothing is close."""
    matches = difflib.get_close_matches(name, list(known), n=1, cutoff=0.5)
    return f"; did you mean {matches[0]!r}?" if matches else ""
