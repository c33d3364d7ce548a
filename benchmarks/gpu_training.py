"""How well a GPU is used in training: utterances/s, J/utterance, share of its roofline, share of time without data.

    uv run python benchmarks/gpu_training.py [--systems ResNet-34-D ResNet-50-D] [--batch-size 64] [--seconds 20]

Trains each system (default: the fifteen of Table 1) for some seconds on synthesised WAV files with the paper's crops
and disturbances, bf16, as `greensv retrain` does, and prints a row per system:

- utterances/s over the steady state, the device synchronised at both ends;
- J/utterance by NVML (the meters that `--meter auto` would choose; without a GPU, an estimate, labelled so);
- the share of the measured bf16 matrix rate: 3 × 2 × MACs × utterances/s (a step's backward pass is two forward
  passes) over the rate of a large square product on the same device, measured here;
- the share that the memory allows: the time that 14 bytes per convolution output take at the measured copy rate
  (written and read once forwards, written once and read twice backwards, at 2 bytes, and the normalisation's statistics
  forwards and backwards), over which no step of unfused layers can go;
- the share of the time that the device waits for data: against the same steps on a batch that is already there.

A system that does not fit into memory is a row that says so.
"""

import argparse
import statistics
import tempfile
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import soundfile
import torch

from greensv.config import Augmentation, Disturbance, FeatureConfig, Phase, Recipe
from greensv.energy.metering.selection import choose_meters, open_meters
from greensv.energy.monitoring import Monitor
from greensv.plugins import load_plugins
from greensv.speaker.audio.store import AudioStore
from greensv.speaker.complexity import Complexity, describe_network
from greensv.speaker.corpora.corpus import build_utterances
from greensv.speaker.dataset import Utterances
from greensv.speaker.device import gpu_uuids, processor_name, resolve_device, synchronise
from greensv.speaker.training.loop import StepReport, Training

RATE_HZ = 16_000
FEATURES = FeatureConfig()
BYTES_PER_OUTPUT = 14
NUM_WARMUP_STEPS = 8


