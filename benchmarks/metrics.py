"""EER, minDCF and DET curve of ten million scores: time and memory, beside scikit-learn's roc_curve and SpeechBrain.

    uv run python benchmarks/metrics.py
    uv run python benchmarks/metrics.py --speechbrain-python VENV/bin/python

Half of the scores are targets; all have five decimals, as score files have, so that many are equal. Each measurement is
a process of its own, the tools in turn, `--runs` times; the memory is what the process holds at the most while it
computes (looked at every 2 ms) beyond what it held with the scores read. SpeechBrain compares each threshold with each
score and is given fewer scores; without `--speechbrain-python` it is left out. Prints a Markdown report.
"""

import argparse
import json
import platform
import statistics
import sys
import time
from pathlib import Path

import numpy as np
from watched import machine, watch


def main() -> None:
    """Measures each tool in turn and prints a table, or is one of the measurements."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--num-scores", type=int, default=10_000_000)
    parser.add_argument("--num-speechbrain", type=int, default=10_000)
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--speechbrain-python", default="")
    parser.add_argument("--worker", choices=sorted(WORK))
    arguments = parser.parse_args()
    if arguments.worker:
        work(arguments.worker, arguments.num_scores)
        return
    tools = dict.fromkeys(("greensv", "greensv, all measures", "roc_curve"), (sys.executable, arguments.num_scores))
    if arguments.speechbrain_python:
        tools["SpeechBrain"] = (arguments.speechbrain_python, arguments.num_speechbrain)
    found: dict[str, list[tuple[float, float]]] = {name: [] for name in tools}
    results = {}
    for _ in range(arguments.runs):
        for name, (python, num_scores) in tools.items():
            seconds, peak_mb, results[name] = measure(python, name, num_scores)
            found[name].append((seconds, peak_mb))
    print(f"{machine()}, Python {platform.python_version()}, numpy {np.__version__}; median of {arguments.runs} runs\n")
    print("| tool | scores | seconds (range) | memory beyond the scores | EER | minDCF (0.01) |")
    print("| --- | ---: | ---: | ---: | ---: | ---: |")
    for name, (_, num_scores) in tools.items():
        times, peaks = zip(*found[name], strict=True)
        spread = f"{statistics.median(times):.2f} ({min(times):.2f} to {max(times):.2f})"
        eer, min_dcf = results[name]
        print(f"| {name} | {num_scores:,} | {spread} | {max(peaks):,.0f} MB | {eer:.6f} | {min_dcf:.6f} |")


def measure(python: str, name: str, num_scores: int) -> tuple[float, float, tuple[float, float]]:
    """Returns seconds, megabytes beyond the scores and the results of one tool in a process of its own."""
    command = [python, str(Path(__file__)), "--worker", name, "--num-scores", str(num_scores)]
    (seconds, eer, min_dcf), peak_mb = watch(command)
    return seconds, peak_mb, (eer, min_dcf)


def work(name: str, num_scores: int) -> None:
    """Draws scores, says that it is ready, computes, and prints seconds and results."""
    rng = np.random.default_rng(0)
    is_target = rng.random(num_scores) < 0.5
    scores = rng.normal(size=num_scores).astype(np.float32)
    scores += np.where(is_target, np.float32(2), np.float32(-2))
    scores = scores.round(5)
    compute = WORK[name](scores, is_target)
    time.sleep(0.1)
    print("ready", flush=True)
    began_s = time.perf_counter()
    eer, min_dcf = compute()
    print(json.dumps([time.perf_counter() - began_s, eer, min_dcf]), flush=True)


def with_greensv(scores, is_target):
    """EER, minDCF and DET curve."""
    from greensv.speaker.scoring.det import det_curve
    from greensv.speaker.scoring.sorted_scores import equal_error, min_cost, sort_scores

    def compute():
        ordered = sort_scores(scores, is_target)
        curve = det_curve(ordered)
        assert len(curve) > 100
        return equal_error(ordered)[0], min_cost(ordered, miss_cost=0.01, false_accept_cost=0.99) / 0.01

    return compute


def with_all_of_greensv(scores, is_target):
    """The same, and actDCF, Cllr and minCllr."""
    from greensv.speaker.scoring.det import det_curve
    from greensv.speaker.scoring.metrics import measure_scores
    from greensv.speaker.scoring.sorted_scores import sort_scores

    def compute():
        ordered = sort_scores(scores, is_target)
        det_curve(ordered)
        found = measure_scores(ordered)
        return found.eer, found.costs[0].min_dcf

    return compute


def with_roc_curve(scores, is_target):
    """As Kiwano does: the nearest point of scikit-learn's ROC."""
    from sklearn.metrics import roc_curve

    def compute():
        false_accept, accept, _ = roc_curve(is_target, scores)
        miss = 1 - accept
        nearest = np.argmin(np.abs(miss - false_accept))
        return float((miss[nearest] + false_accept[nearest]) / 2), float(
            (0.01 * miss + 0.99 * false_accept).min() / 0.01
        )

    return compute


def with_speechbrain(scores, is_target):
    """SpeechBrain's EER and minDCF; the latter is not normalised there."""
    import torch
    from speechbrain.utils.metric_stats import EER, minDCF

    positive, negative = torch.from_numpy(scores[is_target]), torch.from_numpy(scores[~is_target])

    def compute():
        return float(EER(positive, negative)[0]), float(minDCF(positive, negative, p_target=0.01)[0]) / 0.01

    return compute


WORK = {
    "greensv": with_greensv,
    "greensv, all measures": with_all_of_greensv,
    "roc_curve": with_roc_curve,
    "SpeechBrain": with_speechbrain,
}

if __name__ == "__main__":
    main()
