from pathlib import Path

import numpy as np
import soundfile

from greensv.speaker.audio.defects import CHANGED, CLIPPED, SILENT, Defect, find_defects
from greensv.speaker.corpora.corpus import build_utterances
from greensv.speaker.dataset import Utterances

RATE = 16_000


def noise(num_samples: int = 4_000) -> np.ndarray:
    return np.random.default_rng(0).uniform(-0.5, 0.5, num_samples)


def utterances_of(folder: Path, *names: str, num_samples: int = 4_000) -> Utterances:
    return build_utterances(
        ids=names,
        paths=[str(folder / name) for name in names],
        speaker_of=names,
        num_samples=np.full(len(names), num_samples),
    )


def test_sound_audio_has_no_defects(tmp_path: Path) -> None:
    for name in ("a.wav", "b.flac"):
        soundfile.write(tmp_path / name, noise(), RATE)
    assert find_defects(utterances_of(tmp_path, "a.wav", "b.flac")) == ()


def test_each_kind_is_counted_with_its_first_files(tmp_path: Path) -> None:
    for number in range(5):
        soundfile.write(tmp_path / f"silent{number}.wav", np.full(4_000, 0.25 * (number % 2)), RATE)
    soundfile.write(tmp_path / "clipped.wav", np.clip(4 * noise(), -1, 1), RATE)
    soundfile.write(tmp_path / "nan.wav", np.where(np.arange(4_000) == 7, np.nan, noise()), RATE, subtype="FLOAT")
    for number in range(2):
        path = tmp_path / f"cut{number}.flac"
        soundfile.write(path, noise(), RATE)
        path.write_bytes(path.read_bytes()[:-2_000])
    names = [*(f"silent{i}.wav" for i in range(5)), "clipped.wav", "nan.wav", "cut0.flac", "cut1.flac"]
    calls: list[tuple[str, int, int]] = []
    found = find_defects(utterances_of(tmp_path, *names), progress=lambda *call: calls.append(call))
    assert calls == [("decoding audio", 9, 9)]
    assert [(defect.num_files, defect.is_unusable) for defect in found[:2]] == [(5, False), (2, True)]
    assert found[0].examples == tuple(str(tmp_path / f"silent{i}.wav") for i in range(3))
    assert found[0].reason == SILENT
    assert found[1].reason.startswith("is damaged")
    assert {(defect.reason, defect.num_files, defect.is_unusable) for defect in found[2:]} == {
        (CLIPPED, 1, False),
        ("holds values that are no numbers (NaN or infinite)", 1, True),
    }


def test_a_peak_at_full_scale_is_not_clipping(tmp_path: Path) -> None:
    samples = noise()
    samples[[5, 6, 100, 2_000]] = 1.0
    soundfile.write(tmp_path / "a.wav", samples, RATE)
    assert find_defects(utterances_of(tmp_path, "a.wav")) == ()
    samples[7] = 1.0
    soundfile.write(tmp_path / "a.wav", samples, RATE)
    assert find_defects(utterances_of(tmp_path, "a.wav")) == (
        Defect(reason=CLIPPED, num_files=1, examples=(str(tmp_path / "a.wav"),), is_unusable=False),
    )


def test_a_file_of_another_length_than_was_measured_is_found(tmp_path: Path) -> None:
    soundfile.write(tmp_path / "a.wav", noise(), RATE)
    (defect,) = find_defects(utterances_of(tmp_path, "a.wav", num_samples=4_001))
    assert (defect.reason, defect.is_unusable) == (CHANGED, True)
