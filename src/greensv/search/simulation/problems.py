"""The search problems that come with greensv, by name."""

from collections.abc import Callable, Mapping

from greensv.errors import ConfigError, did_you_mean
from greensv.search.simulation.problem import Problem
from greensv.search.simulation.surrogate import Table1Surrogate
from greensv.search.simulation.table import learning_curves

PROBLEMS: Mapping[str, Callable[[], Problem]] = {
    "table1": lambda: Table1Surrogate(kappa=0.1),
    "table1-k0.02": lambda: Table1Surrogate(kappa=0.02),
    "table1-k0.1": lambda: Table1Surrogate(kappa=0.1),
    "table1-k0.2": lambda: Table1Surrogate(kappa=0.2),
    "learning-curves": learning_curves,
}


def problem_named(name: str) -> Problem:
    """Returns a problem that comes with greensv.

    Raises:
        ConfigError: none has this name.
    """
    if name not in PROBLEMS:
        raise ConfigError(f"no problem named {name!r}{did_you_mean(name, PROBLEMS)} (known: {', '.join(PROBLEMS)})")
    return PROBLEMS[name]()
