import dataclasses
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from greensv.errors import DataError
from greensv.speaker.audio.store import AudioStore
from greensv.speaker.dataset import Utterances
from greensv.speaker.training.crops import MOST_REPLACEMENTS, CropReader, PlannedStep, ReadCrops, decoding_threads


def planned(utterances: list[int], starts: list[int], num_samples: list[int]) -> PlannedStep:
    columns = {"utterances": utterances, "starts": starts, "num_samples": num_samples}
    return PlannedStep(step=4, **{name: np.array(values, dtype=np.int64) for name, values in columns.items()})


def read(reader: CropReader, plan: PlannedStep, rows: range) -> ReadCrops:
    with ThreadPoolExecutor(3) as threads:
        return reader.read(plan, rows, threads=threads, pin_memory=False)


def with_broken(utterances: Utterances, numbers: range, tmp_path: Path) -> Utterances:
    broken = {i: str(tmp_path / f"broken{i}.wav") for i in numbers}
    for path in broken.values():
        Path(path).write_bytes(b"no audio")
    return dataclasses.replace(utterances, paths=tuple(broken.get(i, path) for i, path in enumerate(utterances.paths)))


def test_crops_are_read_from_where_the_plan_says(tones: Utterances) -> None:
    audio = AudioStore(tones)
    found = read(CropReader(audio, seed=0), planned([5, 0, 3], [100, 0, 7], [20_000, 20_000, 300]), range(3))
    assert found.waveforms.shape == (3, 20_000)
    assert found.utterances.tolist() == [5, 0, 3]
    assert found.skipped == ()
    # Both are shorter than the crop, and repeated.
    waveforms, length = found.waveforms.numpy(), len(audio.whole(0))
    assert np.array_equal(waveforms[0, :1000], audio.whole(5)[100:1100])
    assert np.array_equal(waveforms[1, length : length + 500], audio.whole(0)[:500])
    assert np.array_equal(waveforms[2, :300], audio.whole(3)[7:307])
    assert not waveforms[2, 300:].any()


def test_a_share_of_the_rows_is_read_as_the_whole_is(tones: Utterances, tmp_path: Path) -> None:
    broken = with_broken(tones, range(2, 5), tmp_path)
    plan = planned(list(range(24)), [3] * 24, [2000] * 24)
    whole = read(CropReader(AudioStore(broken), seed=1), plan, range(24))
    share = read(CropReader(AudioStore(broken), seed=1), plan, range(1, 9))
    assert np.array_equal(share.waveforms, whole.waveforms[1:9])
    assert share.utterances.tolist() == whole.utterances[1:9].tolist()
    assert share.skipped == whole.skipped


def test_an_unreadable_utterance_is_replaced_by_one_that_seed_step_and_row_choose(
    tones: Utterances, tmp_path: Path
) -> None:
    audio = AudioStore(with_broken(tones, range(1), tmp_path))
    plan = planned([7, 0], [0, 50], [1000, 1000])
    found = read(CropReader(audio, seed=1), plan, range(2))
    stand_in = int(found.utterances[1])
    assert found.utterances[0] == 7
    assert stand_in != 0
    assert [(Path(skip.path).name, "broken0.wav" in skip.reason) for skip in found.skipped] == [("broken0.wav", True)]
    # What it was replaced by is a piece of that utterance.
    windows = np.lib.stride_tricks.sliding_window_view(audio.whole(stand_in), 1000)
    assert (windows == found.waveforms.numpy()[1]).all(axis=1).any()
    assert np.array_equal(CropReader(audio, seed=1).read_one(plan, 1), found.waveforms[1])
    others = {int(read(CropReader(audio, seed=seed), plan, range(2)).utterances[1]) for seed in range(12)}
    others |= {
        int(read(CropReader(audio, seed=1), dataclasses.replace(plan, step=s), range(2)).utterances[1]) for s in (1, 2)
    }
    assert len(others) > 3


def test_a_corpus_that_is_gone_ends_the_reading(tones: Utterances, tmp_path: Path) -> None:
    audio = AudioStore(with_broken(tones, range(24), tmp_path))
    with pytest.raises(DataError, match=rf"{MOST_REPLACEMENTS + 1} utterances .* cannot be read; is the disk still"):
        read(CropReader(audio, seed=1), planned([7], [0], [1000]), range(1))


def test_decoding_threads_are_shared_among_the_processes_of_a_team(monkeypatch: pytest.MonkeyPatch) -> None:
    for num_cores, num_processes, expected in ((64, 1, 16), (12, 4, 3), (2, 8, 1)):
        monkeypatch.setattr("os.sched_getaffinity", lambda pid, n=num_cores: set(range(n)))
        with decoding_threads(num_processes) as threads:
            assert threads._max_workers == expected
