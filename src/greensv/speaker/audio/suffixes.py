"""Names of audio files: the suffixes the corpora use, and recordings that a list names with another one."""

import os
from collections.abc import Sequence

AUDIO_SUFFIXES = (".wav", ".flac", ".ogg", ".opus", ".mp3", ".m4a")
"""From the cheapest to decode to the dearest: of one recording in several forms the first is taken."""


def find_audio_file(path: str) -> str | None:
    """Returns the file of that name, or else of the same name with another of `AUDIO_SUFFIXES`; None without one.

    Published lists say `.wav` of files that come as `.flac` or `.m4a`.
    """
    if os.path.isfile(path):  # noqa: PTH113 - hundreds of thousands of paths; pathlib is slow
        return path
    stem = without_suffix(path)
    return next((stem + suffix for suffix in AUDIO_SUFFIXES if os.path.isfile(stem + suffix)), None)  # noqa: PTH113


def without_suffix(path: str) -> str:
    """Returns the path without its audio suffix; all of it where it ends in no audio suffix."""
    stem, suffix = os.path.splitext(path)  # noqa: PTH122 - as above
    return stem if suffix.lower() in AUDIO_SUFFIXES else path


def one_file_each(paths: Sequence[str]) -> list[str]:
    """Returns the paths, of files that differ in their suffix alone only the one that is cheapest to decode.

    A tree holds both where `.m4a` files were converted in place.
    """
    stems = [without_suffix(path) for path in paths]
    if len(set(stems)) == len(stems):
        return list(paths)
    chosen: dict[str, str] = {}
    for stem, path in sorted(zip(stems, paths, strict=True), key=lambda item: _rank(item[1])):
        chosen.setdefault(stem, path)
    kept = set(chosen.values())
    return [path for path in paths if path in kept]


def _rank(path: str) -> int:
    return AUDIO_SUFFIXES.index(os.path.splitext(path)[1].lower())  # noqa: PTH122
