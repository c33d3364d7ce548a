"""How quickly one core prepares augmented training examples: greensv beside the loops of other toolkits.

    python benchmarks/data_preparation.py --corpus ../shared/data/speechocean762 \
        --kiwano CHECKOUT --wespeaker CHECKOUT --speechbrain

Every toolkit reads the same WAV files and disturbs them with the same noise and rooms, in its own published way,
through its own classes: from files to normalised features, on one core with one thread, by turns, each in a process of
its own. What counts is processor time, which other work on the machine disturbs less. greensv is configured twice: as
Kiwano's recipe (3.5 s, energy and 80 bins, a fifth of the crops each with music, speech, noise, a room, nothing) and as
WeSpeaker's (2 s, 80 bins, dither, 60 % of the crops with noise, music, speech or a room), and compared with each in the
same configuration; with SpeechBrain's ECAPA recipe (3 s, each utterance five times: as it is, with noise, with a room,
with frequencies and with pieces dropped) in the former, each *crop* of the five counting as an example, and then each
utterance. SpeechBrain, which reads whole files of noise, is given the short ones only, as its own noise corpus has.

torchaudio 2.11 reads no files without torchcodec: Kiwano's and WeSpeaker's `torchaudio.load` is replaced by soundfile.
Noise and rooms are synthesised, with MUSAN's mean durations (noise 23 s, music 232 s, speech 508 s), in few files, so
that they lie in the page cache and the lists that Kiwano searches for each example are short.
"""

import os

os.environ["OMP_NUM_THREADS"] = "1"

import argparse
import csv
import importlib
import importlib.util
import platform
import random
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import soundfile
import torch

from greensv.config import Augmentation, FeatureConfig, Phase, Recipe
from greensv.config.study import Disturbance, SpecAugment
from greensv.speaker.audio.store import AudioStore
from greensv.speaker.augmentation import Augmenter
from greensv.speaker.augmentation.rooms import make_rooms
from greensv.speaker.augmentation.sounds import make_music, make_noise
from greensv.speaker.corpora.corpus import build_utterances
from greensv.speaker.training.batch_maker import BatchMaker
from greensv.speaker.training.front_end import FrontEnd

RATE = 16_000
BATCH = 64
Batches = Callable[[], int]
"""Prepares the next batch and returns how many examples it holds."""


