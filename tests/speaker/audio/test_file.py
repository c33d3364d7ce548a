import os
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import soundfile

from greensv.speaker.audio import file as audio_file
from greensv.speaker.audio.file import probe_audio, read_audio
from greensv.speaker.audio.header import AudioError

RATE = 16_000


def fail(*_: Any) -> bytes:
    raise OSError(5, "Input/output error")


def test_a_disk_that_fails_while_samples_are_read_is_an_audio_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "a.wav"
    soundfile.write(path, np.ones(4_000, dtype=np.int16), RATE)
    pread = os.pread
    monkeypatch.setattr(os, "pread", lambda fd, size, offset: (fail if offset >= 44 else pread)(fd, size, offset))
    with pytest.raises(AudioError, match=r"audio file .*a\.wav cannot be read: Input/output error") as caught:
        read_audio(path, sample_rate_hz=RATE)
    assert caught.value.reason == "cannot be read: Input/output error"


def test_a_disk_that_fails_while_the_frames_of_an_mp3_file_are_counted_is_an_audio_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "a.mp3"
    soundfile.write(path, np.random.default_rng(0).uniform(-0.5, 0.5, 16_000), RATE, format="MP3")
    monkeypatch.setattr(Path, "read_bytes", fail)
    with pytest.raises(AudioError, match=r"a\.mp3 cannot be read: Input/output error"):
        probe_audio(path)


@pytest.mark.parametrize("suffix", ["wav", "flac", "ogg"])
def test_a_name_that_is_not_utf_8_is_read(tmp_path: Path, suffix: str) -> None:
    name = os.fsencode(tmp_path) + b"/caf\xe9." + suffix.encode()
    soundfile.write(name, np.random.default_rng(0).uniform(-0.5, 0.5, 4_000), RATE, format=suffix.upper())
    assert read_audio(os.fsdecode(name), sample_rate_hz=RATE).shape == (4_000,)


def test_what_no_audio_has_is_an_error_whoever_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "a.ogg"
    soundfile.write(path, np.zeros(4_000), RATE, format="OGG")
    usual = {"frames": 4_000, "samplerate": RATE, "channels": 1, "subtype": "VORBIS"}
    for said in ({"samplerate": 2**31}, {"channels": 2**15}, {"frames": 2**41}):
        info = audio_file._info(path, SimpleNamespace(**{**usual, **said}))
        monkeypatch.setattr(audio_file, "_info", lambda path, file, info=info: info)
        with pytest.raises(AudioError, match=r"a\.ogg is damaged: its header says what no audio has"):
            probe_audio(path)
        monkeypatch.undo()
