"""Finds plugins and the components they provide. A broken plugin is a reported problem, never a crash.

Built-ins are listed in `BUILTIN_PLUGINS` and pass through the same hooks and checks as everyone's.
"""

import contextlib
import inspect
import logging
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import pluggy

from greensv import __version__, hookspecs
from greensv.energy.metering.selection import AUTO, AUTO_METERS
from greensv.errors import PluginError, did_you_mean
from greensv.plugin_checks import HOOK_OF_KIND, Kind, component_problem, hook_problem
from greensv.plugin_sources import (
    BUILTIN_PLUGINS,
    ENTRY_POINT_GROUP,
    LOAD_PLUGINS_VARIABLE,
    Provider,
    Source,
    builtin_sources,
    find_plugins,
    given_source,
)

__all__ = [
    "BUILTIN_PLUGINS",
    "ENTRY_POINT_GROUP",
    "HOOK_OF_KIND",
    "LOAD_PLUGINS_VARIABLE",
    "Component",
    "Kind",
    "Plugins",
    "Provider",
    "load_plugins",
    "plugins_from",
]

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Component:
    """A backbone, dataset, meter or carbon source, and who provides it."""

    kind: Kind
    name: str
    instance: Any
    provider: Provider


@dataclass(frozen=True, slots=True, kw_only=True)
class Plugins:
    """All components by kind and name, and what went wrong while loading."""

    manager: pluggy.PluginManager
    components: Mapping[Kind, Mapping[str, Component]]
    problems: tuple[str, ...] = field(default=())
    ambiguous: Mapping[tuple[Kind, str], str] = field(default_factory=dict)
    """Names that several components of a kind claim, with the message that names the owners: none of them is used."""
    left_out: tuple[str, ...] = field(default=())
    """Installed plugins that were not loaded because the user said so."""

    def get(self, kind: Kind, name: str) -> Any:
        """Returns the component's instance.

        Raises:
            PluginError: no such component, or several; suggests the nearest name and lists the installed ones.
        """
        return self.component(kind, name).instance

    def component(self, kind: Kind, name: str) -> Component:
        """Returns the component with its provider. Raises as `get` does."""
        known = self.components[kind]
        if name not in known:
            raise PluginError(self.unknown(kind, name))
        return known[name]

    def unknown(self, kind: Kind, name: str) -> str:
        """Returns the message for a component that is not installed, or that several plugins provide."""
        if (kind, name) in self.ambiguous:
            return self.ambiguous[kind, name]
        known = self.components[kind]
        message = (
            f"no {kind} named {name!r}{did_you_mean(name, known)} (installed: {', '.join(sorted(known)) or 'none'})"
        )
        if self.left_out:
            why = f"--no-plugins or {LOAD_PLUGINS_VARIABLE}"
            message += f"; not loaded because of {why}: {', '.join(self.left_out)}"
        if self.problems:
            message += "; some plugins did not load, see `greensv plugins`"
        return message

    def all(self, kind: Kind) -> Iterator[Any]:
        """Yields the instances of one kind in order of name."""
        for name in sorted(self.components[kind]):
            yield self.components[kind][name].instance

    def notify_trial_finished(self, *, study_name: str, trial: Mapping[str, Any]) -> None:
        """Calls every plugin's `greensv_trial_finished`; what one raises is logged and does not reach the search."""
        for implementation in self.manager.hook.greensv_trial_finished.get_hookimpls():
            function = implementation.function
            given = {"study_name": study_name, "trial": dict(trial)}
            try:
                function(**{name: given[name] for name in inspect.signature(function).parameters if name in given})
            except Exception:
                logger.exception("greensv_trial_finished of %s failed", implementation.plugin_name)


def load_meters(names: Iterable[str], *, third_party: bool = True) -> Plugins:
    """Loads those of greensv's own meters that are named (`auto`: all it chooses from), or else everything.

    What only measures starts in a third of the time, without numpy, and with half the memory.
    """
    wanted = {name for one in names for name in (AUTO_METERS if one == AUTO else (one,))}
    # A meter's module has the meter's name.
    own = _load(source for source in builtin_sources("meters") if source.provider.plugin.rpartition(".")[2] in wanted)
    return own if wanted == own.components["meter"].keys() else load_plugins(third_party=third_party)