def main() -> None:
    """Prepares the files, runs the toolkits by turns, each in a process of its own, prints a line each."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--corpus", type=Path, required=True, help="Kaldi directory with train/wav.scp and utt2spk")
    parser.add_argument("--kiwano", type=Path, help="a checkout of mrouvier/kiwano")
    parser.add_argument("--wespeaker", type=Path, help="a checkout of wenet-e2e/wespeaker")
    parser.add_argument("--speechbrain", action="store_true", help="compare with the installed speechbrain")
    parser.add_argument("--num-utterances", type=int, default=1024)
    parser.add_argument("--num-rounds", type=int, default=9)
    parser.add_argument(
        "--seconds", type=float, default=3.0, help="of processor time of each toolkit in each round, at least"
    )
    parser.add_argument("--work", choices=TOOLKITS, help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
    torch.set_num_threads(1)
    if arguments.work:
        work(TOOLKITS[arguments.work](Files.below(arguments.folder), arguments), at_least_s=arguments.seconds)
        return
    with tempfile.TemporaryDirectory() as folder:
        files = write_files(arguments.corpus, Path(folder), num_utterances=arguments.num_utterances)
        mean_s = np.mean([soundfile.info(path).duration for path in files.paths])
        print(f"{processor()}, one core; Python {platform.python_version()}, torch {torch.__version__}")
        print(f"{len(files.paths)} utterances of {mean_s:.2f} s on average, in batches of {BATCH}")
        for ours, theirs in PAIRS:
            if getattr(arguments, theirs):
                compare(ours, theirs, folder=folder, num_rounds=arguments.num_rounds)


def work(batches: Batches, *, at_least_s: float) -> None:
    """Measures once for each line of standard input, and prints the rate."""
    for _ in range(3):
        batches()  # libraries load and files come into the page cache
    for _ in sys.stdin:
        print(examples_per_s(batches, at_least_s=at_least_s), flush=True)


def compare(ours: str, theirs: str, *, folder: str, num_rounds: int) -> None:
    """Runs two by turns, who goes first changing too, and prints the median of the ratios with its spread."""
    command = [sys.executable, *sys.argv, "--folder", folder, "--work"]
    rates: dict[str, list[float]] = {ours: [], theirs: []}
    with ExitStack() as stack:
        workers = {
            name: stack.enter_context(
                subprocess.Popen([*command, name], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
            )
            for name in rates
        }
        for number in range(num_rounds):
            for name in (ours, theirs) if number % 2 == 0 else (theirs, ours):
                source, sink = workers[name].stdout, workers[name].stdin
                assert source is not None
                assert sink is not None
                print(file=sink, flush=True)
                rates[name].append(float(source.readline()))
    ratios = [our / their for our, their in zip(rates[ours], rates[theirs], strict=True)]
    shown = ", ".join(f"{name} {statistics.median(values):.0f} examples/s" for name, values in rates.items())
    spread = f"{min(ratios):.2f} to {max(ratios):.2f} in {num_rounds} rounds"
    per_utterance = EXAMPLES_PER_UTTERANCE.get(theirs, 1)
    also = f"; in utterances {statistics.median(ratios) * per_utterance:.2f} times" if per_utterance > 1 else ""
    print(f"{shown}: {statistics.median(ratios):.2f} times ({spread}){also}", flush=True)


def examples_per_s(batches: Batches, *, at_least_s: float) -> float:
    """Returns the rate in processor time, over whole batches that take at least so long."""
    began_s, num = time.process_time(), 0
    while (duration_s := time.process_time() - began_s) < at_least_s or not num:
        num += batches()
    return num / duration_s


# The files


@dataclass(frozen=True, slots=True, kw_only=True)
class Files:
    """What all toolkits read."""

    paths: list[str]
    speakers: list[str]
    folder: Path

    @property
    def noise_root(self) -> Path:
        """Folders noise, music and speech."""
        return self.folder / "musan"

    @property
    def rir_root(self) -> Path:
        """Impulse responses."""
        return self.folder / "rirs"

    @classmethod
    def below(cls, folder: Path) -> "Files":
        """Returns what `write_files` wrote there."""
        rows = [line.split() for line in (folder / "utt2spk").read_text().splitlines()]
        paths = [str(folder / "wav" / f"{name}.wav") for name, _ in rows]
        return cls(paths=paths, speakers=[speaker for _, speaker in rows], folder=folder)


def write_files(corpus: Path, folder: Path, *, num_utterances: int) -> Files:
    """Writes utterances of a Kaldi directory as WAV, and synthesises noise and rooms."""
    rows = [line.split(maxsplit=1) for line in (corpus / "train" / "wav.scp").read_text().splitlines()]
    speaker_of = dict(line.split() for line in (corpus / "train" / "utt2spk").read_text().splitlines())
    random.Random(0).shuffle(rows)
    (folder / "wav").mkdir()
    names: list[str] = []
    for name, path in rows:
        samples, rate = soundfile.read(corpus / path, dtype="int16")
        assert rate == RATE, f"{path} has {rate} Hz"
        if len(samples) < 3.1 * RATE:  # SpeechBrain's loop needs its 3 s
            continue
        names.append(name)
        soundfile.write(folder / "wav" / f"{name}.wav", samples, rate, subtype="PCM_16")
        if len(names) == num_utterances:
            break
    (folder / "utt2spk").write_text("".join(f"{name} {speaker_of[name]}\n" for name in names))
    generator = torch.Generator().manual_seed(0)
    for kind, make, seconds, num in (
        ("noise", make_noise, 23, 40),
        ("music", make_music, 232, 8),
        ("speech", make_noise, 508, 4),
    ):
        (folder / "musan" / kind).mkdir(parents=True)
        for number in range(num):
            made = make(torch.rand(1, 8, generator=generator), num_samples=seconds * RATE, sample_rate_hz=RATE)[0]
            made *= 0.1 / made.square().mean().sqrt()
            soundfile.write(folder / "musan" / kind / f"{number}.wav", made.numpy(), RATE, subtype="PCM_16")
    (folder / "rirs").mkdir()
    for number, room in enumerate(make_rooms(torch.rand(60, 8, generator=generator), sample_rate_hz=RATE)):
        taps = room[: RATE * 3 // 4].numpy()
        soundfile.write(folder / "rirs" / f"{number}.wav", 0.5 * taps, RATE, subtype="PCM_16")
    return Files.below(folder)


# greensv

KIWANO = (
    Disturbance(kind="music", probability=0.2, folders=("music",), snr_db=(5, 15)),
    Disturbance(kind="speech", probability=0.2, folders=("speech",), snr_db=(13, 20)),
    Disturbance(kind="noise", probability=0.2, folders=("noise",), snr_db=(0, 15)),
    Disturbance(kind="reverb", probability=0.2),
)
KIWANO_FEATURES = FeatureConfig()
WESPEAKER = (
    Disturbance(kind="noise", probability=0.1, folders=("noise",), snr_db=(0, 15)),
    Disturbance(kind="speech", probability=0.1, folders=("speech",), snr_db=(10, 30)),
    Disturbance(kind="music", probability=0.1, folders=("music",), snr_db=(5, 15)),
    Disturbance(kind="reverb", probability=0.3),
)
WESPEAKER_FEATURES = FeatureConfig(use_energy=False, window="hamming", high_freq_hz=0.0)


def greensv_as_kiwano(files: Files, _: argparse.Namespace) -> Batches:
    """In the configuration of Kiwano's recipe."""
    recipe = Recipe(batch_size=BATCH, augmentation=augmentation(files, KIWANO), spec_augment=SpecAugment())
    return greensv_batches(files, recipe, KIWANO_FEATURES, crop_s=3.5)


