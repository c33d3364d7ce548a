"""Does the error rate of a short training tell that of a longer one? Small ResNets, scored at every rung of a search.

    python benchmarks/learning_curves.py --data SPEECHOCEAN762 [--csv docs/benchmarks/learning-curves.csv]
    python benchmarks/learning_curves.py --analyse [--csv ...] [--publish]

The first command trains 24 architectures of the backbone `resnet`, each with two seeds, once through four rungs (η = 3:
1/27, 1/9, 1/3 and all of the steps; one schedule, never restarted), scores the development pairs at each rung and the
test list at the last, and appends a row per rung at once. It can be interrupted: finished trainings are skipped when it
is run again. One process, one thread. The second prints what the CSV says, of architectures that all seeds have
finished; with --publish it puts that and the CSV where greensv and its documentation have them.

Energy is 3.5 J per second of this process's CPU time (the meter `estimate`, Cloud Carbon Footprint's power of a busy
virtual CPU), and nothing for rest and memory: so what else the machine does hardly shows in it.
"""

import argparse
import csv
import itertools
import os
import shutil
import tempfile
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
from curve_design import Architecture, design, features
from rung_ranks import tables

from greensv.search.simulation.table import read_curves

HERE = Path(__file__).resolve().parent
TABLE = HERE.parent / "docs" / "benchmarks" / "learning-curves.csv"
SHIPPED = HERE.parent / "src" / "greensv" / "search" / "simulation" / TABLE.name
MARKS = "<!-- benchmarks/learning_curves.py writes from here -->\n", "<!-- to here -->\n"
NUM_SEEDS, NUM_RUNGS, ETA = 2, 4, 3
NUM_EPOCHS, FULL_EPOCHS = 3, 16
"""Epochs at the top rung, and of the full recipe, whose energy is projected: those of studies/speechocean762."""
CROP_S, BATCH_SIZE, NUM_DEV_SPEAKERS, WARMUP_STEPS, NUM_RESAMPLES = 2.0, 32, 24, 3, 200
NUM_SCORED = 10
"""Development utterances of each held-out speaker that are scored: their number tells less than the speakers'."""
ALL_TARGETS = {"num_target": 5_000, "num_nontarget": 20_000}
ESTIMATE = {"estimate": {"kinds": ("cpu",), "min_w_per_cpu": 0.0, "max_w_per_cpu": 3.5}}


