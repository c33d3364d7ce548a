"""Looks whether a plugin's hooks and components are what greensv can use, and says what is wrong in words."""

import inspect
import re
from collections.abc import Callable, Mapping
from dataclasses import is_dataclass
from types import MappingProxyType
from typing import Any, Literal, get_args

import pluggy

from greensv import __version__, hookspecs
from greensv.energy.meter import Quality
from greensv.errors import did_you_mean

Kind = Literal["backbone", "dataset", "meter", "carbon source"]

HOOK_OF_KIND: Mapping[Kind, str] = MappingProxyType(
    {
        "backbone": "greensv_backbones",
        "dataset": "greensv_datasets",
        "meter": "greensv_meters",
        "carbon source": "greensv_carbon_sources",
    }
)
HOOKS: Mapping[str, Callable[..., Any]] = MappingProxyType(
    {name: hook for name, hook in vars(hookspecs).items() if name.startswith("greensv_")}
)
"""Every hook by its name."""

KEBAB_CASE = re.compile(r"[a-z0-9]+(-[a-z0-9]+)*")


def hook_problem(manager: pluggy.PluginManager, plugin: object) -> str | None:
    """Says what is wrong with the hooks that a module or object implements; None when nothing is.

    Called before pluggy registers it: pluggy ignores a misspelt hook, and tells of a wrong argument in its own terms.
    """
    if inspect.isclass(plugin):
        return f"names the class {plugin.__qualname__}; name a module, or an instance of the class"
    num_hooks = 0
    for name in dir(plugin):
        options = manager.parse_hookimpl_opts(plugin, name)
        if options is None:
            if name in HOOKS and getattr(plugin, name) is not HOOKS[name]:
                return f"has a {name} that is not marked; put `@greensv.hookspecs.hookimpl` above it"
            continue
        hook = options.get("specname") or name
        if options.get("wrapper") or options.get("hookwrapper"):
            return f"wraps the hook {hook}; wrappers are not called, so return components of its own instead"
        if hook in HOOKS:
            if problem := _argument_problem(hook, getattr(plugin, name)):
                return problem
        elif not options.get("optionalhook"):
            return f"implements an unknown hook {hook!r}{did_you_mean(hook, HOOKS)} (hooks: {', '.join(HOOKS)})"
        num_hooks += 1
    return None if num_hooks else "implements no hook; mark its functions with `@greensv.hookspecs.hookimpl`"


def _argument_problem(hook: str, function: Callable[..., Any]) -> str | None:
    given = list(inspect.signature(HOOKS[hook]).parameters)
    variable = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)
    unknown = [
        parameter.name
        for parameter in inspect.signature(function).parameters.values()
        if parameter.name not in given and parameter.default is parameter.empty and parameter.kind not in variable
    ]
    if not unknown:
        return None
    return (
        f"asks for {', '.join(unknown)} in {hook}, which greensv {__version__} does not give "
        f"(it gives: {', '.join(given) or 'nothing'}); update greensv, or take an older version of that package"
    )


def component_problem(kind: Kind, instance: Any) -> str | None:
    """Says why `instance` cannot serve as a component of this kind, and what to do; None when it can."""
    interface = interface_of(kind)
    if inspect.isclass(instance):
        return f"the class {instance.__qualname__}, not an instance; return {instance.__qualname__}()"
    label = type(instance).__qualname__
    if not isinstance(instance, interface):
        return f"a {label}, which is no {kind}; derive it from {interface.__module__}.{interface.__name__}"
    name = getattr(instance, "name", None)
    if not isinstance(name, str):
        return f"a {kind} without a name ({label}); give it a class attribute `name`"
    if not KEBAB_CASE.fullmatch(name):
        return f"a {kind} named {name!r}; use small letters, digits and single hyphens, such as 'my-{kind.split()[0]}'"
    problem = _attribute_problem(kind, instance)
    return f"the {kind} {name!r}, whose {problem}" if problem else None


def interface_of(kind: Kind) -> type:
    """Imports the interface: a program that only measures needs no numpy, which datasets do."""
    match kind:
        case "backbone":
            from greensv.speaker.backbone import Backbone

            return Backbone
        case "dataset":
            from greensv.speaker.dataset import Dataset

            return Dataset
        case "meter":
            from greensv.energy.meter import Meter

            return Meter
        case "carbon source":
            from greensv.energy.carbon import CarbonSource

            return CarbonSource


def _attribute_problem(kind: Kind, instance: Any) -> str | None:
    """Checks the class attributes that other interfaces than the name ask for."""
    if kind in ("backbone", "dataset") and (
        not isinstance(instance.version, int) or isinstance(instance.version, bool)
    ):
        return f"version should be a whole number, found {instance.version!r}"
    if kind == "dataset" and not is_dataclass(getattr(instance, "options_type", None)):
        return "options_type should be a frozen dataclass"
    if kind == "meter" and getattr(instance, "quality", None) not in get_args(Quality):
        return f"quality should be one of {', '.join(get_args(Quality))}"
    if kind in ("meter", "carbon source") and not (
        instance.options_type is None or is_dataclass(instance.options_type)
    ):
        return "options_type should be a frozen dataclass, or None"
    return None