def greensv_as_wespeaker(files: Files, _: argparse.Namespace) -> Batches:
    """In the configuration of WeSpeaker's recipe, but for its LMDB: noise is read from files."""
    recipe = Recipe(
        batch_size=BATCH,
        dither=1.0,
        augmentation=augmentation(files, WESPEAKER),
        spec_augment=SpecAugment(probability=0.0),
    )
    return greensv_batches(files, recipe, WESPEAKER_FEATURES, crop_s=2.0)


def augmentation(files: Files, disturbances: tuple[Disturbance, ...]) -> Augmentation:
    """Returns the disturbances with their folders."""
    return Augmentation(noise_root=str(files.noise_root), rir_root=str(files.rir_root), disturbances=disturbances)


def greensv_batches(files: Files, recipe: Recipe, features: FeatureConfig, *, crop_s: float) -> Batches:
    """As a training prepares its batches; the audio is read from its files each time."""
    utterances = build_utterances(
        ids=files.paths,
        paths=files.paths,
        speaker_of=files.speakers,
        num_samples=np.array([soundfile.info(path).frames for path in files.paths]),
    )
    augmenter, rows = Augmenter(recipe.augmentation, sample_rate_hz=RATE), slice(0, BATCH)
    maker = BatchMaker(
        AudioStore(utterances, cache_bytes=0),
        recipe=recipe,
        phases=(Phase(num_epochs=1_000_000, crop_s=crop_s),),
        features=features,
        seed=0,
        rows=rows,
        augmenter=augmenter,
    )
    front_end = FrontEnd(recipe, features, seed=0, rows=rows, augmenter=augmenter, device=torch.device("cpu"))
    threads, steps = ThreadPoolExecutor(1), iter(range(10**9))

    def next_batch() -> int:
        batch = maker.make(next(steps), threads=threads, pin_memory=False)
        return len(front_end.features(front_end.waveforms(batch), batch.masks))

    return next_batch


# The others


def load_by_soundfile(path: Any, frame_offset: int = 0, num_frames: int = -1, **_: Any) -> tuple[torch.Tensor, int]:
    """Stands for torchaudio.load, which needs torchcodec since 2.9."""
    samples, rate = soundfile.read(path, start=frame_offset, frames=num_frames, dtype="float32", always_2d=True)
    return torch.from_numpy(samples.T.copy()), rate