def main() -> None:
    """Measures each system and prints a table in Markdown."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--systems", nargs="*")
    parser.add_argument("--batch-size", type=int, default=64)
    parser.add_argument("--seconds", type=float, default=20.0)
    parser.add_argument("--repeats", type=int, default=3)
    args = parser.parse_args()
    device = resolve_device("auto")
    plugins = load_plugins(third_party=False)
    systems = plugins.get("backbone", "resnet").systems()
    matrix_rate, copy_rate = matrix_flops(device), copy_bytes(device)
    choices = choose_meters(plugins.all("meter"), ["auto"], gpu_uuids=gpu_uuids(device))
    meters = ", ".join(f"{choice.meter.name} ({choice.meter.quality})" for choice in choices if choice.is_chosen)
    print(f"{processor_name(device)}, torch {torch.__version__}, bf16, batch {args.batch_size}, crops of 3.5 s")
    print(f"bf16 matrix rate {matrix_rate / 1e12:.1f} TFLOP/s, copies {copy_rate / 1e9:.0f} GB/s; energy by {meters}\n")
    print("| system | GMAC | utt/s (range) | J/utt | matrix rate | memory allows | waits for data |")
    print("| --- | --- | --- | --- | --- | --- | --- |")
    wait = lambda: synchronise(device)  # noqa: E731
    with tempfile.TemporaryDirectory() as folder, Monitor(open_meters(choices), synchronise=wait) as monitor:
        utterances = voices(Path(folder), num_files=2 * args.batch_size)
        for name in args.systems or systems:
            build = lambda params=systems[name]: plugins.get("backbone", "resnet").build(params, features=FEATURES)  # noqa: E731
            size = describe_network(build, features=FEATURES)
            try:
                rates, joules, waiting = measure(build(), utterances, device, monitor, args)
            except torch.OutOfMemoryError:
                print(f"| {name} | {size.macs / 1e9:.1f} | out of memory | | | | |", flush=True)
                continue
            print(row(name, size, rates, joules, waiting, matrix_rate, copy_rate), flush=True)


def row(
    name: str, size: Complexity, rates: list[float], joules: float, waiting: float, matrix_rate: float, copy_rate: float
) -> str:
    """Returns a row of the table."""
    rate = statistics.median(rates)
    share = 6 * size.macs * rate / matrix_rate
    allowed = copy_rate / (BYTES_PER_OUTPUT * size.activations) * 6 * size.macs / matrix_rate
    return (
        f"| {name} | {size.macs / 1e9:.1f} | {rate:.1f} ({min(rates):.1f} to {max(rates):.1f}) | {joules:.2f} | "
        f"{share:.1%} | {min(1.0, allowed):.0%} | {waiting:.1%} |"
    )


def measure(
    network: torch.nn.Module,
    utterances: Utterances,
    device: torch.device,
    monitor: Monitor,
    args: argparse.Namespace,
) -> tuple[list[float], float, float]:
    """Returns utterances per second, joules per utterance, and the share of time waited for data."""
    noise = [Disturbance(kind=kind, probability=0.2) for kind in ("noise", "music", "speech")]
    ways = (*noise, Disturbance(kind="reverb", probability=0.2))
    training = Training(
        network=network,
        utterances=utterances,
        audio=AudioStore(utterances, cache_bytes=0),
        recipe=Recipe(batch_size=args.batch_size, precision="bf16", augmentation=Augmentation(disturbances=ways)),
        phases=(Phase(num_epochs=100_000),),
        features=FEATURES,
        seed=0,
        device=device,
    )
    training.run(until_step=NUM_WARMUP_STEPS)
    rates, energies_j = [], []
    for _ in range(args.repeats):
        before = training.step
        with monitor.window("training") as window:
            seconds = run_for(training, args.seconds, device)
        num = (training.step - before) * args.batch_size
        rates.append(num / seconds)
        energies_j.append(window.result.energy_j / num)
    training._batches.make = _the_same(training._batches.make)  # type: ignore[method-assign]
    before = training.step
    seconds = run_for(training, args.seconds, device)
    fed = (training.step - before) * args.batch_size / seconds
    return rates, statistics.median(energies_j), max(0.0, 1 - statistics.median(rates) / fed)


def _the_same(make):
    """Returns a maker that makes one batch and hands it out for every step."""
    made = None

    def again(step, **how):
        nonlocal made
        made = made or make(step, **how)
        return replace(made, step=step)

    return again


class _Enough(Exception):
    pass


def run_for(training: Training, seconds: float, device: torch.device) -> float:
    """Trains for about so long; returns how long it was."""
    synchronise(device)
    began_s = time.perf_counter()

    def on_step(report: StepReport) -> None:
        if time.perf_counter() - began_s > seconds:
            raise _Enough

    try:
        training.run(on_step=on_step)
    except _Enough:
        synchronise(device)
    return time.perf_counter() - began_s


def matrix_flops(device: torch.device, *, size: int = 8192) -> float:
    """Returns the FLOP/s of a square bf16 product, the best of ten."""
    size = size if device.type == "cuda" else 2048
    a, b = (torch.randn(size, size, device=device, dtype=torch.bfloat16) for _ in range(2))
    return 2 * size**3 / _best_s(lambda: a @ b, device)


def copy_bytes(device: torch.device) -> float:
    """Returns bytes read and written per second by a copy of 1 GiB (256 MiB on a CPU), the best of ten."""
    source = torch.empty(2**30 if device.type == "cuda" else 2**28, dtype=torch.uint8, device=device)
    target = torch.empty_like(source)
    return 2 * source.numel() / _best_s(lambda: target.copy_(source), device)


def _best_s(call, device: torch.device) -> float:
    best_s = float("inf")
    for _ in range(10):
        synchronise(device)
        began_s = time.perf_counter()
        call()
        synchronise(device)
        best_s = min(best_s, time.perf_counter() - began_s)
    return best_s


def voices(folder: Path, *, num_files: int) -> Utterances:
    """Writes 8 s WAV files of noise shaped like speech, and returns them as utterances of ten speakers."""
    rng = np.random.default_rng(0)
    num_samples = 8 * RATE_HZ
    paths = []
    for number in range(num_files):
        samples = rng.normal(size=num_samples) * (1 + np.sin(np.arange(num_samples) / RATE_HZ * 20)) / 10
        paths.append(str(folder / f"{number}.wav"))
        soundfile.write(paths[-1], samples.clip(-1, 1), RATE_HZ, subtype="PCM_16")
    return build_utterances(
        ids=[str(number) for number in range(num_files)],
        paths=paths,
        speaker_of=[str(number % 10) for number in range(num_files)],
        num_samples=np.full(num_files, num_samples),
    )


if __name__ == "__main__":
    main()
