"""The audio of a throughput comparison: the same WAV files for every tool, and the lists each of them reads."""

import csv
import json
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import soundfile

SAMPLE_RATE_HZ = 16_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Files:
    """A prepared folder: `wav.scp` and `utt2spk` (greensv), `train.csv` (SpeechBrain), `raw.list` (WeSpeaker)."""

    folder: Path
    num_utterances: int
    num_speakers: int


def prepare(source: Path, folder: Path, *, min_duration_s: float, num_utterances: int) -> Files:
    """Writes the first utterances of a Kaldi directory that are long enough as 16-bit WAV, and every tool's lists."""
    (folder / "train").mkdir(parents=True, exist_ok=True)
    (folder / "wav").mkdir(exist_ok=True)
    speaker_of = _table(source / "train" / "utt2spk")
    paths = {name: source / path for name, path in _table(source / "train" / "wav.scp").items()}
    shuffled = np.random.default_rng(0).permutation(sorted(paths))

    def convert(name: str) -> float:
        target = folder / "wav" / f"{name}.wav"
        if not target.exists():
            samples, rate = soundfile.read(paths[name], dtype="int16")
            assert rate == SAMPLE_RATE_HZ
            soundfile.write(target, samples, rate, subtype="PCM_16")
        return soundfile.info(target).frames / SAMPLE_RATE_HZ

    with ThreadPoolExecutor() as pool:
        durations_s = dict(zip(shuffled, pool.map(convert, shuffled), strict=True))
    chosen = [name for name in shuffled if durations_s[name] > min_duration_s + 0.05][:num_utterances]
    wav = {name: folder / "wav" / f"{name}.wav" for name in chosen}
    (folder / "train" / "wav.scp").write_text("".join(f"{name} {wav[name]}\n" for name in chosen))
    (folder / "train" / "utt2spk").write_text("".join(f"{name} {speaker_of[name]}\n" for name in chosen))
    with (folder / "train.csv").open("w", newline="") as file:
        rows = csv.writer(file)
        rows.writerow(["ID", "duration", "wav", "start", "stop", "spk_id"])
        for name in chosen:
            num = round(durations_s[name] * SAMPLE_RATE_HZ)
            rows.writerow([name, durations_s[name], wav[name], 0, num, speaker_of[name]])
    lines = [json.dumps({"key": name, "wav": str(wav[name]), "spk": speaker_of[name]}) for name in chosen]
    (folder / "raw.list").write_text("\n".join(lines) + "\n")
    return Files(folder=folder, num_utterances=len(chosen), num_speakers=len({speaker_of[name] for name in chosen}))


def write_noise(folder: Path, *, num_files: int = 40, duration_s: float = 20.0) -> None:
    """Writes noise and room impulse responses as WAV, with SpeechBrain's lists of them: what MUSAN and RIRS_NOISES are.

    Coloured noise and exponentially decaying noise: what is in the files does not matter to the time they take.
    """
    rng = np.random.default_rng(1)
    for part, seconds in (("noise", duration_s), ("rir", 0.8)):
        (folder / part).mkdir(parents=True, exist_ok=True)
        rows = []
        for number in range(num_files):
            samples = rng.normal(size=round(seconds * SAMPLE_RATE_HZ))
            if part == "rir":
                samples *= np.exp(-np.arange(len(samples)) / (0.08 * SAMPLE_RATE_HZ))
                samples[0] = 5.0
            path = folder / part / f"{part}-{number}.wav"
            soundfile.write(path, 0.3 * samples / np.abs(samples).max(), SAMPLE_RATE_HZ, subtype="PCM_16")
            rows.append([path.stem, seconds, path, "wav", ""])
        with (folder / f"{part}.csv").open("w", newline="") as file:
            csv.writer(file).writerows([["ID", "duration", "wav", "wav_format", "wav_opts"], *rows])


def _table(path: Path) -> dict[str, str]:
    return dict(line.split(maxsplit=1) for line in path.read_text().splitlines())
