"""AS-norm of a million pairs against a cohort of 6,000 speakers: time and memory.

    uv run python benchmarks/as_norm.py

Draws embeddings of 256 values for 150,000 utterances (VoxCeleb1's number) and the cohort, scores the pairs with AS-norm
(top 300), and prints the time of each part and the most memory held beyond the embeddings and the pairs; each run is a
process of its own. The same in plain numpy on some pairs says that the values are right.
"""

import argparse
import json
import statistics
import sys
import time
from pathlib import Path

import numpy as np
from watched import machine, watch

from greensv.speaker.dataset import Pairs
from greensv.speaker.scoring.normalisation import cohort_statistics, normalise_scores
from greensv.speaker.scoring.pairs import score_pairs

TOP_N = 300
NUM_PLAIN = 200


def main() -> None:
    """Measures some processes and prints a table, or is one of them."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--num-pairs", type=int, default=1_000_000)
    parser.add_argument("--num-utterances", type=int, default=150_000)
    parser.add_argument("--num-speakers", type=int, default=6_000)
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--worker", action="store_true")
    arguments = parser.parse_args()
    if arguments.worker:
        work(arguments)
        return
    runs = [measure(sys.argv[1:]) for _ in range(arguments.runs)]
    print(f"{machine()}, numpy {np.__version__}; median of {arguments.runs} runs\n")
    print(
        f"{arguments.num_pairs:,} pairs of {arguments.num_utterances:,} utterances, {arguments.num_speakers:,} speakers"
    )
    print("\n| part | seconds (range) |\n| --- | ---: |")
    for number, name in enumerate(("cosines", "cohort statistics", "normalised scores")):
        times = [run[0][number] for run in runs]
        print(f"| {name} | {statistics.median(times):.2f} ({min(times):.2f} to {max(times):.2f}) |")
    print(f"\nMemory beyond embeddings and pairs: {max(run[1] for run in runs):,.0f} MB")
    print(f"Largest difference from plain numpy: {max(run[2] for run in runs):.1e}")


def measure(options: list[str]) -> tuple[list[float], float, float]:
    """Returns the seconds of the parts, megabytes and the largest difference of one run."""
    (times, difference), peak_mb = watch([sys.executable, str(Path(__file__)), "--worker", *options])
    return times, peak_mb, difference


def work(arguments: argparse.Namespace) -> None:
    """Draws, says that it is ready, scores, compares, and prints seconds and difference."""
    rng = np.random.default_rng(0)
    embeddings = rng.standard_normal((arguments.num_utterances, 256), dtype=np.float32)
    cohort = rng.standard_normal((arguments.num_speakers, 256), dtype=np.float32)
    sides = rng.integers(0, arguments.num_utterances, size=(2, arguments.num_pairs), dtype=np.int32)
    pairs = Pairs(enrolment=sides[0], test=sides[1], is_target=np.zeros(arguments.num_pairs, dtype=np.bool_))
    print("ready", flush=True)
    moments = [time.perf_counter()]
    cosines = score_pairs(embeddings, pairs)
    moments.append(time.perf_counter())
    statistics_of = cohort_statistics(embeddings, cohort, used=sides.ravel(), top_n=TOP_N)
    moments.append(time.perf_counter())
    scores = normalise_scores(cosines, pairs, enrolment=statistics_of, test=statistics_of)
    moments.append(time.perf_counter())
    differences = [
        abs(plain(embeddings, cohort, *pair) - score) for pair, score in zip(sides.T[:NUM_PLAIN], scores, strict=False)
    ]
    print(json.dumps([np.diff(moments).tolist(), float(max(differences))]), flush=True)


def plain(embeddings: np.ndarray, cohort: np.ndarray, enrolment: int, test: int) -> float:
    """Returns the AS-normed cosine of one pair, as the formula says, in float64."""
    a, b = (embeddings[side].astype(np.float64) / np.linalg.norm(embeddings[side]) for side in (enrolment, test))
    others = cohort / np.linalg.norm(cohort, axis=1, keepdims=True)
    nearest = [np.sort(others @ side)[-TOP_N:] for side in (a, b)]
    return float(np.mean([(a @ b - scores.mean()) / scores.std() for scores in nearest]))


if __name__ == "__main__":
    main()
