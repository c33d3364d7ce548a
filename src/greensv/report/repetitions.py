"""Runs of the same network with the same recipe: mean and standard deviation, and paired tests between networks."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from itertools import combinations
from statistics import mean, stdev
from typing import TYPE_CHECKING, Any, Literal

from greensv.report.tables import kwh, network_name
from greensv.trial_record import TrialRecord

if TYPE_CHECKING:
    from rich.table import Table

Metric = Literal["eer", "energy_kwh"]
METRICS: tuple[Metric, ...] = ("eer", "energy_kwh")
MIN_PAIRS = 3
"""Two differences have one degree of freedom: a t-test of them says next to nothing."""
LEVEL = 0.05


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """One training of one network."""

    system: str
    """The network in words; runs with equal words and conditions are repetitions."""
    seed: int | None
    eer: float
    energy_kwh: float
    conditions: str = ""
    """What computed and measured it: `2 × NVIDIA H100, bf16, nvml (measured) for gpu`; "": as all the others."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Spread:
    """A figure over repeated runs; no standard deviation for a single one."""

    mean: float
    std: float | None

    @classmethod
    def of(cls, values: Sequence[float]) -> "Spread":
        """Returns mean and sample standard deviation (n - 1)."""
        return cls(mean=mean(values), std=stdev(values) if len(values) > 1 else None)


@dataclass(frozen=True, slots=True, kw_only=True)
class Repeated:
    """The runs of one network under the same conditions."""

    system: str
    conditions: str
    num_runs: int
    eer: Spread
    energy_kwh: Spread


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


def trial_runs(trials: Sequence[TrialRecord]) -> list[Run]:
    """Returns the completed trials of a search as runs: EER on the development pairs, energy of the full recipe."""
    return [
        Run(system=_system(t), seed=t.seed, eer=t.eer, energy_kwh=t.train_energy_kwh)
        for t in trials
        if t.state == "complete" and t.eer is not None and t.train_energy_kwh is not None
    ]


def retrained_runs(results: Sequence[Mapping[str, Any]], trials: Sequence[TrialRecord]) -> list[Run]:
    """Returns retrainings as runs: mean EER over the test protocols, charged energy.

    Args:
        results: as in each network's result.json.
        trials: of the search, for the networks' names and seeds.
    """
    by_number = {trial.number: trial for trial in trials}
    runs = []
    for result in results:
        trial = by_number.get(result["trial"])
        if trial is not None and result["protocols"]:
            eer = mean(protocol["eer"] for protocol in result["protocols"])
            seed = result.get("seed", trial.seed)
            run = Run(
                system=_system(trial),
                seed=seed,
                eer=eer,
                energy_kwh=result["charged_energy_kwh"],
                conditions=_conditions(result),
            )
            runs.append(run)
    return runs


def repeated(runs: Sequence[Run]) -> list[Repeated]:
    """Returns one line per network and its conditions, in the order of their first runs; none when none ran twice."""
    groups = _groups(runs)
    if all(len(group) < 2 for group in groups.values()):
        return []
    return [
        Repeated(
            system=group[0].system,
            conditions=group[0].conditions,
            num_runs=len(group),
            eer=Spread.of([run.eer for run in group]),
            energy_kwh=Spread.of([run.energy_kwh for run in group]),
        )
        for group in groups.values()
    ]


def paired_tests(runs: Sequence[Run]) -> list[PairedTest]:
    """Tests every two networks that were run repeatedly against each other, pairing the runs of equal seeds.

    Runs of one network with one seed are averaged first: they are no independent repetitions. Networks that ran under
    other conditions, such as on another GPU, are not tested: what differs may be that. P-values are corrected by Holm's
    method over all the pairs of a metric and test (Holm, Scandinavian Journal of Statistics 6, 1979).
    """
    groups = {system: group for system, group in _groups(runs).items() if len(group) > 1}
    return [test for metric in METRICS for test in _tests_of(metric, groups)]


def holm(p_values: Sequence[float]) -> list[float]:
    """Returns p-values corrected for being several, by Holm's step-down method; at most 1, in the order given."""
    order = sorted(range(len(p_values)), key=lambda index: p_values[index])
    corrected, largest = [0.0] * len(p_values), 0.0
    for rank, index in enumerate(order):
        largest = max(largest, min(1.0, (len(p_values) - rank) * p_values[index]))
        corrected[index] = largest
    return corrected


@dataclass(frozen=True, slots=True, kw_only=True)
class Repetitions:
    """The repeated runs of one recipe, as tables and reports show them."""

    title: str
    lines: Sequence[Repeated]
    tests: Sequence[str]