def module_from(path: Path, name: str) -> ModuleType:
    """Imports one file of a checkout, without the package round it."""
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def kiwano_batches(files: Files, arguments: argparse.Namespace) -> Batches:
    """The data set of recipes/speaker_verification/utils/train_resnet.py in torch's DataLoader, as written there."""
    import torchaudio

    torchaudio.load, checkout = load_by_soundfile, arguments.kiwano
    sys.path.insert(0, str(checkout))
    # Of the package only what the data path takes is imported; its networks need other packages.
    package = ModuleType("kiwano")
    package.__path__ = [str(checkout / "kiwano")]
    utils = ModuleType("kiwano.utils")
    utils.Pathlike = str | Path  # type: ignore[attr-defined]
    sys.modules |= {"kiwano": package, "kiwano.utils": utils}
    from kiwano.augmentation import CMVN, Compose, Crop, Noise, Normal, OneOf, Reverb, SpecAugment
    from kiwano.dataset import Segment, SegmentSet
    from kiwano.features import Fbank

    for name in ("hostlist", "idr_torch", "kiwano.model"):
        stub = ModuleType(name)
        stub.__getattr__ = lambda _: None  # type: ignore[method-assign]
        sys.modules[name] = stub
    recipe = module_from(checkout / "recipes/speaker_verification/utils/train_resnet.py", "kiwano_train_resnet")

    def segments(folder: Path, into: Any = None) -> Any:
        found = into if into is not None else SegmentSet()
        for path in sorted(folder.glob("*.wav")):
            found.append(Segment(path.stem, folder.name, soundfile.info(path).duration, str(path)))
        return found

    noises = {kind: segments(files.noise_root / kind) for kind in ("music", "speech", "noise")}
    data = recipe.SpeakerTrainingSegmentSet(
        audio_transforms=OneOf(
            [
                Noise(noises["music"], snr_range=[5, 15]),
                Noise(noises["speech"], snr_range=[13, 20]),
                Noise(noises["noise"], snr_range=[0, 15]),
                Normal(),
                Reverb(segments(files.rir_root)),
            ]
        ),
        feature_extractor=Fbank(),
        feature_transforms=Compose([CMVN(), Crop(350), SpecAugment()]),
    )
    for path, speaker in zip(files.paths, files.speakers, strict=True):
        data.append(Segment(Path(path).stem, speaker, soundfile.info(path).duration, path))
    data.get_labels()
    loader = torch.utils.data.DataLoader(data, batch_size=BATCH, shuffle=True, drop_last=True)
    return partial(_size_of_next, _for_ever(loader, lambda batch: len(batch[0])))


def wespeaker_batches(files: Files, arguments: argparse.Namespace) -> Batches:
    """wespeaker/dataset/processor.py, chained as its dataset.py does for the v2 recipe; the mean off in batches."""
    checkout = arguments.wespeaker
    processor_of = module_from(checkout / "wespeaker/dataset/processor.py", "wespeaker_processor")
    batch_of = module_from(checkout / "wespeaker/dataset/dataset_utils.py", "wespeaker_dataset_utils")

    class Files_:  # noqa: N801
        def __init__(self, paths: list[tuple[str, Path]]) -> None:
            self.paths = paths

        def random_one(self) -> tuple[str, bytes]:
            """As its LMDB: a key that begins with the kind, and the file."""
            key, path = random.choice(self.paths)
            return key, path.read_bytes()

    noise = Files_([(path.parent.name, path) for path in sorted(files.noise_root.rglob("*.wav"))])
    rooms = Files_([(path.name, path) for path in sorted(files.rir_root.rglob("*.wav"))])

    def utterances() -> Iterator[dict[str, Any]]:
        order = list(files.paths)
        while True:
            random.shuffle(order)
            for path in order:
                waveform, rate = load_by_soundfile(path)
                yield {"key": path, "label": 0, "wav": waveform, "sample_rate": rate}

    chunk = 199 * RATE // 100 + RATE * 25 // 1000  # 200 frames, as dataset.py works it out
    data = processor_of.random_chunk(utterances(), chunk, "shard")
    data = processor_of.add_reverb_noise(data, rooms, noise, RATE, 0.6)
    data = processor_of.compute_fbank(data, dither=1.0)

    def next_batch() -> int:
        feats = torch.stack([next(data)["feat"] for _ in range(BATCH)])
        return len(batch_of.apply_cmvn(feats))

    return next_batch


