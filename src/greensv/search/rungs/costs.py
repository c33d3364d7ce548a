"""What a real search knows of candidates before they are trained: the cost model's answers to the scheduler."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from greensv.search.candidate import Candidate
from greensv.search.cost import CostModel, Prediction, Work
from greensv.search.cost.fitting import MemoryCheck
from greensv.search.cost.log_model import LogModel
from greensv.search.objectives import Constraint, Objective
from greensv.search.plan import full_speech_s, speech_after_training_s, step_speech_s
from greensv.search.work_estimates import WorkEstimates
from greensv.search.workbench import NetworkWork, Workbench
from greensv.units import kwh_from_j

FEW = 4
"""So few candidates are counted exactly; of more, those that were not counted before are estimated."""


@dataclass(slots=True, kw_only=True)
class ModelCosts:
    """Answers for one worker on its own hardware.

    Attributes:
        bench: what trainings share.
        model: of this hardware.
        objectives: of the study, in order.
        constraints: of the study.
        unit_factor: what a kWh here is on the hardware that the study began on, by their reference units.
        memory: of this worker's device; None: nothing is refused for it.
    """

    bench: Workbench
    model: CostModel
    objectives: Sequence[Objective]
    constraints: Sequence[Constraint] = ()
    unit_factor: float = 1.0
    memory: MemoryCheck | None = None
    estimates: WorkEstimates = field(init=False)
    _scales: dict[str, LogModel] = field(default_factory=dict, init=False)

    def __post_init__(self) -> None:
        self.estimates = WorkEstimates(
            space=self.bench.space, count=lambda c: _columns(self.bench.work(c)), is_counted=self.bench.is_counted
        )

    def rung_costs(self, candidates: Sequence[Candidate], *, from_step: int, to_step: int) -> list[Prediction]:
        """Returns what training each from one step to another will use, the evaluation at its end included."""
        works = self._works(candidates)
        train_s = (to_step - from_step) * step_speech_s(self.bench)
        speech_s = [
            train_s + speech_after_training_s(self.bench, self.model, work, is_first_rung=from_step == 0)
            for work in works
        ]
        return self.model.predict_many(works, speech_s=speech_s)

    def after_training_j(self, candidate: Candidate, *, from_step: int) -> float:
        """Returns the joules of what follows a job's training: scoring the development pairs, probing other crops."""
        (work,) = self._works([candidate])
        speech_s = speech_after_training_s(self.bench, self.model, work, is_first_rung=from_step == 0)
        return self.model.predict(work, speech_s=speech_s).energy_j

    def known_objectives(self, candidates: Sequence[Candidate]) -> NDArray[np.float64]:
        """Returns objectives that need no training, (candidates, objectives); see `Costs`."""
        columns = self.estimates.of(candidates, is_exact=len(candidates) <= FEW)
        works = [_work(column) for column in columns]
        found = np.full((len(candidates), len(self.objectives)), np.nan)
        for at, objective in enumerate(self.objectives):
            if objective.name == "train_energy":
                speech_s = [full_speech_s(self.bench)] * len(works)
                predicted = self.model.predict_many(works, speech_s=speech_s)
                found[:, at] = [self.unit_factor * kwh_from_j(p.energy_j) for p in predicted]
            elif objective.name == "params":
                found[:, at] = [column["num_parameters"] for column in columns]
            elif not objective.needs_training:
                found[:, at] = self._scaled(objective.name, works)
        return found

    def learn(self, candidate: Candidate, values: dict[str, float]) -> None:
        """Learns objectives that a trained network has shown, such as `latency`, by the objective's name."""
        (work,) = self._works([candidate])
        for name, value in values.items():
            if value > 0:
                self._scales.setdefault(name, LogModel(self.model.prior)).add(work, value)

    def refusal(self, candidate: Candidate) -> str | None:
        """Says why a candidate may not be trained: a constraint it breaks, memory it does not fit; None if it may."""
        for constraint in self.constraints:
            if constraint.objective.name == "params":
                value = float(self.bench.work(candidate).num_parameters)
                if constraint.excess(value) > 0:
                    return f"its {value:,.0f} parameters break the constraint {constraint.text}"
        return self.memory.refusal(candidate) if self.memory is not None else None

    def _works(self, candidates: Sequence[Candidate]) -> list[Work]:
        return [_work(column) for column in self.estimates.of(candidates, is_exact=len(candidates) <= FEW)]

    def _scaled(self, name: str, works: Sequence[Work]) -> NDArray[np.float64]:
        """Returns a quantity that grows with the work, as networks have shown it; NaN before any has."""
        model = self._scales.get(name)
        return np.full(len(works), np.nan) if model is None else model.predict_many(works)[0]


def _columns(work: NetworkWork) -> dict[str, float]:
    per_second = work.per_second
    return {
        "macs": per_second.macs,
        "activations": per_second.activations,
        "num_layers": float(per_second.num_layers),
        "num_parameters": float(work.num_parameters),
    }


def _work(columns: Mapping[str, float]) -> Work:
    return Work(macs=columns["macs"], activations=columns["activations"], num_layers=columns["num_layers"])
