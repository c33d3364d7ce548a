import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import soundfile

from greensv.errors import DataError
from greensv.speaker.audio.store import AudioInfo
from greensv.speaker.corpora import manifest
from greensv.speaker.corpora.manifest import measure, read_headers, usable_utterances
from greensv.speaker.dataset import Skipped

RATE = 16_000
WORKER = Path(__file__).parent / "manifest_worker.py"


@pytest.fixture
def opened(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The names of the files whose headers are read."""
    names: list[str] = []
    probe: Callable[[str], AudioInfo] = manifest.probe_audio

    def counted(path: str) -> AudioInfo:
        names.append(Path(path).name)
        return probe(path)

    monkeypatch.setattr(manifest, "probe_audio", counted)
    return names


def write(path: Path, num_samples: int, *, rate: int = RATE) -> str:
    soundfile.write(path, np.ones(num_samples, dtype=np.int16), rate)
    return str(path)


def tree(folder: Path, num: int) -> list[str]:
    return [write(folder / f"{i}.wav", 2_000 + i) for i in range(num)]


def test_lengths_are_measured_in_the_order_asked_for(tmp_path: Path) -> None:
    paths = tree(tmp_path, 5)[::-1]
    measured = measure(paths, sample_rate_hz=RATE, cache_dir=tmp_path / "cache")
    assert measured.num_samples.tolist() == [2_004, 2_003, 2_002, 2_001, 2_000]
    assert measured.skipped == ()


def test_a_file_is_opened_once_whatever_list_asks_for_it(tmp_path: Path, opened: list[str]) -> None:
    paths = tree(tmp_path, 6)
    measure(paths[:4], sample_rate_hz=RATE, cache_dir=tmp_path / "cache")
    assert sorted(opened) == ["0.wav", "1.wav", "2.wav", "3.wav"]
    opened.clear()
    measured = measure(paths[2:] + paths[2:3], sample_rate_hz=RATE, cache_dir=tmp_path / "cache")
    assert sorted(opened) == ["4.wav", "5.wav"]
    assert measured.num_samples.tolist() == [2_002, 2_003, 2_004, 2_005, 2_002]


def test_a_changed_file_is_measured_again(tmp_path: Path, opened: list[str]) -> None:
    paths = tree(tmp_path, 4)
    cache = tmp_path / "cache"
    measure(paths, sample_rate_hz=RATE, cache_dir=cache)
    opened.clear()
    before = Path(paths[1]).stat().st_mtime_ns
    write(Path(paths[1]), 9_000)  # another size
    os.utime(paths[1], ns=(before, before))
    os.utime(paths[2], ns=(before, before + 1))  # another time
    for expected in (["1.wav", "2.wav"], []):
        measured = measure(paths, sample_rate_hz=RATE, cache_dir=cache)
        assert measured.num_samples.tolist() == [2_000, 9_000, 2_002, 2_003]
        assert sorted(opened) == expected
        opened.clear()


def test_files_that_cannot_be_used_are_zero_and_say_why(tmp_path: Path) -> None:
    good = write(tmp_path / "good.wav", 3_000)
    slow = write(tmp_path / "slow.wav", 3_000, rate=8_000)
    (tmp_path / "empty.wav").write_bytes(b"")
    (tmp_path / "text.flac").write_text("hello")
    soundfile.write(tmp_path / "silence.wav", np.zeros(0), RATE)
    cut = Path(write(tmp_path / "cut.wav", 3_000))
    cut.write_bytes(cut.read_bytes()[:-1_000])
    names = ["gone.wav", "empty.wav", "text.flac", "silence.wav", "cut.wav"]
    paths = [good, slow, *(str(tmp_path / name) for name in names)]
    for _ in range(2):  # measured, and remembered
        measured = measure(paths, sample_rate_hz=RATE, cache_dir=tmp_path / "cache")
        assert measured.num_samples.tolist() == [3_000, 0, 0, 0, 0, 0, 0]
        assert measured.skipped == (
            Skipped(path=slow, reason="has a sample rate of 8000 Hz, 16000 Hz is needed"),
            Skipped(path=paths[2], reason="is missing"),
            Skipped(path=paths[3], reason="is empty (0 bytes)"),
            Skipped(path=paths[4], reason="is damaged or no audio file that libsndfile reads"),
            Skipped(path=paths[5], reason="holds no samples"),
            Skipped(path=paths[6], reason="is damaged: samples are missing at its end"),
        )


def test_a_mended_file_is_found(tmp_path: Path) -> None:
    path = str(tmp_path / "a.wav")
    for mend in (lambda: None, lambda: write(tmp_path / "a.wav", 2_500)):
        mend()
        measured = measure([path], sample_rate_hz=RATE, cache_dir=tmp_path / "cache")
    assert measured.num_samples.tolist() == [2_500]


def test_lengths_are_those_after_resampling(tmp_path: Path) -> None:
    rates = [8_000, 16_000, 44_100, 48_000]
    paths = [write(tmp_path / f"{rate}.wav", rate + 1, rate=rate) for rate in rates]
    measured = measure(paths, sample_rate_hz=RATE, cache_dir=tmp_path, is_resampled=True)
    assert measured.num_samples.tolist() == [16_002, 16_001, 16_001, 16_001]
    assert measured.skipped == ()
    headers = read_headers(paths, cache_dir=tmp_path)
    assert headers.sample_rate_hz.tolist() == rates
    assert headers.num_channels.tolist() == [1, 1, 1, 1]
    assert headers.problems == {}


def test_progress_is_told_for_looking_up_and_for_reading(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(manifest, "_FILES_PER_TASK", 2)
    monkeypatch.setattr(manifest, "FILES_PER_SEGMENT", 3)
    calls: list[tuple[str, int, int]] = []
    measure(tree(tmp_path, 5), sample_rate_hz=RATE, cache_dir=tmp_path, progress=lambda *call: calls.append(call))
    assert calls == [
        *(("looking up audio files", done, 5) for done in (2, 4, 5)),
        *(("reading audio headers", done, 5) for done in (2, 3, 5)),
    ]


def worker(cache: Path, paths: list[str], *, files_per_segment: int, kill_after: int) -> subprocess.Popen[str]:
    arguments = [sys.executable, WORKER, cache, files_per_segment, kill_after, *paths]
    return subprocess.Popen(list(map(str, arguments)), stdout=subprocess.PIPE, text=True)


def test_a_killed_process_loses_one_segment_and_the_next_goes_on(tmp_path: Path) -> None:
    paths, cache = tree(tmp_path, 20), tmp_path / "cache"
    killed = worker(cache, paths, files_per_segment=4, kill_after=11)
    killed.communicate()
    assert killed.returncode == -9
    output, _ = worker(cache, paths, files_per_segment=4, kill_after=0).communicate()
    assert output.split() == ["12", str(sum(range(2_000, 2_020)))]  # two segments of four were kept


def test_two_processes_at_once_measure_everything_rightly_and_only_once(tmp_path: Path) -> None:
    paths, cache = tree(tmp_path, 60), tmp_path / "cache"
    workers = [worker(cache, paths, files_per_segment=7, kill_after=0) for _ in range(3)]
    outputs = [process.communicate()[0].split() for process in workers]
    assert {output[1] for output in outputs} == {str(sum(range(2_000, 2_060)))}
    assert sum(int(output[0]) for output in outputs) == 60


def test_usable_utterances_are_built_and_the_others_reported(tmp_path: Path) -> None:
    paths = tree(tmp_path, 20)
    write(Path(paths[3]), 1_599)
    Path(paths[7]).unlink()
    utterances, skipped = usable_utterances(
        ids=[f"u{i}" for i in range(20)],
        paths=paths,
        speaker_of=[f"s{i % 4}" for i in range(20)],
        sample_rate_hz=RATE,
        cache_dir=tmp_path,
    )
    kept = [i for i in range(20) if i not in (3, 7)]
    assert utterances.ids == tuple(f"u{i}" for i in kept)
    assert utterances.paths == tuple(paths[i] for i in kept)
    assert utterances.speakers.tolist() == [i % 4 for i in kept]
    assert utterances.num_samples.tolist() == [2_000 + i for i in kept]
    assert skipped == (
        Skipped(path=paths[7], reason="is missing"),
        Skipped(path=paths[3], reason="lasts less than 0.1 s"),
    )


def test_too_many_files_that_cannot_be_used_are_an_error_with_the_commonest_reasons(tmp_path: Path) -> None:
    paths = tree(tmp_path, 20)
    for path in paths[:4]:
        Path(path).unlink()
    for path in paths[4:7]:
        write(Path(path), 4_000, rate=8_000)
    Path(paths[8]).write_bytes(b"")
    columns = {"ids": paths, "paths": paths, "speaker_of": paths}
    with pytest.raises(DataError) as caught:
        usable_utterances(**columns, sample_rate_hz=RATE, cache_dir=tmp_path)
    message = str(caught.value)
    assert message.startswith("8 of 20 audio files cannot be used, 10% may be left out at most: 4 times: is missing, ")
    assert f"such as {paths[0]}; 3 times: has a sample rate of 8000 Hz" in message
    assert "1 times: is empty (0 bytes)" in message


def test_no_files_at_all_are_an_error(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="there are no audio files"):
        usable_utterances(ids=[], paths=[], speaker_of=[], sample_rate_hz=RATE, cache_dir=tmp_path)


def test_two_utterances_of_one_name_are_an_error(tmp_path: Path) -> None:
    paths = tree(tmp_path, 3)
    with pytest.raises(DataError, match=r"1 utterance ids come more than once \(a\)"):
        usable_utterances(ids=["a", "b", "a"], paths=paths, speaker_of=paths, sample_rate_hz=RATE, cache_dir=tmp_path)
