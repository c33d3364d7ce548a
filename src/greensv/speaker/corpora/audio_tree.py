"""The audio files below a folder, a million of them in seconds."""

import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from os import PathLike

from greensv.errors import DataError
from greensv.speaker.dataset import Progress, ignore_progress

_NUM_THREADS = 8
"""They wait for a network's answers together."""


def find_audio(root: str | PathLike[str], suffixes: Sequence[str], progress: Progress = ignore_progress) -> list[str]:
    """Returns the files below a folder, at any depth, whose names end with one of `suffixes`, sorted.

    Upper and lower case are the same. Links to folders are followed, unless they lead back to where they come from.
    A link that leads nowhere is returned if its name is that of a file looked for: it is a file that is missing.
    Names that begin with a dot are left out: macOS puts such a companion beside each file it copies.

    Raises:
        DataError: the folder, or one below it, is missing or cannot be read.
    """
    endings = tuple(suffix.lower() for suffix in suffixes)
    found: list[str] = []
    with ThreadPoolExecutor(_NUM_THREADS, thread_name_prefix="greensv-tree") as pool:
        folders, num_seen = [_Folder(path=os.path.abspath(root), entered=())], 0  # noqa: PTH100 - links are kept
        while folders:
            num_seen += len(folders)
            entered: list[_Folder] = []
            for files, below in pool.map(partial(_scan, endings), folders, chunksize=1):
                found += files
                entered += below
            folders = entered
            progress("looking for audio files", num_seen, num_seen + len(folders))
    found.sort()
    return found


@dataclass(frozen=True, slots=True)
class _Folder:
    path: str
    entered: tuple[str, ...]
    """Where the links led that were followed on the way here."""


def _scan(endings: tuple[str, ...], folder: _Folder) -> tuple[list[str], list[_Folder]]:
    files, below = [], []
    try:
        with os.scandir(folder.path) as entries:
            for entry in entries:
                if entry.name.startswith("."):
                    continue
                is_named_so = entry.name.lower().endswith(endings)
                if entry.is_symlink():
                    if os.path.isdir(entry.path):  # noqa: PTH112 - a million names; pathlib is slow
                        below += _linked(entry.path, folder)
                    elif is_named_so:
                        files.append(entry.path)
                elif is_named_so and entry.is_file():
                    files.append(entry.path)
                elif entry.is_dir():
                    below.append(_Folder(entry.path, folder.entered))
    except OSError as error:
        raise DataError(
            f"folder {folder.path} cannot be read: {error.strerror}; give a folder of audio files"
        ) from error
    return files, below


def _linked(path: str, folder: _Folder) -> list[_Folder]:
    target = os.path.realpath(path)
    here = os.path.realpath(folder.path)
    if target in folder.entered or os.path.commonpath([target, here]) == target:
        return []
    return [_Folder(path, (*folder.entered, target))]