def load_plugins(*, third_party: bool = True) -> Plugins:
    """Loads the built-ins and, unless `third_party` is False, what is installed and GREENSV_LOAD_PLUGINS allows."""
    installed = find_plugins(third_party=third_party)
    return _load([*builtin_sources(), *installed.sources], problems=installed.problems, left_out=installed.left_out)


def plugins_from(modules: Mapping[str, object], *, builtins: bool = True) -> Plugins:
    """Returns the components of the given modules or objects by plugin name, for tests of plugins and of greensv.

    Problems are reported in `Plugins.problems` just as for installed plugins.
    """
    given = [given_source(name, module) for name, module in modules.items()]
    return _load([*(builtin_sources() if builtins else ()), *given])


def _load(sources: Iterable[Source], *, problems: Sequence[str] = (), left_out: Sequence[str] = ()) -> Plugins:
    manager = pluggy.PluginManager(hookspecs.PROJECT)
    manager.add_hookspecs(hookspecs)
    components: list[Component] = []
    found = list(problems)
    # Standard output belongs to the command's result, which may be read by another program.
    with contextlib.redirect_stdout(sys.stderr):
        for source in sources:
            if problem := _register(manager, source):
                found.append(f"{source.provider} {problem}")
            else:
                components += _provided(manager, source.provider, found)
    return _collect(manager, components, problems=found, left_out=left_out)


def _register(manager: pluggy.PluginManager, source: Source) -> str | None:
    """Imports and registers a plugin; returns the reason when it cannot be, and leaves the manager as it was."""
    try:
        module = source.load()
    # SystemExit: a script that is no module ends the process when it is imported.
    except (Exception, SystemExit) as error:  # noqa: BLE001 - importing a package may raise anything
        return f"cannot be imported ({type(error).__name__}: {error}); mend, update or remove that package"
    if manager.is_registered(module):
        return "names a module that another plugin has already registered; remove one of the two entry points"
    try:
        if problem := hook_problem(manager, module):
            return problem
        manager.register(module, name=str(source.provider))
    except Exception as error:  # noqa: BLE001 - looking at a strange object may raise anything
        return f"does not fit greensv {__version__} ({type(error).__name__}: {error}); update it or greensv"
    return None


def _provided(manager: pluggy.PluginManager, provider: Provider, problems: list[str]) -> Iterator[Component]:
    """Yields the usable components of one plugin."""
    for kind, hook in HOOK_OF_KIND.items():
        for implementation in getattr(manager.hook, hook).get_hookimpls():
            if implementation.plugin_name != str(provider):
                continue
            try:
                instances = implementation.function()
                if not isinstance(instances, Iterable) or isinstance(instances, str | bytes):
                    raise TypeError(f"it should return a list of {kind}s, found {instances!r}")
                for instance in instances:
                    if problem := component_problem(kind, instance):
                        problems.append(f"{provider}: {hook} returned {problem}")
                    else:
                        yield Component(kind=kind, name=instance.name, instance=instance, provider=provider)
            except Exception as error:  # noqa: BLE001 - a plugin may raise anything
                cause = f"{type(error).__name__}: {error}"
                problems.append(f"{provider}: {hook} failed ({cause}); mend or update that package")


def _collect(
    manager: pluggy.PluginManager, components: Sequence[Component], *, problems: Sequence[str], left_out: Sequence[str]
) -> Plugins:
    by_name: dict[tuple[Kind, str], list[Component]] = {}
    for component in components:
        by_name.setdefault((component.kind, component.name), []).append(component)
    unique: dict[Kind, dict[str, Component]] = {kind: {} for kind in HOOK_OF_KIND}
    ambiguous = {}
    for (kind, name), owners in by_name.items():
        if len(owners) == 1:
            unique[kind][name] = owners[0]
        else:
            ambiguous[kind, name] = _ambiguity(kind, name, [owner.provider for owner in owners])
    return Plugins(
        manager=manager,
        components=unique,
        problems=(*problems, *ambiguous.values()),
        ambiguous=ambiguous,
        left_out=tuple(left_out),
    )


def _ambiguity(kind: Kind, name: str, owners: Sequence[Provider]) -> str:
    listed = " and ".join(str(owner) for owner in owners)
    if len(set(owners)) == 1:
        return f"{owners[0]} provides {len(owners)} {kind}s named {name!r}, and none is used; rename all but one"
    return (
        f"{len(owners)} {kind}s are named {name!r}, and none is used: they come from {listed}; "
        f"uninstall one, or leave one out with --no-plugins or {LOAD_PLUGINS_VARIABLE}"
    )
