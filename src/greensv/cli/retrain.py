"""`greensv retrain`: the full recipe for what a search found."""

from dataclasses import replace

import click

from greensv.cli.console import console, echo_json, installed_plugins
from greensv.cli.options import (
    also_meter_option,
    also_meters,
    budget_option,
    json_option,
    metrics_address,
    metrics_options,
    study_options,
)
from greensv.errors import StudyError


@click.command()
@click.option("--trial", type=click.IntRange(min=0), metavar="N", help="Retrain trial N.")
@click.option("--knee", is_flag=True, help="Retrain the knee of the Pareto set.")
@click.option("--all", "whole_front", is_flag=True, help="Retrain the whole Pareto set.")
@click.option(
    "--seed",
    "seeds",
    type=click.IntRange(0, 2000),
    multiple=True,
    metavar="S",
    help="Train with this seed instead of the trial's own (repeatable: repeated runs).",
)
@budget_option("Energy all retraining of this study may use, apart from the search's. A rerun may raise it.")
@study_options
@json_option
@metrics_options
@also_meter_option
@click.pass_context
def retrain(  # noqa: PLR0913 (each is an option)
    ctx: click.Context,
    *,
    seeds: tuple[int, ...],
    trial: int | None,
    knee: bool,
    whole_front: bool,
    budget_kwh: float,
    storage: str,
    study_name: str | None,
    as_json: bool,
) -> int:
    """Train networks a search found with the full recipe, and score the test pairs once, at the end.

    Ctrl-C saves; the same command continues from the last saved step. Each network becomes a checkpoint
    (model.safetensors and model.json) with its result.json in the study's folder. Train several networks with the same
    seeds, and `greensv trials --repeats` tests whether they differ.
    """
    if (trial is not None) + knee + whole_front != 1:
        raise click.UsageError("choose one of --trial N, --knee and --all")
    from greensv.search.crew import is_follower

    if is_follower():
        from greensv.plugins import load_plugins
        from greensv.search.following import follow

        return follow(load_plugins(third_party=ctx.obj["third_party"]))
    from rich.console import Console

    from greensv.cli.live import LiveView, PlainLog
    from greensv.cli.reports import try_to_write_report
    from greensv.search import front as fronts
    from greensv.search.exporter import exported
    from greensv.search.retrain import choose_trials, run_retrain
    from greensv.search.storage import open_storage, prepare_folder, storage_failures, study_folder
    from greensv.search.study import load

    plugins = installed_plugins(ctx)
    optuna_storage, ledger = open_storage(storage, create=False)
    study = load(study_name, optuna_storage)
    if also := also_meters(ctx):
        energy = replace(study.config.energy, also_meters=also)
        study = replace(study, config=replace(study.config, energy=energy))
    records = study.records()
    front = study.front()
    chosen = choose_trials(
        records, front, trial=trial, knee=fronts.knee(front, study.objectives) if knee and front else None
    )
    folder = prepare_folder(study_folder(storage, study.config.name))
    # With --json, standard output holds the results alone.
    out = Console(stderr=True, highlight=False) if as_json else console()
    view = LiveView(out, title="greensv retrain") if out.is_terminal else PlainLog(out)
    with view, storage_failures(storage), exported(view, metrics_address(ctx)) as listen:
        result = run_retrain(
            study,
            chosen,
            ledger=ledger,
            plugins=plugins,
            budget_kwh=budget_kwh,
            folder=folder,
            listen=listen,
            seeds=tuple(dict.fromkeys(seeds)),
            finish=lambda: try_to_write_report(study, ledger, folder),
        )
    out.print(f"Retraining ended: {result.ended_because}.", markup=False)
    for done in result.results:
        if as_json:
            echo_json(done)
        else:
            out.print(_result_text(done), markup=False, soft_wrap=True)
    if result.was_interrupted:
        return 130
    if not result.is_complete:
        raise StudyError("not everything was retrained, see above")
    return 0


def _result_text(result: dict[str, object]) -> str:
    from greensv.report.tables import data_wait_text, kwh_with_uncertainty

    energy, uncertainty = result["charged_energy_kwh"], result.get("charged_uncertainty_kwh")
    assert isinstance(energy, float)
    assert isinstance(uncertainty, float | None)
    charged = kwh_with_uncertainty(energy, uncertainty)
    lines = [f"trial {result['trial']}: charged {charged}, checkpoint {result['checkpoint']}"]
    phases = result.get("training_phases")  # a result of an older greensv has none
    if isinstance(phases, dict) and phases["data_wait_share"] is not None:
        lines.append(f"  {data_wait_text(phases)}")
    protocols = result["protocols"]
    assert isinstance(protocols, list)
    lines += [
        f"  {p['protocol']}: EER {100 * p['eer']:.2f} % ({100 * p['eer_low']:.2f} to {100 * p['eer_high']:.2f}), "
        f"minDCF {p['min_dcf']:.3f}, {p['num_target']:,} target and {p['num_nontarget']:,} nontarget pairs"
        for p in protocols
    ]
    return "\n".join(lines)
