"""What the commands that use a saved network share: loading it, and showing how far the work is."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import click

from greensv.cli.console import installed_plugins
from greensv.errors import ConfigError

if TYPE_CHECKING:
    from torch import nn

    from greensv.speaker.checkpoint import CheckpointInfo
    from greensv.speaker.dataset import Progress

DEVICES = click.Choice(["auto", "cpu", "cuda"])


def load_network(ctx: click.Context, path: Path) -> tuple["CheckpointInfo", "nn.Module"]:
    """Returns what a checkpoint is and its network, on the CPU, in evaluation mode.

    Raises:
        CheckpointError: it is not there, damaged, or of another version of its backbone.
        PluginError: its backbone is not installed.
    """
    from greensv.speaker.checkpoint import build_network, read_checkpoint

    info, state = read_checkpoint(path)
    return info, build_network(installed_plugins(ctx).get("backbone", info.backbone), info, state)


def check_writable(path: Path, *, what: str) -> None:
    """Looks whether a file can be written, before the work begins and not after it.

    Raises:
        ConfigError: `path` is a folder, or its folder is missing or not writable.
    """
    if path.is_dir():
        raise ConfigError(f"{what} cannot be written to {path}: it is a folder; name a file")
    if not path.parent.is_dir() or not os.access(path.parent, os.W_OK):
        raise ConfigError(f"{what} cannot be written to {path}: the folder {path.parent} is missing or not writable")


@contextmanager
def progress_bars() -> Iterator["Progress"]:
    """Yields a callback that shows a bar per kind of work on standard error, where that is a terminal."""
    from rich.console import Console
    from rich.progress import Progress, TaskID

    task_of: dict[str, TaskID] = {}
    screen = Console(stderr=True)
    with Progress(console=screen, transient=True, disable=not screen.is_terminal) as bars:

        def show(what: str, done: int, total: int) -> None:
            if what not in task_of:
                task_of[what] = bars.add_task(what, total=total)
            bars.update(task_of[what], completed=done, total=total)

        yield show
