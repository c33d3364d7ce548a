"""Common Voice's tree: `<language>/clips/<clip>.mp3` and, beside `clips`, tables that name each clip's speaker."""

import os
import re
from collections.abc import Collection, Iterable, Iterator, Sequence
from pathlib import Path

from greensv.errors import DataError
from greensv.speaker.audio.suffixes import AUDIO_SUFFIXES, find_audio_file, one_file_each, without_suffix
from greensv.speaker.corpora.text_lines import read_blocks

CLIPS = "clips"
_CLIP = re.compile(r"common_voice_(?P<language>[A-Za-z-]+)_\d+")


def language_of(name: str) -> str | None:
    """Returns the language of a clip: the first folder of a path, or as the file is called; None where neither tells.

    Of `en/clips/common_voice_en_17.mp3`, `en/common_voice_en_17.mp3` and `common_voice_en_17.mp3`: en.
    """
    folder, _, file = name.rpartition("/")
    if folder:
        return folder.split("/", 1)[0]
    match = _CLIP.match(file)
    return match["language"] if match is not None else None


def find_clip(root: Path, name: str) -> str | None:
    """Returns the audio file of a clip named as above, with this or another audio suffix; None without one."""
    language = language_of(name)
    candidates = [root / name] if "/" in name else []
    if language is not None:
        candidates.append(root / language / CLIPS / name.rsplit("/", 1)[-1])
    return next(filter(None, (find_audio_file(str(candidate)) for candidate in candidates)), None)


def read_speakers(root: Path, language: str, tables: Sequence[str]) -> Iterator[tuple[str, str]]:
    """Yields clip (without suffix) and speaker of every row of a language's tables, those that are there.

    Raises:
        DataError: naming file and line: a table has not the columns `client_id` and `path`, or a row has too few.
    """
    for table in tables:
        path = root / language / table
        if path.is_file():
            yield from _rows(path)


def training_clips(root: Path, language: str, table: str) -> tuple[list[str], list[str], list[str]]:
    """Returns ids, audio paths and speakers of the clips in a table; a clip that is not there keeps its `.mp3` path.

    Raises:
        DataError: as `read_speakers` does; the table is missing or empty.
    """
    path = root / language / table
    if not path.is_file():
        raise DataError(f"no table {path} of the clips to train on; correct `languages` or `train_table`")
    rows = list(_rows(path))
    if not rows:
        raise DataError(f"{path} has no rows; correct `train_table`")
    folder = str(root / language / CLIPS)
    there = _audio_by_stem(folder)
    paths = [there.get(clip, f"{folder}/{clip}.mp3") for clip, _ in rows]
    return [f"{language}/{clip}" for clip, _ in rows], paths, [speaker for _, speaker in rows]


def wanted_speakers(root: Path, names: Collection[str], tables: Sequence[str]) -> dict[str, str]:
    """Returns the speaker of each clip among `names` (without suffix or folder) that a table of its language names."""
    by_language: dict[str, set[str]] = {}
    for name in names:
        language = language_of(name)
        if language is not None:
            by_language.setdefault(language, set()).add(clip_of(name))
    found: dict[str, str] = {}
    for language, clips in sorted(by_language.items()):
        # A language has millions of clips: only those that are asked for are kept.
        found.update((clip, speaker) for clip, speaker in read_speakers(root, language, tables) if clip in clips)
    return found


def clip_of(name: str) -> str:
    """Returns the clip's own name, without folders and suffix."""
    return without_suffix(name.rsplit("/", 1)[-1])


def _rows(path: Path) -> Iterator[tuple[str, str]]:
    columns: tuple[int, int] | None = None
    num_lines = 0
    for block in read_blocks(path):
        for text in block:
            num_lines += 1
            # Common Voice quotes nothing: a sentence may hold a lone quotation mark.
            fields = text.rstrip("\n").split("\t")
            if columns is None:
                columns = _columns(path, fields)
            elif text.strip():
                if len(fields) <= max(columns):
                    raise DataError(f"{path}:{num_lines}: {len(fields)} columns, expected {max(columns) + 1} or more")
                yield clip_of(fields[columns[1]]), fields[columns[0]]


def _columns(path: Path, header: Sequence[str]) -> tuple[int, int]:
    for name in ("client_id", "path"):
        if name not in header:
            raise DataError(f"{path} has no column {name!r} (found: {', '.join(header)}); give a table of Common Voice")
    return header.index("client_id"), header.index("path")


def _audio_by_stem(folder: str) -> dict[str, str]:
    try:
        with os.scandir(folder) as entries:
            names: Iterable[str] = [entry.name for entry in entries]
    except OSError as error:
        raise DataError(f"folder {folder} of clips cannot be read: {error.strerror}; unpack the archive") from error
    audio = one_file_each([name for name in names if name.lower().endswith(AUDIO_SUFFIXES)])
    return {without_suffix(name): f"{folder}/{name}" for name in audio}
