"""Trainings as runs, and those of the same network under the same conditions as repetitions: mean and deviation."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import mean, stdev
from typing import Any, Literal

from greensv.report.tables import network_name
from greensv.trial_record import TrialRecord

Metric = Literal["eer", "energy_kwh"]
METRICS: tuple[Metric, ...] = ("eer", "energy_kwh")


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
    groups = grouped(runs)
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


def line_names(lines: Sequence[Repeated]) -> list[str]:
    """Returns what tells the lines apart: the network, and the conditions where those differ."""
    differ = len({line.conditions for line in lines}) > 1
    return [_label(line.system, line.conditions if differ else "") for line in lines]


def grouped(runs: Sequence[Run]) -> dict[str, list[Run]]:
    """Returns the runs by network and conditions; these are named where they differ."""
    differ = len({run.conditions for run in runs}) > 1
    groups: dict[str, list[Run]] = {}
    for run in runs:
        groups.setdefault(_label(run.system, run.conditions if differ else ""), []).append(run)
    return groups


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
    measured_by = [result.get("meters", {}), *result.get("earlier_meters", ())]  # of parts that were interrupted
    meters = {f"{words} for {domain.partition(':')[0]}" for part in measured_by for domain, words in part.items()}
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
