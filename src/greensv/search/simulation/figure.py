"""Hypervolume against energy, as a figure."""

from pathlib import Path

import numpy as np

from greensv.errors import ConfigError
from greensv.search.simulation.comparison import Comparison

SUFFIXES = (".png", ".svg", ".pdf")


def check_figure_path(path: Path) -> None:
    """Refuses a file that `write_figure` could not write, before the work.

    Raises:
        ConfigError: its ending is unknown or its folder missing.
    """
    if path.suffix.lower() not in SUFFIXES:
        raise ConfigError(f"--plot writes {', '.join(SUFFIXES)}; found {path.name!r}")
    if path.is_dir() or not path.parent.is_dir():
        reason = "it is a folder" if path.is_dir() else f"the folder {path.parent} is missing"
        raise ConfigError(f"--plot cannot write {path}: {reason}")


def write_figure(path: Path, comparison: Comparison) -> None:
    """Writes each method's mean curve, its standard error shaded where there are several seeds.

    Raises:
        ConfigError: the file cannot be written.
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7, 4.5), layout="constrained")
    axes = figure.subplots()
    energy_kwh = comparison.curve_kwh
    for method in comparison.methods:
        curves = comparison.curves(method.name)
        mean = curves.mean(axis=0)
        (line,) = axes.plot(energy_kwh, mean, label=method.name)
        if len(curves) > 1:
            error = curves.std(axis=0, ddof=1) / np.sqrt(len(curves))
            axes.fill_between(energy_kwh, mean - error, mean + error, color=line.get_color(), alpha=0.2, linewidth=0)
    axes.set_xlabel("energy spent, kWh")
    axes.set_ylabel("hypervolume, fraction of the best")
    num_seeds = len(comparison.of(comparison.methods[0].name))
    axes.set_title(f"{comparison.problem}: mean of {num_seeds} seed{'s' if num_seeds > 1 else ''}")
    axes.grid(alpha=0.3)
    axes.legend(loc="lower right")
    try:
        figure.savefig(path, dpi=150)
    except OSError as error:
        raise ConfigError(f"--plot cannot write {path}: {error.strerror}") from error
