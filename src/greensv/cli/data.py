"""`greensv data check`: what a dataset holds, and whether a study can run on it."""

from collections.abc import Iterable
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from greensv.cli.console import console, echo_json, installed_plugins
from greensv.cli.options import json_option
from greensv.errors import ConfigError

if TYPE_CHECKING:
    from rich.console import Console

    from greensv.speaker.audio.defects import Defect
    from greensv.speaker.corpora.data_check import DataCheck, PartCheck, ProtocolCheck


@click.group()
def data() -> None:
    """Look at the data of a study."""


@data.command()
@click.argument("study", required=False, type=click.Path(path_type=Path), metavar="[STUDY.toml]")
@click.option("--dataset", metavar="NAME", help="Dataset instead of the file's.")
@click.option("--data-root", type=click.Path(path_type=Path), metavar="DIR", help="Where the dataset lies.")
@click.option("--decode", is_flag=True, help="Decode all audio; finds truncated, silent, clipped and NaN files.")
@json_option
@click.pass_context
def check(
    ctx: click.Context,
    /,
    *,
    study: Path | None,
    dataset: str | None,
    data_root: Path | None,
    decode: bool,
    as_json: bool,
) -> int:
    """Load a dataset as a study would, count what it holds, and say what is wrong with it.

    Example: greensv data check --dataset voxceleb --data-root /data/voxceleb

    The lengths of all audio files are measured on the way and remembered: the study itself then starts in seconds. Exit
    code 0: a study can run on the dataset; 1: it cannot.
    """
    from greensv.cli.checkpoints import progress_bars
    from greensv.cli.search import study_data
    from greensv.config import Recipe
    from greensv.search.configure import configure
    from greensv.search.workbench import cache_folder, dataset_arguments
    from greensv.speaker.corpora.data_check import Checking, check_data

    if study is None and dataset is None:
        raise ConfigError("nothing to check: give a STUDY.toml, or --dataset NAME (`greensv plugins` lists them)")
    plugins = installed_plugins(ctx)
    flags = {"dataset": dataset, "data_root": data_root}
    source = str(study) if study else "the command line"
    config = configure(study_data(study, {**_NO_FLAGS, **flags}), source=source, plugins=plugins)
    recipe = config.recipe if study else Recipe()
    chosen, root, options = dataset_arguments(config, plugins)
    with progress_bars() as progress:
        checking = Checking(
            cache_dir=cache_folder() / chosen.name,
            progress=progress,
            crop_s=max(phase.crop_s for phase in recipe.phases),
            sample_rate_hz=config.features.sample_rate_hz if study else None,
            is_decoded=decode,
        )
        found = check_data(chosen, root, options, checking=checking)
    record = {
        "dataset": chosen.name,
        "root": str(root) if root else None,
        "is_usable": found.is_usable,
        "crop_s": checking.crop_s,
        **asdict(found),
        "where_to_get": chosen.where_to_get,
    }
    if as_json:
        echo_json(record)
    else:
        _print(found, checking.crop_s, name=chosen.name, where_to_get=chosen.where_to_get)
    return 0 if found.is_usable else 1


_NO_FLAGS: dict[str, Any] = {"study_name": None, "seed": None, "device": None, "backbones": (), "meters": ()}


def _print(found: "DataCheck", crop_s: float, *, name: str, where_to_get: str) -> None:
    from rich.box import SIMPLE_HEAD
    from rich.table import Table
    from rich.text import Text

    out = console()
    if found.train is not None and found.dev is not None:
        table = Table("part", title=f"Dataset {name!r}", title_justify="left", box=SIMPLE_HEAD)
        for heading in ("speakers", "utterances", "hours", "shortest\nin s", "longest\nin s", f"under\n{crop_s:g} s"):
            table.add_column(heading, justify="right")
        parts = {"training": found.train} | {protocol.name: protocol.part for protocol in (found.dev, *found.tests)}
        for part_name, part in parts.items():
            table.add_row(Text(part_name), *_part_row(part))
        out.print(table)
        out.print(_pairs_table((found.dev, *found.tests)))
        for part_name, part in parts.items():
            _print_defects(out, part_name, part)
        if not found.tests and not found.problems:
            out.print("There are no test pairs: the dataset's options name none.")
    if found.skipped:
        num = sum(defect.num_files for defect in found.skipped)
        out.print(f"{num:,} training files cannot be used and are left out:")
        _print_reasons(out, found.skipped)
    for problem in found.problems:
        out.print(f"problem: {problem}", markup=False, soft_wrap=True)
    if found.problems and where_to_get and not any(where_to_get in problem for problem in found.problems):
        out.print(f"Where to get the corpus: {where_to_get}", markup=False, soft_wrap=True)
    out.print("A study can run on it." if found.is_usable else "No study can run on it.")


def _part_row(part: "PartCheck") -> list[str]:
    return [
        f"{part.num_speakers:,}",
        f"{part.num_utterances:,}",
        f"{part.duration_s / 3600:,.2f}",
        f"{part.shortest_s:.2f}",
        f"{part.longest_s:.2f}",
        f"{part.num_shorter_than_crop:,}",
    ]


def _pairs_table(protocols: Iterable["ProtocolCheck"]) -> Any:
    from rich.box import SIMPLE_HEAD
    from rich.table import Table
    from rich.text import Text

    table = Table("pairs", box=SIMPLE_HEAD)
    for heading in ("same speaker", "different", "listed again", "contradictory", "models"):
        table.add_column(heading, justify="right")
    for protocol in protocols:
        counts = (
            protocol.num_target,
            protocol.num_nontarget,
            protocol.num_duplicates,
            protocol.num_contradictory,
            protocol.num_models,
        )
        table.add_row(Text(protocol.name), *(f"{count:,}" for count in counts))
        for condition, num_pairs in protocol.conditions.items():
            table.add_row(Text(f"  {condition}"), f"{num_pairs:,} pairs")
    return table


def _print_defects(out: "Console", name: str, part: "PartCheck") -> None:
    if len(part.sample_rates_hz) > 1:
        rates = ", ".join(f"{num:,} at {rate_hz} Hz" for rate_hz, num in part.sample_rates_hz.items())
        out.print(f"{name}: files of several sample rates: {rates}", markup=False)
    if part.num_multichannel:
        out.print(f"{name}: {part.num_multichannel:,} files have several channels; the first is used", markup=False)
    if part.defects:
        out.print(f"{name}: decoding found", markup=False)
        _print_reasons(out, part.defects)


def _print_reasons(out: "Console", defects: Iterable["Defect"]) -> None:
    for defect in defects:
        examples = ", ".join(defect.examples) + (", …" if defect.num_files > len(defect.examples) else "")
        out.print(f"  {defect.num_files:,} × {defect.reason}: {examples}", markup=False, soft_wrap=True)
