"""EER after equal time: the same narrow ResNet trained by greensv and by SpeechBrain's recipe, crops disturbed alike.

    python benchmarks/toolkits/error_rate.py --data SPEECHOCEAN762 --speechbrain CHECKOUT [--minutes 20] [--seeds 2]

Both train at once, each on a core of its own, and change cores from seed to seed. ResNet with stage channels
16-16-32-32 and one block a stage, 3 s crops, batches of 32; noise and rooms are written by `corpus.write_noise`.
Prints the EER of both test lists with its 95 % bootstrap interval over speakers.
"""

import argparse
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import torch
from corpus import prepare, write_noise
from scoring import LISTS

from greensv.speaker.corpora.trial_list import read_trial_list, resolve
from greensv.speaker.scoring.bootstrap import bootstrap_eer
from greensv.speaker.scoring.metrics import eer

HERE = Path(__file__).parent


def main() -> None:
    """Trains both, seed by seed, and prints a table in Markdown."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--speechbrain", type=Path, required=True)
    parser.add_argument("--minutes", type=float, default=20.0)
    parser.add_argument("--seeds", type=int, default=2)
    args = parser.parse_args()
    data = args.data.resolve()
    cpu = torch.cpu.get_capabilities().get("cpu_name")
    print(f"CPU {cpu}, one core each, torch {torch.__version__}, {args.minutes:g} minutes a training\n")
    with tempfile.TemporaryDirectory() as folder:
        files = prepare(data, Path(folder), min_duration_s=3.0, num_utterances=100_000)
        write_noise(files.folder)
        results: dict[str, list[np.lib.npyio.NpzFile]] = {"greensv": [], "SpeechBrain": []}
        for seed in range(args.seeds):
            common = ["--data", str(data), "--files", folder, "--minutes", str(args.minutes), "--seed", str(seed)]
            sizes = ["--num-utterances", str(files.num_utterances), "--num-speakers", str(files.num_speakers)]
            theirs = ["--checkout", str(args.speechbrain.resolve()), *sizes]
            running = {}
            for place, (name, script, more) in enumerate(
                (
                    ("greensv", "error_rate_greensv.py", []),
                    ("SpeechBrain", "error_rate_speechbrain.py", theirs),
                )
            ):
                scores = Path(folder) / f"{name}-{seed}.npz"
                core = str((place + seed) % 2)
                command = ["taskset", "-c", core, sys.executable, script, *common, *more, "--scores", str(scores)]
                running[name] = (subprocess.Popen(command, cwd=HERE, stderr=subprocess.DEVNULL), scores)
            for name, (process, scores) in running.items():
                if process.wait():
                    sys.exit(f"{name} failed with exit code {process.returncode}")
                results[name].append(np.load(scores))
        print("\n| list | seed | greensv | SpeechBrain |\n| --- | --- | --- | --- |")
        for name in LISTS:
            protocol = resolve(read_trial_list(data / "eval" / f"{name}.txt"), data)
            for seed in range(args.seeds):
                cells = []
                for scores in (results["greensv"][seed][name], results["SpeechBrain"][seed][name]):
                    low, high = bootstrap_eer(scores, protocol.pairs, protocol.utterances.speakers, num_resamples=400)
                    cells.append(f"{eer(scores, protocol.pairs.is_target):.2%} ({low:.2%} to {high:.2%})")
                print(f"| {name} | {seed} | {' | '.join(cells)} |")


if __name__ == "__main__":
    main()
