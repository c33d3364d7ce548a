"""Audio files as people name them: on a command line, in a list of paths, in Kaldi's wav.scp; each with a name."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from greensv.errors import DataError
from greensv.speaker.corpora.kaldi_directory import WAV_SCP
from greensv.speaker.corpora.manifest import measure
from greensv.speaker.corpora.text_lines import read_lines
from greensv.speaker.dataset import Progress, Skipped, Utterances, ignore_progress


@dataclass(frozen=True, slots=True, kw_only=True)
class AudioList:
    """Audio files: `paths[i]` is called `ids[i]`, no name twice. Nothing was opened yet."""

    ids: tuple[str, ...]
    paths: tuple[str, ...]
    num_repeated: int = 0
    """Entries left out because the same file had the same name before."""


def read_audio_list(files: Sequence[Path], lists: Sequence[Path] = (), *, root: Path = Path()) -> AudioList:
    """Returns the audio files of a command line, in order.

    Args:
        files: audio files, each called as it is typed, and Kaldi data directories.
        lists: text files: a `.scp` with a name and a path per line, any other with a path per line; or Kaldi data
            directories.
        root: what relative paths inside lists and data directories are relative to.

    Raises:
        DataError: there is no file; a list cannot be read; a line pipes a command; one name stands for two files; a
            folder is no data directory.
    """
    path_of: dict[str, str] = {}
    num_entries = 0
    for name, path, where in _entries(files, lists, root):
        num_entries += 1
        known = path_of.setdefault(name, path)
        if known != path:
            raise DataError(f"{where}: {name!r} is the name of {path} and of {known}; give each file a name of its own")
    if not path_of:
        named = ", ".join(str(path) for path in lists)
        raise DataError(f"{named} names no audio file" if lists else "no audio file is given; name some, or a --list")
    return AudioList(ids=tuple(path_of), paths=tuple(path_of.values()), num_repeated=num_entries - len(path_of))


def measure_audio_list(
    listed: AudioList,
    *,
    sample_rate_hz: int,
    cache_dir: Path,
    is_resampled: bool = False,
    progress: Progress = ignore_progress,
) -> tuple[Utterances, tuple[Skipped, ...]]:
    """Returns the files that can be used as utterances of nobody in particular, and those that cannot be.

    Args:
        listed: the files.
        sample_rate_hz: the rate needed.
        cache_dir: where lengths of files are remembered.
        is_resampled: whether files of other rates are resampled; else they cannot be used.
        progress: called as the work goes on.

    Raises:
        DataError: there are compressed files that nothing installed can decode.
    """
    measured = measure(
        listed.paths, sample_rate_hz=sample_rate_hz, cache_dir=cache_dir, is_resampled=is_resampled, progress=progress
    )
    kept = np.flatnonzero(measured.num_samples > 0)
    utterances = Utterances(
        ids=tuple(listed.ids[index] for index in kept),
        paths=tuple(listed.paths[index] for index in kept),
        speakers=np.zeros(len(kept), dtype=np.int32),
        speaker_names=("unknown",),
        num_samples=measured.num_samples[kept],
        sample_rate_hz=sample_rate_hz,
        is_resampled=is_resampled,
    )
    return utterances, measured.skipped


def _entries(files: Iterable[Path], lists: Iterable[Path], root: Path) -> Iterator[tuple[str, str, str]]:
    """Yields name, path and where it is said."""
    for path in files:
        if path.is_dir():
            yield from _scp(path, root)
        else:
            yield str(path), str(path.absolute()), "the command line"
    for path in lists:
        if path.is_dir() or path.suffix == ".scp":
            yield from _scp(path, root)
        else:
            for number, line in enumerate(read_lines(path), start=1):
                if line.strip():
                    yield line.strip(), str((root / line.strip()).absolute()), f"{path}:{number}"


def _scp(path: Path, root: Path) -> Iterator[tuple[str, str, str]]:
    scp = path / WAV_SCP if path.is_dir() else path
    if path.is_dir() and not scp.is_file():
        raise DataError(
            f"{path} is a folder, and no Kaldi data directory: it has no {WAV_SCP}; name the audio files in it, for "
            f"example {path}/*.wav, or list them in a file and give that with --list"
        )
    if path.is_dir() and (path / "segments").exists():
        raise DataError(
            f"{path / 'segments'} cuts utterances out of longer recordings, which is not supported; cut the audio into "
            "one file per utterance"
        )
    for number, line in enumerate(read_lines(scp), start=1):
        fields = line.split(maxsplit=1)
        if not fields:
            continue
        where = f"{scp}:{number}"
        if len(fields) != 2:
            raise DataError(f"{where}: found {line!r}, expected a name and an audio file, separated by a space")
        target = fields[1].strip()
        if target.endswith("|"):
            raise DataError(f"{where}: pipes a command ({target!r}), which is not run; write the audio to files")
        yield fields[0], str((root / target).absolute()), where
