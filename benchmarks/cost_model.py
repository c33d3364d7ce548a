"""How well the energy of a training is predicted before it runs.

    OMP_NUM_THREADS=1 uv run python benchmarks/cost_model.py [--seed 1] [--keep FILE.json] [--from FILE.json]

Prints two tables in Markdown.

Table 1 of the paper: the energies of its 15 systems, each predicted from the other 14 and from the work that greensv
counts. Nothing is measured.

Measured here: 32 random narrow networks of four backbones, trained for 3 epochs of 8 steps on synthetic audio by
greensv's own training loop, each step metered by `estimate` set to count nothing but CPU time (3.5 W of a busy core),
so that what else the machine does moves it little. Predicted is the energy of the whole training; the ways:

- FLOPs alone: in proportion to MACs, the scale from the networks of the fewest and the most MACs;
- the prior: MACs, kept activations and layers, its scale from probes of the same two;
- the cost model after so many others were measured, drawn 40 times;
- the network's own probe, as `greensv predict --probe` and a search make one: the median of 4 steps after 5;
- carbontracker's way: what the first epoch used, times the epochs.

The CPU's prior was fitted to `--seed 0`, so that is not the seed to judge it by.
"""

import argparse
import itertools
import json
import sys
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

NUM_NETWORKS = 32
NUM_EPOCHS, STEPS_PER_EPOCH = 3, 8
BATCH_SIZE, CROP_S = 16, 1.0
WARMUP_STEPS, PROBE_STEPS = 5, 4
BUSY_W = 3.5
SPACES: dict[str, dict[str, Any]] = {
    "resnet": {"depth": [4, 8], "width_log2": [-4.0, -2.0], "channels": "classic"},
    "wespeaker-resnet": {
        **{f"blocks_{stage}": [1, 2] for stage in (1, 2, 3, 4)},
        **{f"channels_{stage}": [8, 24] for stage in (1, 2, 3, 4)},
    },
    "ecapa-tdnn": {"channels": [32, 192], "aggregated": [64, 512]},
    "x-vector": {"channels": [32, 512], "pooled": [64, 1024]},
}
TABLE_1_KWH = {
    "ResNet-419-D": 895.67,
    "ResNet-200-D": 222.53,
    "ResNet-101-D": 135.27,
    "ResNet-50-D": 51.69,
    "ResNet-34-D": 46.2,
    "ResNet-18-D": 63.05,
    "ResNet-50-D[8,2,2,2]": 76.67,
    "ResNet-50-D[2,8,2,2]": 52.06,
    "ResNet-50-D[2,2,8,2]": 49.33,
    "ResNet-50-D[2,2,2,8]": 47.0,
    "ResNet-50-D[2,6,6,2]": 53.82,
    "ResNet-50-W4": 438.46,
    "ResNet-50-W2": 120.76,
    "ResNet-50-W0.5": 40.05,
    "ResNet-50-W0.25": 34.35,
}
NUM_DRAWS = 40
METER = {"num_cpus": 1, "min_w_per_cpu": 0.0, "max_w_per_cpu": BUSY_W, "kinds": ["cpu"]}


@dataclass(frozen=True, slots=True, kw_only=True)
class Trained:
    """A training: the work of its network, and its running joules and seconds after each step, from 0."""

    backbone: str
    params: dict[str, Any]
    macs: float
    activations: float
    num_layers: int
    joules: list[float]
    seconds: list[float]


def measure(seed: int, keep: Path | None) -> list[Trained]:
    """Trains random networks, and keeps what was measured after each."""
    import tempfile

    import torch

    import greensv.energy
    from greensv.plugins import load_plugins
    from greensv.search.candidate import build_space

    torch.set_num_threads(1)
    plugins = load_plugins(third_party=False)
    space = build_space(SPACES, plugins)
    random = np.random.default_rng(seed)
    drawn = [space.draw(random) for _ in range(NUM_NETWORKS)]
    with (
        tempfile.TemporaryDirectory() as folder,
        greensv.energy.monitor("estimate", options={"estimate": METER}) as monitor,
    ):
        utterances = voices(Path(folder), random)
        found = []
        for candidate in drawn:
            found.append(train(space, candidate, utterances, monitor))
            last = found[-1]
            if keep is not None:
                keep.write_text(json.dumps([asdict(item) for item in found]))
            print(f"{last.backbone}: {last.macs / 1e6:.0f} MMAC/s {last.joules[-1]:.1f} J", file=sys.stderr)
    return found