def main() -> None:
    """Trains what is missing, or analyses what there is."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path)
    parser.add_argument("--csv", type=Path, default=TABLE)
    parser.add_argument("--analyse", action="store_true")
    parser.add_argument("--publish", action="store_true", help="with --analyse: update docs/ and src/ too")
    args = parser.parse_args()
    if args.analyse:
        rows = finished_rows(read_rows(args.csv))
        with tempfile.TemporaryDirectory() as folder:
            write_rows(table := Path(folder) / TABLE.name, rows)
            found = tables(read_curves(table))
            if args.publish:
                publish(table, found)
        print(found)
    elif args.data is None:
        parser.error("--data SPEECHOCEAN762 is needed to train; --analyse reads the table")
    else:
        train_all(args.data.resolve(), args.csv)


class Bench:
    """The data, decoded once, the meter, and how one architecture is trained."""

    def __init__(self, data: Path) -> None:
        import torch

        from greensv.builtin.datasets.kaldi import KaldiDataset, KaldiOptions
        from greensv.config import Phase, Recipe
        from greensv.energy import monitor
        from greensv.plugins import load_plugins
        from greensv.speaker.audio.store import AudioStore
        from greensv.speaker.corpora.corpus import make_pairs
        from greensv.speaker.dataset import Protocol, ignore_progress

        torch.set_num_threads(1)
        options = KaldiOptions(num_dev_speakers=NUM_DEV_SPEAKERS, tests=("eval/trials_h.txt",))
        cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "greensv" / "kaldi"
        corpus = KaldiDataset().load(data, options, cache_dir=cache, progress=ignore_progress)
        self.train_utterances, self.num_held_out = corpus.train, len(corpus.dev.utterances)
        scored = fewer(corpus.dev.utterances, NUM_SCORED)
        self.dev = Protocol(name="dev", utterances=scored, pairs=make_pairs(scored, **ALL_TARGETS, seed=0))
        (self.test,) = KaldiDataset().load_tests(data, options, cache_dir=cache, progress=ignore_progress)
        parts = (self.train_utterances, scored, self.test.utterances)
        self.audio = {part: AudioStore(part) for part in parts}
        for store in self.audio.values():
            store.fill()
        self.backbone, self.features = load_plugins(third_party=False).get("backbone", "resnet"), features()
        self.recipe = Recipe(batch_size=BATCH_SIZE)  # SpecAugment alone disturbs: for more, three epochs are too few
        self.phase = Phase(num_epochs=NUM_EPOCHS, crop_s=CROP_S, learning_rate=0.1, final_learning_rate=5e-4)
        self.device = torch.device("cpu")
        self.monitor = monitor("estimate", gpu_uuids=(), options=ESTIMATE)

    def train(self, architecture: Architecture, seed: int) -> Iterator[dict[str, Any]]:
        """Trains one architecture through the rungs and yields a row at each."""
        import torch

        from greensv.speaker.training.loop import Training

        drawn = int(np.random.SeedSequence([seed, architecture.number]).generate_state(1)[0])
        torch.manual_seed(drawn)
        training = Training(
            network=self.backbone.build(architecture.params, features=self.features),
            utterances=self.train_utterances,
            audio=self.audio[self.train_utterances],
            recipe=self.recipe,
            phases=(self.phase,),
            features=self.features,
            seed=drawn,
            device=self.device,
        )
        full_steps = FULL_EPOCHS * ((len(self.train_utterances) + self.num_held_out) // BATCH_SIZE)
        with self.monitor.window("first steps") as first:
            training.run(until_step=WARMUP_STEPS)
        spent_j, spent_s, steady_j = first.result.energy_j, first.result.duration_s, 0.0
        for rung in range(NUM_RUNGS):
            step = round(training.num_steps / ETA ** (NUM_RUNGS - 1 - rung))
            with self.monitor.window(f"rung {rung}") as window:
                training.run(until_step=step)
            spent_j, spent_s = spent_j + window.result.energy_j, spent_s + window.result.duration_s
            steady_j += window.result.energy_j
            per_step_j = steady_j / (step - WARMUP_STEPS)
            with self.monitor.window("scoring") as scoring:
                dev = self._score(training.network, self.dev)
            is_top = rung == NUM_RUNGS - 1
            test = self._score(training.network, self.test) if is_top else dict.fromkeys(dev, "")
            yield {
                "architecture": architecture.number,
                **architecture.params,
                "blocks": "-".join(map(str, architecture.blocks)),
                "stage_channels": "-".join(map(str, architecture.channels)),
                "num_parameters": architecture.num_parameters,
                "macs": architecture.macs,
                "activations": architecture.activations,
                "seed": seed,
                "rung": rung,
                "step": step,
                "num_steps": training.num_steps,
                **dev,
                **{f"test_{key}": value for key, value in test.items()},
                "energy_j": f"{spent_j:.2f}",
                "duration_s": f"{spent_s:.2f}",
                "joules_per_step": f"{per_step_j:.5f}",
                "full_recipe_j": f"{full_steps * per_step_j:.1f}",
                "scoring_j": f"{scoring.result.energy_j:.2f}",
                "scoring_s": f"{scoring.result.duration_s:.2f}",
                "finished_at": datetime.now(UTC).isoformat(timespec="seconds"),
            }

    def _score(self, network: Any, protocol: Any) -> dict[str, str]:
        """Returns EER with its 95 % interval over speakers, and minDCF (P_target 0.01)."""
        from greensv.speaker.device import resolve_precision
        from greensv.speaker.embedding import embed
        from greensv.speaker.scoring.bootstrap import bootstrap, protocol_speakers
        from greensv.speaker.scoring.metrics import verify_scores
        from greensv.speaker.scoring.pairs import score_protocol_pairs

        audio, precision = self.audio[protocol.utterances], resolve_precision("auto", self.device)
        where = {"features": self.features, "device": self.device, "precision": precision}
        scores = score_protocol_pairs(embed(network, protocol.utterances, audio, **where), protocol)
        found = verify_scores(scores, protocol.pairs.is_target)
        speakers = protocol_speakers(protocol)
        low, high = bootstrap(scores, protocol.pairs.is_target, speakers, num_resamples=NUM_RESAMPLES).eer
        values = {"eer": found.eer, "eer_low": low, "eer_high": high, "min_dcf": found.min_dcf}
        return {key: f"{value:.5f}" for key, value in values.items()}


def fewer(utterances: Any, num: int) -> Any:
    """Returns the first `num` utterances of each speaker."""
    from greensv.speaker.corpora.corpus import select

    first = [np.flatnonzero(utterances.speakers == speaker)[:num] for speaker in range(utterances.num_speakers)]
    return select(utterances, np.sort(np.concatenate(first)))


def train_all(data: Path, path: Path) -> None:
    """Trains all that the table lacks. Any first part of the design is as well spread as the whole."""
    rows = read_rows(path) if path.exists() else []
    finished = {(row["architecture"], row["seed"]) for row in rows if int(row["rung"]) == NUM_RUNGS - 1}
    kept = [row for row in rows if (row["architecture"], row["seed"]) in finished]
    if len(kept) < len(rows):  # a training was interrupted between two rungs: it begins anew
        write_rows(path, kept)
    bench, architectures = Bench(data), design()
    train = bench.train_utterances
    print(f"{len(train):,} utterances of {train.num_speakers} speakers; {len(bench.dev.pairs):,} pairs", flush=True)
    for architecture, seed in itertools.product(architectures, range(NUM_SEEDS)):
        if (str(architecture.number), str(seed)) in finished:
            continue
        began_s = time.monotonic()
        for row in bench.train(architecture, seed):
            _append(path, row)
            words = f"{architecture.number} {row['blocks']} × {row['stage_channels']} seed {seed} step {row['step']}"
            print(f"{words}: EER {100 * float(row['eer']):.2f} %, {row['energy_j']} J", flush=True)
        print(f"  {time.monotonic() - began_s:.0f} s, test EER {100 * float(row['test_eer']):.2f} %", flush=True)


def _append(path: Path, row: Mapping[str, Any]) -> None:
    is_new = not path.exists() or path.stat().st_size == 0
    with path.open("a", newline="") as file:
        writer = csv.DictWriter(file, list(row), lineterminator="\n")
        if is_new:
            writer.writeheader()
        writer.writerow(row)


def read_rows(path: Path) -> list[dict[str, str]]:
    """Returns the table, one row per rung of each training."""
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def write_rows(path: Path, rows: Sequence[Mapping[str, str]]) -> None:
    """Writes a table anew."""
    path.write_text("")
    for row in rows:
        _append(path, row)


def finished_rows(rows: Sequence[Mapping[str, str]]) -> list[Mapping[str, str]]:
    """Returns the rows of the architectures that all seeds have finished."""
    count = Counter(row["architecture"] for row in rows)
    return [row for row in rows if count[row["architecture"]] == NUM_SEEDS * NUM_RUNGS]


def publish(table: Path, found: str) -> None:
    """Puts a table and what it says where greensv and its documentation have them."""
    shutil.copyfile(table, TABLE)
    shutil.copyfile(table, SHIPPED)
    page = TABLE.with_suffix(".md")
    before, rest = page.read_text().split(MARKS[0])
    _, after = rest.split(MARKS[1])
    page.write_text(before + MARKS[0] + found + MARKS[1] + after)


if __name__ == "__main__":
    main()
