import sys
from pathlib import Path

import numpy as np
import pytest

from greensv.errors import PluginError
from greensv_espeak.options import EspeakOptions
from greensv_espeak.render import Job, render
from greensv_espeak.synthesizer import Synthesizer
from greensv_espeak.texts import random_text
from greensv_espeak.voices import Voice, random_voice, variant_file

TEXT = "The old farmer sold seven yellow birds near the harbour."


def pitch_hz(samples: np.ndarray, *, rate_hz: int) -> float:
    """The most common lag of the autocorrelation of voiced frames, as a frequency."""
    found = []
    for start in range(0, len(samples) - 2_048, 512):
        frame = samples[start : start + 2_048] - samples[start : start + 2_048].mean()
        if frame.std() < 0.03:
            continue
        correlation = np.correlate(frame, frame, mode="full")[2_047:]
        lags = slice(rate_hz // 400, rate_hz // 60)
        lag = lags.start + int(correlation[lags].argmax())
        if correlation[lag] > 0.5 * correlation[0]:
            found.append(rate_hz / lag)
    return float(np.median(found))


def voice_at(low_hz: int) -> Voice:
    import dataclasses

    voice = random_voice(np.random.default_rng(0), spread=0.01)
    return dataclasses.replace(voice, low_pitch_hz=low_hz, high_pitch_hz=round(low_hz * 1.3))


def test_a_voice_is_heard_and_a_higher_one_is_higher() -> None:
    pitches = []
    with Synthesizer() as synthesizer:
        for low_hz in (90, 190):
            synthesizer.set_voice(voice_at(low_hz))
            samples = synthesizer.say(TEXT, seed=1, words_per_minute=175, pitch=50)
            assert samples.dtype == np.float32
            assert 2.0 < len(samples) / synthesizer.sample_rate_hz < 6.0
            assert 0.01 < samples.std() < 0.5
            pitches.append(pitch_hz(samples, rate_hz=synthesizer.sample_rate_hz))
    assert 80 < pitches[0] < 140
    assert 170 < pitches[1] < 280


def test_a_faster_rate_is_shorter() -> None:
    with Synthesizer() as synthesizer:
        synthesizer.set_voice(voice_at(120))
        slow, fast = (len(synthesizer.say(TEXT, seed=1, words_per_minute=w, pitch=50)) for w in (130, 230))
    assert fast < 0.8 * slow


def test_more_voices_than_espeak_lists_can_speak_in_one_process() -> None:
    rng = np.random.default_rng(0)
    with Synthesizer() as synthesizer:
        for _ in range(400):
            synthesizer.set_voice(random_voice(rng, spread=1.0))
        assert len(synthesizer.say("yes", seed=1, words_per_minute=175, pitch=50)) > 1_000


def test_a_missing_loader_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "espeakng_loader", None)
    with pytest.raises(PluginError, match=r"espeakng-loader is not installed .* install it"), Synthesizer():
        pass


def test_incomplete_data_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("espeakng_loader.get_data_path", lambda: str(tmp_path))
    with pytest.raises(PluginError, match=r"lacks 'phondata'; reinstall espeakng-loader"), Synthesizer():
        pass


def test_a_temporary_folder_with_a_long_path_is_refused(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    deep = tmp_path / ("x" * 130)
    deep.mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(deep))
    with pytest.raises(PluginError, match="too long a path for espeak-ng; set TMPDIR"), Synthesizer():
        pass
    assert list(deep.iterdir()) == []


def test_a_variant_file_has_the_voice_s_values() -> None:
    lines = variant_file(voice_at(101), name="x").splitlines()
    assert lines[:3] == ["language variant", "name x", "pitch 101 131"]
    assert sum(line.startswith("formant ") for line in lines) == 9


def test_voices_differ_more_with_more_spread() -> None:
    def spread_of_second_formant(spread: float) -> float:
        voices = [random_voice(np.random.default_rng(seed), spread=spread) for seed in range(200)]
        return float(np.std([v.formants[2].frequency for v in voices if v.low_pitch_hz < 150]))

    assert spread_of_second_formant(0.2) < spread_of_second_formant(1.0) < spread_of_second_formant(2.0)


def test_both_sexes_are_drawn_and_overlap() -> None:
    pitches = np.array([random_voice(np.random.default_rng(s), spread=1.0).low_pitch_hz for s in range(500)])
    assert 0.4 < (pitches > 152).mean() < 0.6
    assert ((pitches > 140) & (pitches < 165)).any()


def test_texts_are_long_enough_and_repeat_for_a_seed() -> None:
    texts = [random_text(np.random.default_rng(seed), num_words=12) for seed in (1, 1, 2)]
    assert texts[0] == texts[1] != texts[2]
    assert all(12 <= len(text.split()) < 40 for text in texts)


def test_a_job_survives_its_way_to_the_process(tmp_path: Path) -> None:
    job = Job(split="dev", first=3, last=5, folder=str(tmp_path), options=EspeakOptions(seed=7, max_snr_db=12.5))
    assert Job.from_json(job.to_json()) == job


def test_a_batch_can_be_rendered_in_this_process(tmp_path: Path) -> None:
    options = EspeakOptions(num_dev_utterances=2, min_duration_s=0.5, max_duration_s=0.5)
    render(Job(split="dev", first=3, last=5, folder=str(tmp_path), options=options))
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "dev-00003-0000.flac",
        "dev-00003-0001.flac",
        "dev-00004-0000.flac",
        "dev-00004-0001.flac",
        "manifest.json",
    ]
