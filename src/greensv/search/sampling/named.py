"""The samplers of `search.sampler`, made anew for each trial."""

import warnings
from typing import TYPE_CHECKING

from greensv.config import StudyConfig
from greensv.search.study import derive_seed

if TYPE_CHECKING:
    from optuna.samplers import BaseSampler

    from greensv.search.sampling.optuna_sampler import Situation


def make_sampler(
    config: StudyConfig,
    *,
    trial_number: int,
    num_backbones: int,
    situation: "Situation | None" = None,
    is_full_fidelity: bool = False,
) -> "BaseSampler":
    """Returns a sampler for one trial, seeded by study and trial number: a continued search never repeats the random
    candidates of its beginning, and proposes what an uninterrupted one would have unless a trial was interrupted.

    What a sampler knows of earlier trials it reads from the study: TPE and the Gaussian process all of them, NSGA-II
    the generation that each trial carries as an attribute. So nothing is lost between two of them.

    Args:
        config: of the study.
        trial_number: that the trial will have, or is thought to have.
        num_backbones: that the study chooses among.
        situation: what `greensv` proposes from; the others do not need it.
        is_full_fidelity: short trainings were found to mislead, so each candidate is trained to the top rung; `greensv`
            then leaves proposing to multivariate TPE.
    """
    import optuna

    name, seed = config.search.sampler, derive_seed(config.seed, trial_number)
    num_startup_trials = config.search.num_startup_trials
    if name == "greensv" and not is_full_fidelity:
        from greensv.search.sampling.optuna_sampler import GreenSampler

        assert situation is not None, "greensv proposes from a situation"
        return GreenSampler(situation, seed=seed)
    if name == "random":
        return optuna.samplers.RandomSampler(seed=seed)
    if name == "nsga2":
        return optuna.samplers.NSGAIISampler(seed=seed)
    if name == "tpe-default":
        return optuna.samplers.TPESampler(seed=seed)
    if name == "gp":
        return optuna.samplers.GPSampler(seed=seed, n_startup_trials=num_startup_trials)
    with warnings.catch_warnings():
        # `group` models the parameters of each backbone apart; Optuna calls it experimental since version 2.8.
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        return optuna.samplers.TPESampler(
            multivariate=True, group=num_backbones > 1, n_startup_trials=num_startup_trials, seed=seed
        )
