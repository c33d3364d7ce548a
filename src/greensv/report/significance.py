"""Paired tests between networks that were run repeatedly, corrected for their number."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import combinations
from statistics import mean

from greensv.report.runs import METRICS, Metric, Run, grouped
from greensv.report.tables import kwh

MIN_PAIRS = 3
"""Two differences have one degree of freedom: a t-test of them says next to nothing."""
LEVEL = 0.05
_METRIC_NAMES: Mapping[Metric, str] = {"eer": "EER", "energy_kwh": "energy"}


@dataclass(frozen=True, slots=True, kw_only=True)
class PairedTest:
    """Whether two networks differ, by runs that share their seed. P-values are two-sided and Holm-corrected."""

    metric: Metric
    first: str
    """The network, and in brackets the conditions where the runs' differ."""
    second: str
    num_pairs: int
    mean_difference: float | None
    """First - second; a fraction for the EER. None without a common seed."""
    p_t: float | None
    """Of the paired t-test, for differences that are normal."""
    p_wilcoxon: float | None
    """Of Wilcoxon's signed-rank test, for differences that are symmetric."""
    note: str = ""
    """Why there is no p-value, or what it cannot show."""


def paired_tests(runs: Sequence[Run]) -> list[PairedTest]:
    """Tests every two networks that were run repeatedly against each other, pairing the runs of equal seeds.

    Runs of one network with one seed are averaged first: they are no independent repetitions. Networks that ran under
    other conditions, such as on another GPU, are not tested: what differs may be that. P-values are corrected by Holm's
    method over all the pairs of a metric and test (Holm, Scandinavian Journal of Statistics 6, 1979).
    """
    groups = {system: group for system, group in grouped(runs).items() if len(group) > 1}
    return [test for metric in METRICS for test in _tests_of(metric, groups)]


def holm(p_values: Sequence[float]) -> list[float]:
    """Returns p-values corrected for being several, by Holm's step-down method; at most 1, in the order given."""
    order = sorted(range(len(p_values)), key=lambda index: p_values[index])
    corrected, largest = [0.0] * len(p_values), 0.0
    for rank, index in enumerate(order):
        largest = max(largest, min(1.0, (len(p_values) - rank) * p_values[index]))
        corrected[index] = largest
    return corrected


def verdicts(tests: Sequence[PairedTest]) -> list[str]:
    """Returns the paired tests in words, a line each."""
    return [f"{_METRIC_NAMES[test.metric]}, {test.first} - {test.second}: {_verdict(test)}" for test in tests]


def _verdict(test: PairedTest) -> str:
    if test.mean_difference is None:
        return test.note
    difference = f"{100 * test.mean_difference:+.2f} points" if test.metric == "eer" else f"{kwh(test.mean_difference)}"
    words = [f"{difference} over {test.num_pairs} common seeds"]
    if test.p_t is not None:
        words.append(f"t-test p = {test.p_t:.2g}")
    if test.p_wilcoxon is not None:
        words.append(f"Wilcoxon p = {test.p_wilcoxon:.2g}")
    return ", ".join(words) + (f" ({test.note})" if test.note else "")


def _tests_of(metric: Metric, groups: Mapping[str, Sequence[Run]]) -> list[PairedTest]:
    tests = [_test(metric, first, second, groups) for first, second in combinations(groups, 2)]
    for name in ("p_t", "p_wilcoxon"):
        known = [index for index, test in enumerate(tests) if getattr(test, name) is not None]
        for index, p in zip(known, holm([getattr(tests[index], name) for index in known]), strict=True):
            tests[index] = replace(tests[index], **{name: p})  # type: ignore[arg-type]
    return tests


def _test(metric: Metric, first: str, second: str, groups: Mapping[str, Sequence[Run]]) -> PairedTest:
    ours, theirs = (_by_seed(groups[system], metric) for system in (first, second))
    is_alike = groups[first][0].conditions == groups[second][0].conditions
    common = sorted(set(ours) & set(theirs)) if is_alike else []
    about = {"metric": metric, "first": first, "second": second, "num_pairs": len(common)}
    if not common:
        note = "no common seeds, so no paired test: run both with the same seeds"
        if not is_alike:
            note = "run under other conditions, so no paired test: run both on the same hardware with the same meters"
        return PairedTest(**about, mean_difference=None, p_t=None, p_wilcoxon=None, note=note)  # type: ignore[arg-type]
    differences = [ours[seed] - theirs[seed] for seed in common]
    p_t, p_wilcoxon, note = _p_values(differences)
    return PairedTest(
        **about,  # type: ignore[arg-type]
        mean_difference=mean(differences),
        p_t=p_t,
        p_wilcoxon=p_wilcoxon,
        note=note,
    )


def _by_seed(runs: Sequence[Run], metric: Metric) -> dict[int, float]:
    values: dict[int, list[float]] = {}
    for run in runs:
        if run.seed is not None:
            values.setdefault(run.seed, []).append(getattr(run, metric))
    return {seed: mean(found) for seed, found in values.items()}


def _p_values(differences: Sequence[float]) -> tuple[float | None, float | None, str]:
    from scipy.stats import ttest_1samp, wilcoxon  # type: ignore[import-untyped]

    count = len(differences)
    if count < MIN_PAIRS:
        return None, None, f"{count} pairs are too few for a test; run {MIN_PAIRS} seeds at least"
    if len(set(differences)) == 1:
        return None, None, "all differences are equal, which no test is made for"
    p_t = float(ttest_1samp(differences, 0.0).pvalue)
    p_wilcoxon = float(wilcoxon(differences, method="auto").pvalue) if any(differences) else 1.0
    lowest = 2.0 ** (1 - count)
    if lowest <= LEVEL:
        return p_t, p_wilcoxon, ""
    needed = math.ceil(1 - math.log2(LEVEL))
    return (
        p_t,
        p_wilcoxon,
        f"with {count} pairs Wilcoxon's p is {lowest:.2g} at least; {needed} seeds can go below {LEVEL}",
    )
