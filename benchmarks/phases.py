"""What timing the phases of each step costs a training, and what telemetry costs a core.

    uv run python benchmarks/phases.py [--steps 4] [--repeats 10] [--batch-size 8]

Trains the paper's narrowest network on synthesised audio, some steps with the phases timed and as many without, by
turns, and prints the median of the ratios of neighbouring stretches with its spread. Beside it: the marks' own cost,
measured alone, and the CPU time of one record of the machine's state (every `energy.telemetry_interval_s` seconds, 5
by default). On a GPU the device is synchronised at both ends of a stretch.
"""

import argparse
import statistics
import tempfile
import time
from pathlib import Path

import numpy as np
import soundfile
import torch

from greensv.config import FeatureConfig, Phase, Recipe
from greensv.energy.devices.host_state import HostReader
from greensv.plugins import load_plugins
from greensv.speaker.audio.store import AudioStore
from greensv.speaker.corpora.corpus import build_utterances
from greensv.speaker.dataset import Utterances
from greensv.speaker.device import device_name, resolve_device, synchronise
from greensv.speaker.training.loop import Training
from greensv.speaker.training.phases import STEP_PHASES, PhaseTimer, StepPhase

RATE_HZ = 16_000
CROP_S = 0.5
NUM_MARKED_STEPS = 20_000
NUM_RECORDS = 200
NUM_WARMUP_STEPS = 5


class NoTimer(PhaseTimer):
    """Times nothing."""

    def begin(self) -> None:
        pass

    def mark(self, phase: StepPhase) -> None:
        pass

    def end(self) -> None:
        pass


def main() -> None:
    """Measures and prints a table in Markdown."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=4)
    parser.add_argument("--repeats", type=int, default=10)
    parser.add_argument("--batch-size", type=int, default=8)
    args = parser.parse_args()
    device = resolve_device("auto")
    print(f"{device_name(device)}, torch {torch.__version__}; batch {args.batch_size}, crops of {CROP_S:g} s\n")
    with tempfile.TemporaryDirectory() as folder:
        training = make_training(voices(Path(folder), num_files=4 * args.batch_size), device, args)
        stretches = alternate(training, device, args)
    ratios = [timed / untimed for timed, untimed in stretches]
    step_ms = 1e3 * statistics.median(untimed for _, untimed in stretches) / args.steps
    mark_us = marks_s(device) * 1e6
    print("| what | value |")
    print("| --- | --- |")
    print(f"| a step, not timed | {step_ms:.2f} ms |")
    print(f"| timed : not timed, median of {len(ratios)} | {statistics.median(ratios):.4f} |")
    print(f"| range of the middle half | {quartiles(ratios)} |")
    print(f"| the marks of a step alone | {mark_us:.1f} µs, {mark_us / (1e3 * step_ms):.4%} of the step |")
    record_ms = record_s() * 1e3
    print(
        f"| one record of the machine's state | {record_ms:.3f} ms of CPU, {record_ms / 5e3:.4%} of a core each 5 s |"
    )
    times = training.step_times
    total_s = sum(times.seconds.values())
    print("\nThe phases of the timed steps: " + ", ".join(f"{p} {times.seconds[p] / total_s:.1%}" for p in STEP_PHASES))


def alternate(training: Training, device: torch.device, args: argparse.Namespace) -> list[tuple[float, float]]:
    """Returns pairs of seconds: of so many steps timed, and of as many not timed; which goes first changes."""
    timers = {True: training._timer, False: NoTimer()}
    training.run(until_step=NUM_WARMUP_STEPS)
    pairs = []
    for repeat in range(args.repeats):
        seconds = {}
        for is_timed in (True, False) if repeat % 2 else (False, True):
            training._timer = timers[is_timed]
            synchronise(device)
            began_s = time.perf_counter()
            training.run(until_step=training.step + args.steps)
            synchronise(device)
            seconds[is_timed] = time.perf_counter() - began_s
        pairs.append((seconds[True], seconds[False]))
    training._timer = timers[True]
    return pairs


def marks_s(device: torch.device) -> float:
    """Returns the host's seconds for the marks of one step, with nothing between them."""
    timer = PhaseTimer.of(device)
    began_s = time.perf_counter()
    for _ in range(NUM_MARKED_STEPS):
        timer.begin()
        for phase in STEP_PHASES:
            timer.mark(phase)
        timer.end()
    return (time.perf_counter() - began_s) / NUM_MARKED_STEPS


def record_s() -> float:
    """Returns the CPU seconds of one read of the machine's state."""
    reader = HostReader()
    began_s = time.process_time()
    for _ in range(NUM_RECORDS):
        reader.read()
    return (time.process_time() - began_s) / NUM_RECORDS


def make_training(utterances: Utterances, device: torch.device, args: argparse.Namespace) -> Training:
    """Returns a training of the narrowest system, long enough for all stretches."""
    backbone = load_plugins(third_party=False).get("backbone", "resnet")
    systems = backbone.systems()
    networks = {name: backbone.build(params, features=FeatureConfig()) for name, params in systems.items()}
    name = min(networks, key=lambda name: sum(p.numel() for p in networks[name].parameters()))
    num_steps = NUM_WARMUP_STEPS + 2 * args.repeats * args.steps
    num_epochs = 1 + num_steps // (len(utterances) // args.batch_size)
    print(f"{name}:")
    return Training(
        network=networks[name],
        utterances=utterances,
        audio=AudioStore(utterances),
        recipe=Recipe(batch_size=args.batch_size),
        phases=(Phase(num_epochs=num_epochs, crop_s=CROP_S),),
        features=FeatureConfig(),
        seed=0,
        device=device,
    )


def voices(folder: Path, *, num_files: int) -> Utterances:
    """Writes files of noise, 4 s each, of 8 speakers."""
    rng = np.random.default_rng(0)
    paths = [folder / f"{number}.wav" for number in range(num_files)]
    for path in paths:
        soundfile.write(path, (0.1 * rng.standard_normal(4 * RATE_HZ)).astype(np.float32), RATE_HZ, subtype="PCM_16")
    return build_utterances(
        ids=[path.stem for path in paths],
        paths=[str(path) for path in paths],
        speaker_of=[str(number % 8) for number in range(num_files)],
        num_samples=np.full(num_files, 4 * RATE_HZ),
    )


def quartiles(values: list[float]) -> str:
    """Returns the first and the third quartile."""
    first, _, third = statistics.quantiles(values, n=4)
    return f"{first:.4f} to {third:.4f}"


if __name__ == "__main__":
    main()
