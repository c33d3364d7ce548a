"""What the headers of audio files said, kept on disk: 38 bytes a file, by the path's hash, size and modification time.

The store is a folder of segments, numpy arrays. A segment appears whole or not at all (it is renamed into place) and is
never changed, so a process can be killed at any time and several can write at once. What was measured for one list of
files is found again for any other.
"""

import contextlib
import fcntl
import hashlib
import logging
import os
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

FACTS = np.dtype(
    [
        ("key", "<u8"),
        ("size", "<i8"),
        ("mtime_ns", "<i8"),
        ("num_samples", "<i8"),
        ("sample_rate_hz", "<i4"),
        ("num_channels", "<i2"),
    ]
)
"""A file: `num_samples` of one channel at its own rate; 0 where it is not known."""
Facts = NDArray[Any]

MAX_SEGMENTS = 100
"""More are merged into one: each is a file to open."""
_POLL_S = 0.2

logger = logging.getLogger(__name__)


def path_keys(paths: Sequence[str]) -> NDArray[np.uint64]:
    """Returns 64 bits of BLAKE2 of each path: two of a million are alike with a probability of 3e-8."""
    blake2b, fsencode = hashlib.blake2b, os.fsencode
    digests = b"".join([blake2b(fsencode(path), digest_size=8).digest() for path in paths])
    return np.frombuffer(digests, dtype="<u8").astype(np.uint64)


def recall(folder: Path, facts: Facts) -> NDArray[np.intp]:
    """Fills in what is known of `facts`, whose key, size and time are given; returns the indices of the others."""
    known = _load(folder)
    if not len(known):
        return np.flatnonzero(facts["num_samples"] == 0)
    position = np.minimum(np.searchsorted(known["key"], facts["key"]), len(known) - 1)
    is_known = facts["num_samples"] == 0
    for column in ("key", "size", "mtime_ns"):
        is_known &= known[column][position] == facts[column]
    facts[is_known] = known[position[is_known]]
    return np.flatnonzero(facts["num_samples"] == 0)


def remember(folder: Path, facts: Facts) -> bool:
    """Adds a segment; returns whether the facts are kept.

    Where the folder cannot be written, says so and goes on: the files are measured again then.
    """
    if not len(facts):
        return True
    try:
        folder.mkdir(parents=True, exist_ok=True)
        name = f"{time.time_ns():020d}-{os.getpid()}-{threading.get_ident()}"
        unfinished = folder / f"unfinished-{name}"
        try:
            with unfinished.open("xb") as file:
                np.save(file, facts, allow_pickle=False)
            unfinished.replace(folder / f"{name}.npy")
        except BaseException:
            unfinished.unlink(missing_ok=True)
            raise
    except OSError as error:
        logger.warning("the lengths of audio files cannot be kept in %s: %s", folder, error)
        return False
    return True


def compact(folder: Path) -> None:
    """Merges the segments into one where there are many. Only for who is `alone`."""
    segments = _segments(folder)
    if len(segments) > MAX_SEGMENTS and remember(folder, _load(folder)):
        for segment in segments:
            segment.unlink(missing_ok=True)
        for leftover in folder.glob("unfinished-*"):
            if time.time() - leftover.stat().st_mtime > 86_400:
                leftover.unlink(missing_ok=True)


@contextmanager
def alone(folder: Path, waiting: Callable[[], None]) -> Iterator[None]:
    """Keeps other processes out while the context lasts, so that they do not do the same work; calls `waiting`
    again and again while another is in. Does nothing where the file system knows no locks.
    """
    with contextlib.ExitStack() as stack:
        try:
            folder.mkdir(parents=True, exist_ok=True)
            file = stack.enter_context((folder / "lock").open("ab"))
        except OSError:
            yield
            return
        while True:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                waiting()
                time.sleep(_POLL_S)
            except OSError:
                break
        yield


def _segments(folder: Path) -> list[Path]:
    return sorted(folder.glob("[0-9]*.npy"))


def _load(folder: Path) -> Facts:
    """Returns all that is known, sorted by key; of two segments that know a file, the later one is believed."""
    parts = [part for part in map(_read, _segments(folder)) if part is not None]
    facts = np.concatenate(parts) if parts else np.empty(0, dtype=FACTS)
    _, last = np.unique(facts["key"][::-1], return_index=True)
    return facts[len(facts) - 1 - last]


def _read(segment: Path) -> Facts | None:
    try:
        facts = np.load(segment, allow_pickle=False)
    except FileNotFoundError:
        return None  # another process has just merged it
    except (OSError, ValueError, EOFError) as error:
        logger.warning("%s is damaged and not used: %s", segment, error)
        return None
    return facts if facts.dtype == FACTS else None
