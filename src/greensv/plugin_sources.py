"""Where plugins come from: greensv's own modules, and the entry points of installed distributions."""

import functools
import importlib
import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from greensv import __version__
from greensv.errors import did_you_mean

if TYPE_CHECKING:
    from importlib.metadata import Distribution, EntryPoint

ENTRY_POINT_GROUP = "greensv"
LOAD_PLUGINS_VARIABLE = "GREENSV_LOAD_PLUGINS"
"""Environment variable: comma-separated plugin or distribution names to load; empty loads none but the built-ins."""

BUILTIN_PLUGINS = (
    "greensv.builtin.backbones.ecapa_tdnn",
    "greensv.builtin.backbones.resnet",
    "greensv.builtin.backbones.wespeaker_resnet",
    "greensv.builtin.backbones.x_vector",
    "greensv.builtin.datasets.cnceleb",
    "greensv.builtin.datasets.commonbench",
    "greensv.builtin.datasets.folder",
    "greensv.builtin.datasets.kaldi",
    "greensv.builtin.datasets.kiwano",
    "greensv.builtin.datasets.voxceleb",
    "greensv.builtin.meters.nvml",
    "greensv.builtin.meters.rapl",
    "greensv.builtin.meters.pyrapl",
    "greensv.builtin.meters.ipmi",
    "greensv.builtin.meters.prometheus",
    "greensv.builtin.meters.estimate",
    "greensv.builtin.carbon.constant",
    "greensv.builtin.carbon.electricity_maps",
    "greensv.builtin.carbon.rte",
    "greensv.builtin.carbon.static",
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Provider:
    """The plugin a component comes from: entry-point or module name, distribution and its version."""

    plugin: str
    distribution: str
    version: str

    def __str__(self) -> str:
        return f"plugin {self.plugin!r} of {self.distribution} {self.version}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Source:
    """A plugin that is yet to be imported."""

    provider: Provider
    load: Callable[[], object]


Found = tuple["EntryPoint", Provider]


@dataclass(frozen=True, slots=True, kw_only=True)
class Installed:
    """The installed plugins that are wanted, the names of the others, and what could not be read."""

    sources: tuple[Source, ...]
    left_out: tuple[str, ...]
    problems: tuple[str, ...]


def builtin_sources(folder: str = "") -> Iterator[Source]:
    """Yields greensv's own plugins, or those of one folder of `greensv.builtin`, such as `meters`."""
    prefix = f"greensv.builtin.{folder}." if folder else ""
    for name in filter(lambda name: name.startswith(prefix), BUILTIN_PLUGINS):
        provider = Provider(plugin=name, distribution="greensv", version=__version__)
        yield Source(provider=provider, load=functools.partial(importlib.import_module, name))


def given_source(name: str, module: object) -> Source:
    """Returns a plugin that is at hand already."""
    return Source(provider=Provider(plugin=name, distribution=name, version="0"), load=lambda: module)


def find_plugins(*, third_party: bool) -> Installed:
    """Looks for installed plugins, importing none. Leaves out all of them, or those the environment does not name."""
    problems: list[str] = []
    found = _entry_points(problems)
    wanted = _wanted(found, problems) if third_party else []
    return Installed(
        sources=tuple(Source(provider=provider, load=entry_point.load) for entry_point, provider in wanted),
        left_out=tuple(sorted({pair[1].plugin for pair in found if pair not in wanted})),
        problems=tuple(problems),
    )


def _entry_points(problems: list[str]) -> list[Found]:
    """Returns the installed plugins by name. One unreadable distribution does not hide the others."""
    import importlib.metadata  # slow to import, and not needed for the built-ins

    try:
        found = list(importlib.metadata.entry_points(group=ENTRY_POINT_GROUP))
    except Exception:  # noqa: BLE001 - another package's broken metadata may raise anything
        found = []
        for distribution in importlib.metadata.distributions():
            try:
                found += distribution.entry_points.select(group=ENTRY_POINT_GROUP)
            except Exception as error:  # noqa: BLE001 - as above; this is the culprit
                name, version = _identity(distribution)
                problems.append(
                    f"the entry points of {name or 'a distribution without a name'} {version} cannot be read "
                    f"({type(error).__name__}: {error}); reinstall or remove that package"
                )
    pairs = [(entry_point, _provider(entry_point)) for entry_point in found]
    return sorted(pairs, key=lambda pair: (pair[1].plugin, pair[1].distribution))


def _provider(entry_point: "EntryPoint") -> Provider:
    name, version = _identity(entry_point.dist) if entry_point.dist else ("", "unknown")
    return Provider(plugin=entry_point.name, distribution=name or entry_point.value, version=version)


def _identity(distribution: "Distribution") -> tuple[str, str]:
    """Returns name and version; half-removed packages lack the file that holds them."""
    try:
        return distribution.metadata["Name"] or "", distribution.version or "unknown"
    except Exception:  # noqa: BLE001 - broken metadata, and what it raises differs between versions of Python
        return "", "unknown"


def _wanted(found: Sequence[Found], problems: list[str]) -> Sequence[Found]:
    restriction = os.environ.get(LOAD_PLUGINS_VARIABLE)
    if restriction is None:
        return found
    wanted = {name.strip() for name in restriction.split(",") if name.strip()}
    names = {name for _, provider in found for name in (provider.plugin, provider.distribution)}
    for name in sorted(wanted - names):
        plugins = ", ".join(sorted({provider.plugin for _, provider in found})) or "none"
        problems.append(
            f"{LOAD_PLUGINS_VARIABLE} names {name!r}, which is not installed"
            f"{did_you_mean(name, names)} (installed: {plugins})"
        )
    return [pair for pair in found if wanted & {pair[1].plugin, pair[1].distribution}]
