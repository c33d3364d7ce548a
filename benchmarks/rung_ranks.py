"""What a table of learning curves says: how well each rung's error rates rank those of the last, in Markdown.

Called by `learning_curves.py --analyse`; any table with its columns will do.
"""

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray
from scipy.stats import rankdata

from greensv.search.simulation.table import Curves

Array = NDArray[np.float64]
NUM_RESAMPLES = 2000
BEST_SHARE = 1 / 3
"""What a rung with η = 3 promotes."""


def tables(curves: Curves) -> str:
    """Returns what the rungs show, and how well each predicts the last."""
    columns = curves.columns
    num_architectures, num_seeds, num_rungs = columns["eer"].shape
    total_j = columns["energy_j"][..., -1].sum() + columns["scoring_j"].sum()
    total_s = columns["duration_s"][..., -1].sum() + columns["scoring_s"].sum()
    lines = [
        f"{num_architectures} architectures × {num_seeds} seeds, {total_j / 3600:.2f} Wh, {total_s / 60:.0f} minutes.",
        "",
        "| rung | steps | used, of all | EER %, median (range) | between architectures | between seeds | interval |",
        "| ---: | ---: | ---: | ---: | ---: | ---: | ---: |",
    ]
    used_j = columns["energy_j"] + columns["scoring_j"].cumsum(axis=2)
    for rung in range(num_rungs):
        eer = 100 * columns["eer"][..., rung]
        share = used_j[..., rung].sum() / used_j[..., -1].sum()
        seeds_sd, architectures_sd = deviations(eer)
        half = 50 * np.median(columns["eer_high"][..., rung] - columns["eer_low"][..., rung])
        cells = f"{np.median(eer):.1f} ({eer.min():.1f} to {eer.max():.1f}) | {architectures_sd:.2f} | {seeds_sd:.2f}"
        lines.append(f"| {rung} | {curves.steps[rung]} | {share:.1%} | {cells} | ±{half:.1f} |")
    lines += [
        "",
        "| rung | steps | same training | other seed | both averaged | test pairs | best third |",
        "| ---: | ---: | ---: | ---: | ---: | ---: | ---: |",
    ]
    for rung in range(num_rungs):
        cells = " | ".join(with_interval(measure, curves, rung) for measure in MEASURES)
        lines.append(f"| {rung} | {curves.steps[rung]} | {cells} |")
    return "\n".join(lines) + "\n"


def deviations(eer: Array) -> tuple[float, float]:
    """Returns the standard deviation between seeds, and that of the architectures' true means.

    One-way analysis of variance with random effects: the variance of the observed means less what the seeds put in.
    """
    num_seeds = eer.shape[1]
    within = float(eer.var(axis=1, ddof=1).mean())
    between = float(eer.mean(axis=1).var(ddof=1)) - within / num_seeds
    return within**0.5, max(0.0, between) ** 0.5


def spearman(first: Array, second: Array) -> float:
    """Returns the rank correlation of two columns; equal values share the mean of their ranks."""
    return float(np.corrcoef(rankdata(first), rankdata(second))[0, 1])


def same_seed(curves: Curves, rung: int, chosen: NDArray[np.intp]) -> float:
    """Returns the correlation of a rung with the last one of the same training, mean over the seeds."""
    eer = curves.columns["eer"][chosen]
    return float(np.mean([spearman(eer[:, s, rung], eer[:, s, -1]) for s in range(eer.shape[1])]))


def other_seed(curves: Curves, rung: int, chosen: NDArray[np.intp]) -> float:
    """Returns the correlation of a rung with the last one of the trainings with another seed."""
    eer, seeds = curves.columns["eer"][chosen], range(curves.columns["eer"].shape[1])
    return float(np.mean([spearman(eer[:, s, rung], eer[:, t, -1]) for s in seeds for t in seeds if s != t]))


def mean_of_seeds(curves: Curves, rung: int, chosen: NDArray[np.intp]) -> float:
    """Returns the correlation of a rung with the last one, both averaged over the seeds first."""
    eer = curves.columns["eer"][chosen].mean(axis=1)
    return spearman(eer[:, rung], eer[:, -1])


def test_list(curves: Curves, rung: int, chosen: NDArray[np.intp]) -> float:
    """Returns the correlation of one training's rung with the mean test EER of its architecture at the last rung."""
    eer, test = curves.columns["eer"][chosen], curves.judged["test_eer"][chosen].mean(axis=1)
    return float(np.mean([spearman(eer[:, s, rung], test) for s in range(eer.shape[1])]))


def best_third_kept(curves: Curves, rung: int, chosen: NDArray[np.intp]) -> float:
    """Returns how many of the best third at the last rung are in the best third at this one, of the same training."""
    eer, num = curves.columns["eer"][chosen], round(BEST_SHARE * len(chosen))
    best = [[set(np.argsort(eer[:, s, r], kind="stable")[:num]) for r in (rung, -1)] for s in range(eer.shape[1])]
    return float(np.mean([len(here & last) / num for here, last in best]))


MEASURES: tuple[Callable[[Curves, int, NDArray[np.intp]], float], ...] = (
    same_seed,
    other_seed,
    mean_of_seeds,
    test_list,
    best_third_kept,
)


def with_interval(measure: Callable[[Curves, int, NDArray[np.intp]], float], curves: Curves, rung: int) -> str:
    """Returns a measure with its 95 % interval, architectures being resampled."""
    num = len(curves.numbers)
    value = measure(curves, rung, np.arange(num))
    rng = np.random.default_rng(0)
    drawn = [measure(curves, rung, rng.integers(num, size=num)) for _ in range(NUM_RESAMPLES)]
    low, high = np.quantile(drawn, [0.025, 0.975])
    return f"{value:.2f} ({low:.2f} to {high:.2f})"
