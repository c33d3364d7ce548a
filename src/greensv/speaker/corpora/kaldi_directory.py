"""Kaldi data directories: a folder with `wav.scp` (utterance, audio file) and `utt2spk` (utterance, speaker).

Read by the `kaldi` dataset and by trial lists that name utterances. `utt2dur` is not read: it is rounded, and the audio
files know better. A folder with `segments` is refused: an utterance is a whole file.
"""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from greensv.errors import DataError
from greensv.speaker.corpora.corpus import build_utterances, measure_utterances
from greensv.speaker.corpora.manifest import usable_utterances
from greensv.speaker.corpora.text_lines import read_lines
from greensv.speaker.dataset import Progress, Skipped, Utterances, ignore_progress

WAV_SCP = "wav.scp"
UTT2SPK = "utt2spk"


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class KaldiDirectory:
    """What the text files of a data directory say, in the order of `wav.scp`; no audio was opened.

    `audio_paths` are absolute, `line_numbers` those of `wav.scp`. `speakers[i]` is None where `utt2spk` does not name
    the utterance or is missing.
    """

    path: Path
    ids: tuple[str, ...]
    audio_paths: tuple[str, ...]
    speakers: tuple[str | None, ...]
    line_numbers: tuple[int, ...]

    def __len__(self) -> int:
        return len(self.ids)


def read_kaldi_directory(path: Path, *, root: Path) -> KaldiDirectory:
    """Returns what `wav.scp` and `utt2spk` of a data directory say; relative audio paths are relative to `root`.

    Lines of `utt2spk` about other utterances are allowed, as they are in subsets of a directory.

    Raises:
        DataError: the directory or its `wav.scp` is missing or empty; it has `segments`; a line is malformed, pipes a
            command or repeats an utterance. Names the file and the line.
    """
    scp = path / WAV_SCP
    if not scp.is_file():
        raise DataError(_no_directory(path))
    if (path / "segments").exists():
        raise DataError(
            f"{path / 'segments'} cuts utterances out of longer recordings, which is not supported; "
            "cut the audio into one file per utterance and list those in wav.scp"
        )
    audio_of = _read_table(scp, expected="an utterance and an audio file")
    if not audio_of:
        raise DataError(f"{scp} is empty; it must name an utterance and an audio file per line")
    for line, text in audio_of.values():
        if text.endswith("|"):
            raise DataError(
                f"{scp}:{line}: pipes a command ({text!r}), which is not run; write the audio to files and name those"
            )
    utt2spk = path / UTT2SPK
    speaker_of = _read_table(utt2spk, expected="an utterance and a speaker") if utt2spk.exists() else {}
    for line, text in speaker_of.values():
        if len(text.split()) != 1:
            raise DataError(
                f"{utt2spk}:{line}: {text!r} is no speaker's name; give an utterance and a speaker per line"
            )
    base = os.path.abspath(root)  # noqa: PTH100 - Path.absolute leaves `..`, resolve follows links; both are slow here
    return KaldiDirectory(
        path=path,
        ids=tuple(audio_of),
        audio_paths=tuple(os.path.normpath(os.path.join(base, text)) for _, text in audio_of.values()),  # noqa: PTH118
        speakers=tuple(speaker_of[utterance][1] if utterance in speaker_of else None for utterance in audio_of),
        line_numbers=tuple(line for line, _ in audio_of.values()),
    )


def load_utterances(
    directory: KaldiDirectory, *, sample_rate_hz: int, progress: Progress = ignore_progress
) -> Utterances:
    """Returns the utterances of a data directory, their lengths read from the audio files.

    Raises:
        DataError: an utterance has no speaker, or its audio cannot be used; names the file and the line.
    """
    return build_utterances(
        ids=directory.ids,
        paths=directory.audio_paths,
        speaker_of=_named_speakers(directory),
        num_samples=measure_utterances(
            directory.audio_paths,
            sample_rate_hz=sample_rate_hz,
            where=lambda index: f"{directory.path / WAV_SCP}:{directory.line_numbers[index]}",
            progress=progress,
        ),
        sample_rate_hz=sample_rate_hz,
    )


def load_usable_utterances(
    directory: KaldiDirectory, *, sample_rate_hz: int, cache_dir: Path, progress: Progress = ignore_progress
) -> tuple[Utterances, tuple[Skipped, ...]]:
    """Returns the utterances of a data directory whose audio can be used, and the files that cannot.

    Raises:
        DataError: an utterance has no speaker; hardly any audio can be used, see `manifest.usable_utterances`.
    """
    return usable_utterances(
        ids=directory.ids,
        paths=directory.audio_paths,
        speaker_of=_named_speakers(directory),
        sample_rate_hz=sample_rate_hz,
        cache_dir=cache_dir,
        progress=progress,
    )


def _named_speakers(directory: KaldiDirectory) -> list[str]:
    utt2spk = directory.path / UTT2SPK
    if not utt2spk.exists():
        raise DataError(f"{utt2spk} is missing; it must name the speaker of each utterance")
    speakers: list[str] = []
    for utterance, speaker, line in zip(directory.ids, directory.speakers, directory.line_numbers, strict=True):
        if speaker is None:
            raise DataError(
                f"{directory.path / WAV_SCP}:{line}: utterance {utterance!r} has no speaker; "
                f"add it to {utt2spk}, or remove it here"
            )
        speakers.append(speaker)
    return speakers


def find_kaldi_directories(root: Path) -> Sequence[Path]:
    """Returns `root` and its direct sub-folders, in order of name, where they hold a `wav.scp`.

    Raises:
        DataError: `root` is missing or no folder.
    """
    if not root.is_dir():
        raise DataError(f"no data directory {root}; give the folder that holds the data")
    # `Path.is_file` would raise for a folder that may not be entered, such as lost+found.
    return [path for path in (root, *sorted(root.iterdir())) if os.path.isfile(path / WAV_SCP)]  # noqa: PTH113


def _read_table(path: Path, *, expected: str) -> dict[str, tuple[int, str]]:
    """Returns line number and text after the first space by the first word of each line; blank lines are skipped."""
    table: dict[str, tuple[int, str]] = {}
    for line, text in enumerate(read_lines(path), start=1):
        if not text.strip():
            continue
        fields = text.split(maxsplit=1)
        if len(fields) != 2:
            raise DataError(f"{path}:{line}: found {text!r}, expected {expected}, separated by a space")
        key, value = fields[0], fields[1].strip()
        if key in table:
            raise DataError(
                f"{path}:{line}: utterance {key!r} is listed twice, first in line {table[key][0]}; remove one"
            )
        table[key] = (line, value)
    return table


def _no_directory(path: Path) -> str:
    if not path.exists():
        return f"no data directory {path}; give the folder that holds its wav.scp and utt2spk"
    if not path.is_dir():
        return f"{path} is a file, not a data directory with wav.scp and utt2spk"
    found = sorted(entry.name for entry in path.iterdir())
    contents = ", ".join(found[:8]) + (", …" if len(found) > 8 else "") if found else "nothing"
    return f"{path} is no Kaldi data directory: it has no wav.scp (found: {contents})"
