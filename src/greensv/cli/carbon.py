"""`greensv carbon`: grams of CO2-equivalent of a study, in its own grid and in others."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from greensv.cli.console import console, echo_json, installed_plugins
from greensv.cli.options import json_option, study_options
from greensv.errors import ConfigError

if TYPE_CHECKING:
    from greensv.cli.carbon_answer import CarbonAnswer


@click.command()
@click.argument("study", required=False, metavar="[STUDY.toml|NAME]")
@study_options
@click.option(
    "--what-if",
    metavar="REGIONS",
    callback=lambda _ctx, _param, value: _regions(value),
    help="Recompute for these grids, such as FRA,USA,CHN.",
)
@click.option(
    "--source", metavar="NAME", help="Carbon source instead of the study's; of --what-if, static unless given."
)
@click.option(
    "--region", metavar="REGION", help="Region for --source, as that source names it, instead of the study's."
)
@click.option("--method", type=click.Choice(["life-cycle", "direct"]), help="What the factors count.")
@click.option("--fill", is_flag=True, help="Ask the source for what is missing or only estimated, and store it.")
@json_option
@click.pass_context
def carbon(ctx: click.Context, /, *, study: str | None, as_json: bool, **options: Any) -> None:
    """Show the carbon of a study: the energy of each moment times the factor of that moment.

    Factors are stored while a search runs. What has none is told apart and never counted as zero; --fill asks for it.
    """
    from greensv.cli.carbon_answer import answer
    from greensv.search.storage import open_storage
    from greensv.search.study import load

    if study is not None and options["study_name"] is not None:
        raise click.UsageError("name the study once, as an argument or with --study-name")
    if options["fill"] and options["what_if"]:
        raise click.UsageError("--fill stores factors of the study's own grid; leave out --what-if")
    if options["region"] and options["what_if"]:
        raise click.UsageError("--what-if names the regions; leave out --region, which is of the study's own source")
    plugins = installed_plugins(ctx)
    optuna_storage, ledger = open_storage(options["storage"], create=False)
    found = answer(
        load(_study_name(study) or options["study_name"], optuna_storage),
        ledger,
        plugins,
        what_if=options["what_if"],
        source_name=options["source"],
        region=options["region"],
        method=options["method"],
        is_filled=options["fill"],
    )
    if as_json:
        echo_json(found.as_json())
    else:
        _show(found)


def _show(found: "CarbonAnswer") -> None:
    from greensv.report.carbon_tables import account_table, grids_table, notes

    out = console()
    if found.filled_s is not None:
        out.print(f"{found.filled_s:,.0f} s of the study have a factor now that had none, or an estimated one, before.")
    if not found.own:
        out.print(f"Study {found.study!r} has no charges yet; run `greensv search`.")
        return
    out.print(account_table(found.own, title=f"Carbon of {found.study!r}"))
    if found.elsewhere:
        out.print(grids_table(found.elsewhere, title="The same energy, at the same times, elsewhere"))
    for note in notes([*(carbon for carbon, _ in found.own), *found.elsewhere]):
        out.print(note, markup=False, soft_wrap=True)
    for problem in found.problems:
        out.print(problem, markup=False, soft_wrap=True)


def _regions(value: str | None) -> Sequence[str]:
    if value is None:
        return ()
    regions = [region.strip() for region in value.split(",")]
    if not all(regions):
        raise click.BadParameter(f"regions separated by commas, such as FRA,USA,CHN, found {value!r}")
    return list(dict.fromkeys(regions))


def _study_name(study: str | None) -> str | None:
    """Returns the name in a study file, or the argument as the name itself."""
    if study is None:
        return None
    path = Path(study)
    if path.suffix != ".toml" and not path.is_dir():
        return study
    from greensv.config.load import read_toml

    name = read_toml(path).get("name")
    if not isinstance(name, str):
        raise ConfigError(f"{path} names no study; give `name`, or the study's name itself")
    return name
