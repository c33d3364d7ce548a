"""A manifest of a million audio files: how long it takes to build and to load, and what a random crop then costs.

    python benchmarks/manifest_million.py                        # 1,000,000 files, about 2 minutes
    python benchmarks/manifest_million.py --num-files 20000      # a small run

The tree has VoxCeleb2's shape (speaker/video/utterance) and is made of hard links to a few WAV and FLAC files of 4 to 8
seconds, so it takes directory entries on the disk and little else. The files' contents are therefore in the page cache,
and so are their inodes: what is timed is greensv and the kernel, not a disk.
"""

import argparse
import os
import platform
import resource
import shutil
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import soundfile
from numpy.typing import NDArray

from greensv.speaker.audio.store import AudioStore
from greensv.speaker.corpora.corpus import hold_out_speakers, join, select
from greensv.speaker.corpora.manifest import find_audio, usable_utterances
from greensv.speaker.dataset import Utterances
from greensv.speaker.device import processor_name

RATE_HZ = 16_000
NUM_SOURCES = 64
FILES_PER_VIDEO, VIDEOS_PER_SPEAKER = 8, 25
CROP_SAMPLES = int(3.5 * RATE_HZ)
CROPS_PER_ROUND, NUM_ROUNDS = 2_000, 7
CORPUS_SIZES = (1_000, 30_000, 1_000_000)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--num-files", type=int, default=1_000_000)
    parser.add_argument("--folder", type=Path, help="where to make the tree; a temporary folder if not given")
    arguments = parser.parse_args()
    print(f"command: python {Path(sys.argv[0]).name} {' '.join(sys.argv[1:])}".rstrip())
    print(f"machine: {machine()}\n")
    folder = Path(tempfile.mkdtemp(prefix="greensv-manifest-", dir=arguments.folder))
    try:
        measure_manifest(folder, num_files=arguments.num_files)
    finally:
        shutil.rmtree(folder)


def machine() -> str:
    import torch

    name = processor_name(torch.device("cpu"))
    python, load = platform.python_version(), os.getloadavg()[0]
    return f"{name}, {os.cpu_count()} cores, {platform.system()}, Python {python}; load {load:.1f} from other work"