def train(space: Any, candidate: Any, utterances: Any, monitor: Any) -> Trained:
    """Trains one network and meters each step."""
    import torch

    from greensv.config import FeatureConfig, Phase, Recipe
    from greensv.speaker.audio.store import AudioStore
    from greensv.speaker.complexity import describe_network
    from greensv.speaker.training.loop import Training

    features, backbone = FeatureConfig(), space.backbones[candidate.backbone]
    counted = describe_network(lambda: backbone.build(candidate.params, features=features), features=features)
    torch.manual_seed(0)
    recipe = Recipe(batch_size=BATCH_SIZE, precision="fp32", phases=(Phase(num_epochs=NUM_EPOCHS, crop_s=CROP_S),))
    training = Training(
        network=backbone.build(candidate.params, features=features),
        utterances=utterances,
        audio=AudioStore(utterances),
        recipe=recipe,
        phases=recipe.phases,
        features=features,
        seed=0,
        device=torch.device("cpu"),
    )
    joules, seconds = [], []

    def look(_: object = None) -> None:
        joules.append(sum(reading.energy_j for reading in monitor.totals(fresh=True)))
        seconds.append(time.monotonic())

    look()
    training.run(on_step=look)
    duration_s = counted.num_frames * features.frame_shift_ms / 1e3
    return Trained(
        backbone=candidate.backbone,
        params=dict(candidate.params),
        macs=counted.macs / duration_s,
        activations=counted.kept_values / duration_s,
        num_layers=counted.num_layers,
        joules=[value - joules[0] for value in joules],
        seconds=[value - seconds[0] for value in seconds],
    )


def voices(folder: Path, random: np.random.Generator) -> Any:
    """Writes noise as utterances of the crop's length, and returns an epoch of them."""
    import soundfile

    from greensv.speaker.corpora.corpus import build_utterances

    num = BATCH_SIZE * STEPS_PER_EPOCH
    paths = [str(folder / f"{number}.wav") for number in range(num)]
    num_samples = round(CROP_S * 16_000)
    for path in paths:
        soundfile.write(path, random.normal(0, 0.1, num_samples), 16_000)
    return build_utterances(
        ids=paths,
        paths=paths,
        speaker_of=[str(number % 20) for number in range(num)],
        num_samples=np.full(num, num_samples),
    )


def table_1() -> None:
    """Predicts each system of Table 1 from the others."""
    from greensv.plugins import load_plugins
    from greensv.search.cost.work import parts_of
    from greensv.search.workbench import network_work

    backbone: Any = load_plugins(third_party=False).get("backbone", "resnet")
    features, systems = backbone.published_features, backbone.systems()
    works = [network_work(backbone, systems[name], features=features).per_second for name in TABLE_1_KWH]
    parts, energies = parts_of(works), np.array(list(TABLE_1_KWH.values()))
    everyone = np.arange(len(energies))
    forms = {
        "FLOPs alone": [0],
        "FLOPs and a constant": [0, 3],
        "FLOPs and activations": [0, 1],
        "FLOPs, activations, layers (the prior's form)": [0, 1, 2],
    }
    print("| Table 1, each from the other 14 | median error | 90th percentile | largest |")
    print("| --- | ---: | ---: | ---: |")
    for words, columns in forms.items():
        found = []
        for left_out in everyone:
            others = everyone != left_out
            weights = fit_positive(parts[others][:, columns], energies[others])
            found.append(parts[left_out, columns] @ weights)
        print(f"| {words} | {errors(np.array(found) / energies - 1)} |")


def fit_positive(parts: np.ndarray, energies: np.ndarray) -> np.ndarray:
    """Returns the weights >= 0 of the least squares on the relative error: the best of all subsets of the columns."""
    rows, best, least = parts / energies[:, None], np.zeros(parts.shape[1]), np.inf
    for size in range(1, parts.shape[1] + 1):
        for subset in itertools.combinations(range(parts.shape[1]), size):
            weights = np.linalg.lstsq(rows[:, subset], np.ones(len(energies)), rcond=None)[0]
            loss = float(np.sum((rows[:, subset] @ weights - 1) ** 2))
            if weights.min() >= 0 and loss < least:
                best, least = np.zeros(parts.shape[1]), loss
                best[list(subset)] = weights
    return best


