"""A study's configuration, checked against what is installed: all mistakes at once, before anything runs."""

import re
from collections.abc import Mapping, Sequence
from typing import Any

from greensv.config import Augmentation, StudyConfig
from greensv.config.load import Problem, parse_study, validate
from greensv.config.study import SearchConfig
from greensv.energy.carbon import configured_source, option_problems
from greensv.errors import ConfigError
from greensv.plugins import Plugins
from greensv.search.candidate import space_problems
from greensv.search.objectives import constraints_of, objectives_of
from greensv.search.workbench import dataset_problems

STUDY_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")


def configure(data: Mapping[str, Any], *, source: str, plugins: Plugins) -> StudyConfig:
    """Returns the study that `data` describes, its components and their options checked too.

    Raises:
        ConfigError: naming every mistake with its path.
    """

    def check(raw: Mapping[str, Any]) -> Sequence[Problem]:
        backbones, energy, recipe = raw.get("backbones"), raw.get("energy", {}), raw.get("recipe", {})
        problems = _name_problems(raw.get("name"))
        problems += dataset_problems(raw.get("dataset"), plugins)
        problems += space_problems(backbones, plugins) if isinstance(backbones, Mapping) else []
        problems += _energy_problems(energy, plugins) if isinstance(energy, Mapping) else []
        problems += _augmentation_problems(recipe.get("augmentation", {})) if isinstance(recipe, Mapping) else []
        problems += _search_problems(raw.get("search", {}))
        return problems

    return parse_study(data, source=source, checks=[check])


def _name_problems(name: object) -> list[Problem]:
    if not isinstance(name, str) or STUDY_NAME.fullmatch(name):
        return []
    what = f"a study's name is made of letters, digits, '.', '_' and '-' (it also names a folder), found {name!r}"
    return [Problem(where="name", what=what)]


def _search_problems(raw: object) -> list[Problem]:
    """Objectives and constraints that cannot be read."""
    config, mistakes = validate(SearchConfig, raw)
    if config is None or mistakes:
        return []  # told with the rest of the configuration
    problems = []
    for where, parse, texts in (
        ("search.objectives", objectives_of, config.objectives),
        ("search.constraints", constraints_of, config.constraints),
    ):
        try:
            parse(texts)
        except ConfigError as error:
            problems.append(Problem(where=where, what=str(error).removeprefix(f"{where}: ")))
    return problems


def _augmentation_problems(raw: object) -> list[Problem]:
    """Missing folders, which would otherwise be found when the budget is open and the corpus read."""
    config, mistakes = validate(Augmentation, raw)
    if config is None or mistakes:
        return []  # told with the rest of the configuration
    if config.noise_root is None and config.rir_root is None:
        return []
    from greensv.speaker.augmentation.folders import folder_problems  # with it comes torch

    return [Problem(where=f"recipe.augmentation.{key}", what=what) for key, what in folder_problems(config)]


def _energy_problems(energy: Mapping[str, Any], plugins: Plugins) -> list[Problem]:
    problems = []
    meters = energy.get("meters", ())
    meters = meters if isinstance(meters, list | tuple) else ()
    if "auto" in meters and len(meters) > 1:
        problems.append(
            Problem(where="energy.meters", what="'auto' stands alone; leave it out, or leave out the others")
        )
    for name in meters:
        if isinstance(name, str) and name != "auto" and name not in plugins.components["meter"]:
            problems.append(Problem(where="energy.meters", what=plugins.unknown("meter", name)))
    also_meters = energy.get("also_meters", ())
    for name in also_meters if isinstance(also_meters, list | tuple) else ():
        if isinstance(name, str) and name not in plugins.components["meter"]:
            problems.append(Problem(where="energy.also_meters", what=plugins.unknown("meter", name)))
    options = energy.get("options", {})
    for name, values in options.items() if isinstance(options, Mapping) else ():
        where = f"energy.options.{name}"
        if name not in plugins.components["meter"]:
            problems.append(Problem(where=where, what=plugins.unknown("meter", name)))
        elif (options_type := plugins.get("meter", name).options_type) is not None:
            problems += validate(options_type, values, where=where)[1]
        elif values:
            problems.append(Problem(where=where, what=f"meter {name!r} has no options; remove them"))
    return problems + _carbon_problems(energy, plugins)


def _carbon_problems(energy: Mapping[str, Any], plugins: Plugins) -> list[Problem]:
    """Looks at the carbon source, its options and its region, without asking the network."""
    problems, installed = [], plugins.components["carbon source"]
    name, options = energy.get("carbon_source", "static"), energy.get("carbon_options", {})
    options = options if isinstance(options, Mapping) else {}
    for other in options:
        if other not in installed:
            what = plugins.unknown("carbon source", str(other))
            problems.append(Problem(where=f"energy.carbon_options.{other}", what=what))
        elif other != name:
            problems += option_problems(plugins.get("carbon source", other), options[other])
    if not isinstance(name, str):
        return problems
    if name not in installed:
        return [*problems, Problem(where="energy.carbon_source", what=plugins.unknown("carbon source", name))]
    source = plugins.get("carbon source", name)
    if mistakes := option_problems(source, options.get(name, {})):
        return problems + mistakes
    if isinstance(region := energy.get("region", "WORLD"), str):
        try:
            configured_source(source, options).resolve_region(region)
        except ConfigError as error:
            problems.append(Problem(where="energy.region", what=str(error)))
    return problems