def measure_manifest(folder: Path, *, num_files: int) -> None:
    root, cache = folder / "wav", folder / "cache"
    print(f"memory of the process at the start, torch loaded: {peak_mb():.0f} MB")
    with timed(f"make the tree of {num_files:,} files"):
        make_tree(root, num_files)
    with timed("find the files (sorted)"):
        paths = find_audio(root, (".wav", ".flac"))
    assert len(paths) == num_files

    def load() -> Utterances:
        start = len(str(root)) + 1
        return usable_utterances(
            ids=[path[start:] for path in paths],
            paths=paths,
            speaker_of=[path[start:].split("/", 1)[0] for path in paths],
            sample_rate_hz=RATE_HZ,
            cache_dir=cache,
        )[0]

    with timed("build the manifest"):
        utterances = load()
    print(f"  on disk: {sum(f.stat().st_size for f in (cache / 'manifests').iterdir()) / 1e6:.1f} MB")
    for attempt in ("second", "third"):
        with timed(f"{attempt} load"):
            again = load()
    assert (again.num_samples == utterances.num_samples).all()
    with timed("hold out 100 speakers"):
        train, dev = hold_out_speakers(utterances, num_speakers=min(100, utterances.num_speakers // 2), seed=0)
    with timed("join them again"):
        assert len(join(train, dev)) == num_files
    print(f"  peak memory of the process so far: {peak_mb():.0f} MB\n")
    del train, dev, again
    measure_crops(utterances)


def make_tree(root: Path, num_files: int) -> None:
    """Links file i to one of the sources, every fourth of them FLAC."""
    rng = np.random.default_rng(0)
    sources = []
    (root.parent / "sources").mkdir()
    for number in range(NUM_SOURCES):
        suffix = "flac" if number % 4 == 3 else "wav"
        source = root.parent / "sources" / f"{number}.{suffix}"
        num_samples = int(rng.integers(4 * RATE_HZ, 8 * RATE_HZ))
        # Noise that falls off towards high frequencies, as speech does: FLAC then compresses it about as much.
        noise = np.convolve(rng.normal(0, 1, num_samples), 0.95 ** np.arange(128))[:num_samples]
        soundfile.write(source, 0.02 * noise, RATE_HZ)
        sources.append((str(source), suffix))
    copies: dict[int, tuple[str, int]] = {}
    for i in range(num_files):
        video = i // FILES_PER_VIDEO
        directory = f"{root}/id{video // VIDEOS_PER_SPEAKER:05d}/video{video % VIDEOS_PER_SPEAKER:03d}"
        if i % FILES_PER_VIDEO == 0:
            Path(directory).mkdir(parents=True)
        number = i % NUM_SOURCES
        source, suffix = sources[number]
        copy, num_links = copies.get(number, (source, 0))
        if num_links == 30_000:  # file systems allow 32,000 to 65,000 links
            copy, num_links = f"{source}.{i}", 0
            shutil.copyfile(source, copy)
        os.link(copy, f"{directory}/{i % FILES_PER_VIDEO:05d}.{suffix}")
        copies[number] = copy, num_links + 1


def measure_crops(utterances: Utterances) -> None:
    """Prints cost, spread and growth of memory of random crops from corpora of growing size, in turn, none cached."""
    wav = np.array([path.endswith(".wav") for path in utterances.paths])
    for name, indices in (("WAV", np.flatnonzero(wav)), ("FLAC", np.flatnonzero(~wav))):
        rng = np.random.default_rng(1)
        sizes = [size for size in CORPUS_SIZES if size < len(indices)] + [len(indices)]
        corpora = [select(utterances, rng.choice(indices, size=size, replace=False)) for size in sizes]
        stores = [AudioStore(corpus, cache_bytes=0) for corpus in corpora]
        num_crops = CROPS_PER_ROUND if name == "WAV" else CROPS_PER_ROUND // 8
        for store in stores:
            take_crops(store, num_crops, rng)
        before_mb = resident_mb()
        costs_us: list[list[float]] = [[] for _ in stores]
        by_libsndfile_us: list[float] = []
        for _ in range(NUM_ROUNDS):
            for cost_us, store in zip(costs_us, stores, strict=True):
                cost_us.append(take_crops(store, num_crops, rng))
            by_libsndfile_us.append(take_crops(BySoundfile(corpora[-1]), num_crops, rng))
        for size, cost_us in zip(sizes, costs_us, strict=True):
            print(f"{name} crop of 3.5 s out of {size:>9,} files: {spread(cost_us, 'us')}")
        ratio = [last / first for first, last in zip(costs_us[0], costs_us[-1], strict=True)]
        grown_mb = resident_mb() - before_mb
        print(f"  largest over smallest corpus: {spread(ratio, '×')}; resident memory grew by {grown_mb:.1f} MB")
        print(f"  the same by soundfile's SoundFile, seek, read: {spread(by_libsndfile_us, 'us')}")


class BySoundfile(AudioStore):
    """Reads crops as one would with soundfile alone."""

    def crop(self, index: int, *, start: int, num_samples: int) -> NDArray[np.float32]:
        with soundfile.SoundFile(self.utterances.paths[index]) as file:
            file.seek(start)
            samples: NDArray[np.float32] = file.read(num_samples, dtype="float32")
        return samples


def take_crops(store: AudioStore, num_crops: int, rng: np.random.Generator) -> float:
    """Returns microseconds per crop."""
    indices = rng.integers(0, len(store.utterances), num_crops)
    starts = rng.integers(0, store.utterances.num_samples[indices] - CROP_SAMPLES)
    begin = time.perf_counter()
    for index, start in zip(indices.tolist(), starts.tolist(), strict=True):
        store.crop(index, start=start, num_samples=CROP_SAMPLES)
    return (time.perf_counter() - begin) / num_crops * 1e6


def spread(values: list[float], unit: str) -> str:
    return (
        f"median {statistics.median(values):.2f} {unit} ({min(values):.2f} to {max(values):.2f}, {len(values)} rounds)"
    )


def resident_mb() -> float:
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 1e6


def peak_mb() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e3


@contextmanager
def timed(what: str) -> Iterator[None]:
    begin = time.perf_counter()
    yield
    print(f"{what}: {time.perf_counter() - begin:.2f} s", flush=True)


if __name__ == "__main__":
    main()
