"""Our proposals as an Optuna sampler."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.samplers import BaseSampler, RandomSampler
from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]

from greensv.search.candidate import BACKBONE_PARAMETER, Candidate, SearchSpace
from greensv.search.objectives import Constraint, Objective
from greensv.search.rungs.history import History
from greensv.search.sampling.green import propose
from greensv.search.scheduling.policy import Outlook
from greensv.speaker.space import Choice, IntRange, Parameter

if TYPE_CHECKING:
    from optuna import Study
    from optuna.trial import FrozenTrial


@dataclass(frozen=True, kw_only=True)
class Situation:
    """What a search knows when it asks for a candidate: the arguments of `propose`."""

    history: History
    outlook: Outlook
    space: SearchSpace
    objectives: Sequence[Objective]
    rung: int
    constraints: Sequence[Constraint] = ()


class GreenSampler(BaseSampler):
    """Proposes one candidate, whole, for the situation it was made in. Each trial has a sampler of its own.

    `SearchSpace.suggest` then finds the parameters of the proposed backbone, and of no other. Where there is no
    proposal (see `proposal`) it suggests at random.
    """

    def __init__(self, situation: Situation, *, seed: int) -> None:
        """Prepares; nothing is proposed before it is asked for, and a queued trial never asks."""
        self._situation = situation
        self._random = np.random.default_rng(seed)
        self._independent = RandomSampler(seed=seed)
        self._proposed: tuple[Candidate | None] | None = None

    def proposal(self) -> Candidate | None:
        """Returns what it proposes, the same each time; None when nothing new may be run or can be paid."""
        if self._proposed is None:
            s = self._situation
            # Small matrices: several threads are slower than one, and ten times so on a busy machine.
            with threadpool_limits(limits=1, user_api="blas"):
                found = propose(
                    s.history,
                    s.outlook,
                    s.space,
                    s.objectives,
                    rung=s.rung,
                    random=self._random,
                    constraints=s.constraints,
                )
            self._proposed = (found,)
        return self._proposed[0]

    def infer_relative_search_space(self, study: "Study", trial: "FrozenTrial") -> dict[str, BaseDistribution]:
        """Returns the distributions of the proposed candidate's parameters."""
        candidate = self.proposal()
        return {} if candidate is None else distributions(self._situation.space, candidate)

    def sample_relative(
        self, study: "Study", trial: "FrozenTrial", search_space: dict[str, BaseDistribution]
    ) -> dict[str, Any]:
        """Returns the proposed candidate's parameters."""
        candidate = self.proposal()
        return {} if candidate is None else dict(self._situation.space.trial_params(candidate))

    def sample_independent(
        self, study: "Study", trial: "FrozenTrial", param_name: str, param_distribution: BaseDistribution
    ) -> Any:
        """Returns a random value of a parameter that was not proposed."""
        return self._independent.sample_independent(study, trial, param_name, param_distribution)


def distributions(space: SearchSpace, candidate: Candidate) -> dict[str, BaseDistribution]:
    """Returns Optuna's distributions of a candidate's parameters, by their names in a trial."""
    parameters: list[Parameter] = list(space.spaces[candidate.backbone].values())
    if len(space.spaces) > 1:
        parameters.insert(0, Choice(options=tuple(space.spaces), default=candidate.backbone))
    names = space.trial_params(candidate)
    assert len(space.spaces) == 1 or next(iter(names)) == BACKBONE_PARAMETER
    return {name: _distribution(parameter) for name, parameter in zip(names, parameters, strict=True)}


def _distribution(parameter: Parameter) -> BaseDistribution:
    if isinstance(parameter, Choice):
        return CategoricalDistribution(parameter.options)
    if isinstance(parameter, IntRange):
        return IntDistribution(parameter.low, parameter.high, log=parameter.log)
    return FloatDistribution(parameter.low, parameter.high, step=parameter.step, log=parameter.log)
