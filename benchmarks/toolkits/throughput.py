"""Training speed beside other toolkits: utterances per second of a step and of a whole epoch, alternating, as ratios.

    python benchmarks/toolkits/throughput.py --data DIR --speechbrain CHECKOUT --wespeaker CHECKOUT [--only NAME]…

Run it with a Python that has greensv and, beside torch 2.11, `speechbrain` and WeSpeaker's `kaldiio lmdb tableprint
torchnet`; the two checkouts are clones of speechbrain/speechbrain (for its recipe) and wenet-e2e/wespeaker. DIR is a
Kaldi data directory such as speechocean762. Every loop is a process of its own, over the same WAV files, one after the
other; nothing else should run. The first two steps are left out of the steady rate and count in the epoch's.
"""

import argparse
import json
import platform
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import torch
from corpus import Files, prepare, write_noise

HERE = Path(__file__).parent
PAPER = {"channels": "paper", "block": "basic-3", "depth": 16}
SHARES = {"share_1": 0.5, "share_2": 4 / 6, "share_3": 1.0, "share_4": 0.5}
NARROW = {**PAPER, **SHARES, "width_log2": -2.0}
"""Stage channels 32-32-64-64, blocks 3-4-6-3: SpeechBrain's ResNet at a quarter of its width."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Comparison:
    """One pair of loops over `num_steps` batches; `ours` and `theirs` are their arguments."""

    what: str
    theirs_is: str
    ours: list[str]
    theirs: list[str]
    batch_size: int
    num_steps: int
    crop_s: float = 3.0


def greensv(backbone: str, params: Mapping[str, object], *extra: str) -> list[str]:
    """Returns the arguments of greensv's loop."""
    return ["--backbone", backbone, "--params", json.dumps(params), *extra]


ECAPA = {"channels": 1024, "aggregation": "normalised"}
"""SpeechBrain's own form of the network."""
COMPARISONS = {
    "resnet": Comparison(
        what="ResNet [3,4,6,3], channels 128-128-256-256, fp32, no augmentation",
        theirs_is="SpeechBrain",
        ours=greensv("resnet", {**PAPER, **SHARES}),
        theirs=["--recipe", "train_resnet"],
        batch_size=8,
        num_steps=5,
    ),
    "resnet-narrow": Comparison(
        what="ResNet [3,4,6,3], channels 32-32-64-64, fp32, no augmentation",
        theirs_is="SpeechBrain",
        ours=greensv("resnet", NARROW),
        theirs=["--recipe", "train_resnet", "--channels", "32", "32", "64", "64"],
        batch_size=32,
        num_steps=8,
    ),
    "ecapa": Comparison(
        what="ECAPA-TDNN, 1,024 channels, fp32, no augmentation",
        theirs_is="SpeechBrain",
        ours=greensv("ecapa-tdnn", ECAPA),
        theirs=["--recipe", "train_ecapa_tdnn"],
        batch_size=32,
        num_steps=8,
    ),
    "wespeaker": Comparison(
        what="WeSpeaker's ResNet34, 2 s crops, fp32, no augmentation",
        theirs_is="WeSpeaker",
        ours=greensv("wespeaker-resnet", {}),
        theirs=["--model", "ResNet34"],
        batch_size=32,
        num_steps=8,
        crop_s=2.0,
    ),
    "resnet-defaults": Comparison(
        what="ResNet [3,4,6,3], channels 32-32-64-64, each tool's own defaults, augmented",
        theirs_is="SpeechBrain",
        ours=greensv("resnet", NARROW, "--precision", "auto", "--augment"),
        theirs=["--recipe", "train_resnet", "--channels", "32", "32", "64", "64", "--augment"],
        batch_size=32,
        num_steps=4,
    ),
    "ecapa-defaults": Comparison(
        what="ECAPA-TDNN, 1,024 channels, each tool's own defaults, augmented",
        theirs_is="SpeechBrain",
        ours=greensv("ecapa-tdnn", ECAPA, "--precision", "auto", "--augment"),
        theirs=["--recipe", "train_ecapa_tdnn", "--augment"],
        batch_size=32,
        num_steps=4,
    ),
}


@dataclass(slots=True)
class Rates:
    """Utterances per second, round by round."""

    ours: list[dict[str, float]] = field(default_factory=list)
    theirs: list[dict[str, float]] = field(default_factory=list)

    def summary(self, key: str) -> str:
        """Returns both medians and the median ratio with its smallest and largest."""
        ratios = [a[key] / b[key] for a, b in zip(self.ours, self.theirs, strict=True)]
        ours, theirs = (statistics.median(rate[key] for rate in rates) for rates in (self.ours, self.theirs))
        return (
            f"{ours:.2f} | {theirs:.2f} | **{statistics.median(ratios):.2f}** ({min(ratios):.2f} to {max(ratios):.2f})"
        )


def main() -> None:
    """Runs the comparisons and prints a table in Markdown."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--speechbrain", type=Path)
    parser.add_argument("--wespeaker", type=Path)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--num-workers", type=int, default=2)
    parser.add_argument("--only", choices=COMPARISONS, action="append")
    args = parser.parse_args()
    cpu = torch.cpu.get_capabilities().get("cpu_name") or platform.machine()
    print(f"CPU {cpu}, {args.threads} threads, torch {torch.__version__}, {args.rounds} rounds, alternating\n")
    print("| comparison | of | greensv, utt/s | theirs, utt/s | ratio, median (range) |")
    print("| --- | --- | --- | --- | --- |")
    for name in args.only or COMPARISONS:
        comparison = COMPARISONS[name]
        with tempfile.TemporaryDirectory() as folder:
            files = prepare(
                args.data,
                Path(folder),
                min_duration_s=comparison.crop_s,
                num_utterances=comparison.num_steps * comparison.batch_size,
            )
            write_noise(files.folder)
            rates = Rates()
            for number in range(args.rounds):
                first, second = (True, False) if number % 2 == 0 else (False, True)
                for is_ours in (first, second):
                    (rates.ours if is_ours else rates.theirs).append(run(comparison, files, args, is_ours=is_ours))
        for key, what in (("steady", "step"), ("epoch", "epoch")):
            print(f"| {comparison.what}; {comparison.theirs_is} | {what} | {rates.summary(key)} |", flush=True)


def run(comparison: Comparison, files: Files, args: argparse.Namespace, *, is_ours: bool) -> dict[str, float]:
    """Runs one loop in a process of its own and returns what it reports."""
    common = ["--files", str(files.folder), "--batch-size", str(comparison.batch_size), "--threads", str(args.threads)]
    if is_ours:
        arguments = ["greensv_loop.py", *comparison.ours, "--crop-s", str(comparison.crop_s)]
    else:
        checkout = getattr(args, comparison.theirs_is.lower())
        arguments = [f"{comparison.theirs_is.lower()}_loop.py", "--checkout", str(checkout), *comparison.theirs]
        arguments += ["--num-workers", str(args.num_workers), "--num-speakers", str(files.num_speakers)]
        if comparison.theirs_is == "WeSpeaker":
            arguments += ["--num-utterances", str(files.num_utterances)]
    done = subprocess.run([sys.executable, *arguments, *common], cwd=HERE, capture_output=True, text=True, check=False)
    if done.returncode:
        sys.exit(f"{arguments[0]} failed:\n{done.stderr[-3000:]}")
    found: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return found


if __name__ == "__main__":
    main()