def measured_here(trained: list[Trained]) -> None:
    """Predicts the trainings that were measured, in each way."""
    from greensv.search.cost import CostModel, Measured, Work

    steps = np.array([np.diff(item.joules) for item in trained])
    energies = steps.sum(axis=1)
    macs = np.array([item.macs for item in trained])
    works = [Work(macs=item.macs, activations=item.activations, num_layers=item.num_layers) for item in trained]
    probes = np.median(steps[:, WARMUP_STEPS : WARMUP_STEPS + PROBE_STEPS], axis=1) * steps.shape[1]

    def learned(known: Any, values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Returns the errors of those that are not known, and whether each lies inside its interval."""
        model = CostModel([Measured(work=works[i], joules=values[i], seconds=1.0) for i in known])
        others = np.setdiff1d(np.arange(len(works)), known)
        found = model.predict_many([works[i] for i in others], speech_s=[1.0] * len(others))
        inside = [low <= energies[i] <= high for i, (low, high) in zip(others, map(interval_of, found), strict=True)]
        return np.array([p.energy_j for p in found]) / energies[others] - 1, np.array(inside)

    ends = [int(np.argmin(macs)), int(np.argmax(macs))]
    rest = np.setdiff1d(np.arange(len(works)), ends)
    scale = np.exp(np.mean(np.log(energies[ends] / macs[ends])))
    print(f"\n| {len(trained)} networks measured here | median error | 90th percentile | largest | inside 95 % |")
    print("| --- | ---: | ---: | ---: | ---: |")
    print(f"| FLOPs alone | {errors((scale * macs / energies - 1)[rest])} | |")
    found, inside = learned(ends, probes)
    print(f"| the prior, scaled by 2 probes | {errors(found)} | {inside.mean():.0%} |")
    random = np.random.default_rng(0)
    for num_known in (4, 8, 16, len(works) - 1):
        draws = [learned(random.permutation(len(works))[:num_known], energies) for _ in range(NUM_DRAWS)]
        if num_known == len(works) - 1:
            draws = [learned(np.delete(np.arange(len(works)), i), energies) for i in range(len(works))]
        found, inside = (np.concatenate(values) for values in zip(*draws, strict=True))
        medians = [float(np.median(np.abs(values))) for values, _ in draws]
        spread = f" (draws: {min(medians):.1%} to {max(medians):.1%})" if num_known < len(works) - 1 else ""
        print(f"| the cost model after {num_known} others{spread} | {errors(found)} | {inside.mean():.0%} |")
    print(f"| its own probe | {errors(probes / energies - 1)} | |")
    first = steps[:, :STEPS_PER_EPOCH].sum(axis=1) * NUM_EPOCHS
    print(f"| carbontracker's way: first epoch × epochs | {errors(first / energies - 1)} | |")
    share = (WARMUP_STEPS + PROBE_STEPS) / steps.shape[1], STEPS_PER_EPOCH / steps.shape[1]
    print(f"\nA probe costs {share[0]:.0%} of so short a training, the first epoch {share[1]:.0%}.")
    low, middle, high = np.quantile(energies, [0, 0.5, 1])
    print(f"Energies of {low:.2g} to {high:.3g} J, median {middle:.2g} J.")


def interval_of(prediction: Any) -> tuple[float, float]:
    """Returns the 95 % interval."""
    low, high = prediction.energy_interval_j
    return low, high


def errors(relative: np.ndarray) -> str:
    """Returns three columns: median, 90th percentile and maximum of the absolute errors."""
    found = np.abs(relative)
    return f"{np.median(found):.1%} | {np.quantile(found, 0.9):.0%} | {found.max():.0%}"


def main() -> None:
    """Measures, or reads what was measured, and prints the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--keep", type=Path)
    parser.add_argument("--from", dest="source", type=Path)
    parser.add_argument("--seed", type=int, default=1)
    args = parser.parse_args()
    table_1()
    if args.source is None:
        trained = measure(args.seed, args.keep)
    else:
        trained = [Trained(**item) for item in json.loads(args.source.read_text())]
    measured_here(trained)
    from watched import machine

    print(f"{machine()}")


if __name__ == "__main__":
    main()