def speechbrain_batches(files: Files, _: argparse.Namespace) -> Batches:
    """The data pipeline, augmentation and features of recipes/VoxCeleb/SpeakerRec/hparams/train_ecapa_tdnn.yaml."""
    import speechbrain as sb
    from speechbrain.augment.augmenter import Augmenter as Augmenters
    from speechbrain.augment.time_domain import AddNoise, AddReverb, DropChunk, DropFreq
    from speechbrain.dataio.dataloader import make_dataloader
    from speechbrain.lobes.features import Fbank
    from speechbrain.processing.features import InputNormalization

    folder = files.folder
    lists = {
        "noise": sorted((files.noise_root / "noise").glob("*.wav")),
        "rirs": sorted(files.rir_root.rglob("*.wav")),
        "train": [Path(path) for path in files.paths],
    }
    for name, paths in lists.items():
        with (folder / f"{name}.csv").open("w", newline="") as file:
            writer = csv.writer(file)
            writer.writerow(["ID", "duration", "wav", "wav_format", "wav_opts"])
            for number, path in enumerate(paths):
                writer.writerow([f"{name}{number}", soundfile.info(path).duration, path, "wav", ""])
    data = sb.dataio.dataset.DynamicItemDataset.from_csv(str(folder / "train.csv"))

    @sb.utils.data_pipeline.takes("wav", "duration")
    @sb.utils.data_pipeline.provides("sig")
    def crop(wav: str, duration: str) -> torch.Tensor:
        start = random.randint(0, int(float(duration) * RATE) - 3 * RATE)
        return load_by_soundfile(wav, frame_offset=start, num_frames=3 * RATE)[0].transpose(0, 1).squeeze(1)

    sb.dataio.dataset.add_dynamic_item([data], crop)
    sb.dataio.dataset.set_output_keys([data], ["id", "sig"])
    rates = {"clean_sample_rate": RATE}
    augment = Augmenters(
        parallel_augment=True,
        concat_original=True,
        min_augmentations=4,
        max_augmentations=4,
        augment_prob=1.0,
        augmentations=[
            AddNoise(str(folder / "noise.csv"), snr_low=0, snr_high=15, noise_sample_rate=RATE, **rates),
            AddReverb(str(folder / "rirs.csv"), reverb_sample_rate=RATE, **rates),
            DropFreq(
                drop_freq_low=0, drop_freq_high=1, drop_freq_count_low=1, drop_freq_count_high=3, drop_freq_width=0.05
            ),
            DropChunk(drop_length_low=1000, drop_length_high=2000, drop_count_low=1, drop_count_high=5),
        ],
    )
    fbank, normalise = Fbank(n_mels=80), InputNormalization(norm_type="sentence", std_norm=False)
    loader = make_dataloader(data, batch_size=32, shuffle=True, drop_last=True, num_workers=0)

    def prepare(batch: Any) -> int:
        with torch.no_grad():
            waveforms, lengths = augment(*batch.sig)
            return len(normalise(fbank(waveforms), lengths))

    return partial(_size_of_next, _for_ever(loader, prepare))


def _for_ever(loader: Any, prepare: Callable[[Any], int]) -> Iterator[int]:
    while True:
        yield from map(prepare, loader)


def _size_of_next(sizes: Iterator[int]) -> int:
    return next(sizes)


def processor() -> str:
    """Returns the model of the processor."""
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.split(":")[1].strip()
    return platform.processor()


TOOLKITS: dict[str, Callable[[Files, argparse.Namespace], Batches]] = {
    "greensv-as-kiwano": greensv_as_kiwano,
    "greensv-as-wespeaker": greensv_as_wespeaker,
    "kiwano": kiwano_batches,
    "wespeaker": wespeaker_batches,
    "speechbrain": speechbrain_batches,
}
EXAMPLES_PER_UTTERANCE = {"speechbrain": 5}
PAIRS = (
    ("greensv-as-kiwano", "kiwano"),
    ("greensv-as-wespeaker", "wespeaker"),
    ("greensv-as-kiwano", "speechbrain"),
)


if __name__ == "__main__":
    main()
