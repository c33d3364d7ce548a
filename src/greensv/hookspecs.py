"""The hooks a plugin may implement. A plugin is a module (or object) registered under the entry point group `greensv`.

A new argument may be added to a hook at any time: implementations name only the arguments they use.
"""

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

import pluggy

if TYPE_CHECKING:
    from greensv.energy.carbon import CarbonSource
    from greensv.energy.meter import Meter
    from greensv.speaker.backbone import Backbone
    from greensv.speaker.dataset import Dataset

PROJECT = "greensv"
hookspec = pluggy.HookspecMarker(PROJECT)
hookimpl = pluggy.HookimplMarker(PROJECT)
"""Marks a function of a plugin as an implementation of the hook of the same name."""


@hookspec
def greensv_backbones() -> "Iterable[Backbone]":
    """Returns the backbones this plugin provides."""
    return ()


@hookspec
def greensv_datasets() -> "Iterable[Dataset]":
    """Returns the datasets this plugin provides."""
    return ()


@hookspec
def greensv_meters() -> "Iterable[Meter]":
    """Returns the energy meters this plugin provides."""
    return ()


@hookspec
def greensv_carbon_sources() -> "Iterable[CarbonSource]":
    """Returns the carbon sources this plugin provides."""
    return ()


@hookspec
def greensv_trial_finished(study_name: str, trial: "dict[str, Any]") -> None:
    """Told after each trial, in the process that ran it. `trial` is the record `greensv trials --json` prints.

    An exception here is logged and does not stop the search.
    """