def repetitions_of(trials: Sequence[TrialRecord], retrained: Sequence[Mapping[str, Any]]) -> list[Repetitions]:
    """Returns what was run repeatedly, short trainings and full ones apart: they are of different recipes."""
    found = {
        "Trials: EER on the development pairs, energy of the full recipe": trial_runs(trials),
        "Retrained: EER on the test pairs, energy charged": retrained_runs(retrained, trials),
    }
    return [
        Repetitions(title=title, lines=lines, tests=verdicts(paired_tests(runs)))
        for title, runs in found.items()
        if (lines := repeated(runs))
    ]


def as_json(runs: Sequence[Run]) -> dict[str, Any]:
    """Returns the repeated networks and the tests between them as plain values."""
    return {
        "repeated": [asdict(line) for line in repeated(runs)],
        "paired_tests": [asdict(test) for test in paired_tests(runs)],
    }


def repeated_table(lines: Sequence[Repeated], *, title: str) -> "Table":
    """Returns one row per network: number of runs, EER and energy, each mean ± standard deviation."""
    from rich.box import SIMPLE_HEAD
    from rich.table import Table
    from rich.text import Text

    table = Table(title=title, title_justify="left", header_style="bold", box=SIMPLE_HEAD, padding=(0, 1, 0, 0))
    table.add_column("network", overflow="fold")
    for heading in ("runs", "EER %", "energy"):
        table.add_column(heading, justify="right", no_wrap=True)
    for line, name in zip(lines, line_names(lines), strict=True):
        table.add_row(Text(name), str(line.num_runs), percent_spread(line.eer), energy_spread(line.energy_kwh))
    return table


def line_names(lines: Sequence[Repeated]) -> list[str]:
    """Returns what tells the lines apart: the network, and the conditions where those differ."""
    differ = len({line.conditions for line in lines}) > 1
    return [_label(line.system, line.conditions if differ else "") for line in lines]


def verdicts(tests: Sequence[PairedTest]) -> list[str]:
    """Returns the paired tests in words, a line each."""
    return [f"{_METRIC_NAMES[test.metric]}, {test.first} - {test.second}: {_verdict(test)}" for test in tests]


def percent_spread(spread: Spread) -> str:
    """Returns a fraction as percent, mean ± standard deviation."""
    return f"{100 * spread.mean:.2f}" + ("" if spread.std is None else f" ± {100 * spread.std:.2f}")


def energy_spread(spread: Spread) -> str:
    """Returns an energy, mean ± standard deviation, the latter in percent of the mean."""
    if spread.std is None:
        return kwh(spread.mean)
    return f"{kwh(spread.mean)} ± {100 * spread.std / spread.mean:.2g} %" if spread.mean else kwh(spread.mean)


_METRIC_NAMES: Mapping[Metric, str] = {"eer": "EER", "energy_kwh": "energy"}


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


def _system(trial: TrialRecord) -> str:
    return f"{trial.backbone} {network_name(trial)}".strip() + _rest_of(trial)


def _rest_of(trial: TrialRecord) -> str:
    """Tells networks apart whose short names are equal, since those leave parameters out."""
    blocks, channels = trial.summary.get("blocks"), trial.summary.get("channels")
    known = {"block", "depth", "width_log2", "channels"} | {name for name in trial.params if name.startswith("share_")}
    others = {} if not (blocks and channels) else {k: v for k, v in trial.params.items() if k not in known}
    return "".join(f" {name}={value}" for name, value in sorted(others.items()))


def _conditions(result: Mapping[str, Any]) -> str:
    """Returns on what a retraining ran, and what measured it; "" where the result of an older greensv tells nothing.

    A device's own number is left out: two GPUs of one model are alike.
    """
    meters = {f"{words} for {domain.partition(':')[0]}" for domain, words in result.get("meters", {}).items()}
    count = result.get("num_processes", 1)
    words = [
        result.get("device", ""),
        result.get("precision", ""),
        f"{count} processes" if count > 1 else "",
        *sorted(meters),
    ]
    return ", ".join(word for word in words if word)


def _label(system: str, conditions: str) -> str:
    return f"{system} [{conditions}]" if conditions else system


def _groups(runs: Sequence[Run]) -> dict[str, list[Run]]:
    """Returns the runs by network and conditions; these are named where they differ."""
    differ = len({run.conditions for run in runs}) > 1
    groups: dict[str, list[Run]] = {}
    for run in runs:
        groups.setdefault(_label(run.system, run.conditions if differ else ""), []).append(run)
    return groups


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
