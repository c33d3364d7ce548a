"""The search methods that are compared: a scheduler and a sampler each, by name."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType

from greensv.config.study import DatasetConfig, SearchConfig, StudyConfig
from greensv.errors import ConfigError, did_you_mean
from greensv.search.scheduling.green import GreenPolicy
from greensv.search.scheduling.policy import Policy
from greensv.search.simulation.space import BACKBONE


@dataclass(frozen=True, slots=True, kw_only=True)
class Method:
    """A method as it is configured in study.toml."""

    name: str
    search: SearchConfig
    words: str
    make_policy: Callable[[SearchConfig], Policy] = GreenPolicy

    def config(self, *, study_name: str, seed: int) -> StudyConfig:
        """Returns the configuration of one run of it."""
        return StudyConfig(
            name=study_name,
            seed=seed,
            dataset=DatasetConfig(name="simulated"),
            backbones={BACKBONE: {}},
            search=self.search,
        )


def _whole(sampler: str, words: str) -> Method:
    # A share for repetitions would only be taken from these: they have no use for one.
    search = SearchConfig(scheduler="none", sampler=sampler, repeat_share=0.0)  # type: ignore[arg-type]
    return Method(name=sampler, search=search, words=f"{words}, whole short trainings")


def _rungs(name: str, sampler: str, words: str) -> Method:
    return Method(name=name, search=SearchConfig(scheduler="rungs", sampler=sampler), words=words)  # type: ignore[arg-type]


METHODS: Mapping[str, Method] = MappingProxyType(
    {
        method.name: method
        for method in (
            _rungs("greensv", "greensv", "greensv's defaults: rungs, and proposals by hypervolume per kWh"),
            _rungs("rungs+random", "random", "greensv's rungs, random proposals"),
            _rungs("rungs+tpe", "tpe", "greensv's rungs, multivariate TPE"),
            _whole("random", "random"),
            _whole("nsga2", "Optuna's NSGA-II"),
            _whole("tpe-default", "Optuna's default (TPE)"),
            _whole("tpe", "Optuna's TPE, multivariate"),
            _whole("gp", "Optuna's Gaussian process"),
        )
    }
)
DEFAULT_METHODS = ("greensv", "random", "nsga2", "tpe-default", "tpe", "gp")


def methods_named(names: Sequence[str]) -> list[Method]:
    """Returns methods by name, each once.

    Raises:
        ConfigError: none is named, or one is not known.
    """
    if not names:
        raise ConfigError(f"--methods names none; known: {', '.join(METHODS)}")
    for name in names:
        if name not in METHODS:
            raise ConfigError(f"no method named {name!r}{did_you_mean(name, METHODS)} (known: {', '.join(METHODS)})")
    return [METHODS[name] for name in dict.fromkeys(names)]
