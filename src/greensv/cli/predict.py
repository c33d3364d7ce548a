"""`greensv predict`: what training a network with the full recipe will cost here, before it runs."""

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from greensv.cli.console import console, echo_json, installed_plugins
from greensv.cli.options import json_option, study_options
from greensv.errors import StudyError

if TYPE_CHECKING:
    from greensv.cli.describe import System
    from greensv.config import StudyConfig
    from greensv.plugins import Plugins
    from greensv.search.cost.full_recipe import Task
    from greensv.search.cost.model import Measured


@click.command()
@click.argument("system", required=False, metavar="[SYSTEM]")
@click.argument("study", required=False, type=click.Path(path_type=Path), metavar="[STUDY.toml]")
@click.option("--trial", type=click.IntRange(min=0), metavar="N", help="The network of trial N of a study.")
@study_options
@click.option("--probe", is_flag=True, help="Measure some training steps on noise first; about a minute.")
@click.option("--data-root", type=click.Path(path_type=Path), metavar="DIR", help="Where the dataset lies.")
@click.option(
    "--num-utterances", type=click.IntRange(min=1), metavar="N", help="Training utterances; loads no corpus then."
)
@click.option("--num-speakers", type=click.IntRange(min=2), metavar="N", help="Training speakers.")
@click.option("--device", type=click.Choice(["cpu", "cuda", "auto"]), help="Where to train.")
@click.option("--meter", "meters", multiple=True, metavar="NAME", help="Measure with this meter (repeatable).")
@click.option("--region", metavar="REGION", help="Where the electricity comes from, instead of the study's.")
@json_option
@click.pass_context
def predict(
    ctx: click.Context, /, *, system: str | None, study: Path | None, trial: int | None, as_json: bool, **flags: Any
) -> None:
    """Energy, time, memory and carbon of training a network in full, with their 95 % intervals.

    A SYSTEM is named as for `greensv describe`: ResNet-50-D, or resnet:depth=8,width_log2=-3. The recipe and the data
    are those of STUDY.toml; without one, the paper's: 42 epochs of VoxCeleb2 in crops of 3.5 s.

    What was measured on this hardware before is used, and --probe measures now. Without either, energies measured
    elsewhere stand for this machine's, which may be off by a factor of ten or more.
    """
    if (system is None) == (trial is None):
        raise click.UsageError("name one SYSTEM (`greensv describe --list` lists some), or a trial with --trial N")
    if trial is not None and study is not None:
        raise click.UsageError("a trial has its study's recipe; leave out STUDY.toml")
    from greensv.cli.predict_answer import answer_as_json, answer_lines
    from greensv.search.cost.full_recipe import predict_task
    from greensv.search.cost.machine import this_machine

    plugins = installed_plugins(ctx)
    name, task, device, own = (
        _trial_task(trial, flags, plugins)
        if trial is not None
        else (
            *_system_task(str(system), study, flags, plugins),
            None,
        )
    )
    if flags["region"]:
        task = replace(task, energy=replace(task.energy, region=flags["region"]))
    machine = this_machine(task.energy, task.recipe, plugins, device_name=device)
    answer = predict_task(task, machine, plugins, own=own, is_probed=flags["probe"], on_step=_told(flags["probe"]))
    if as_json:
        echo_json(answer_as_json(name, answer))
        return
    for line in answer_lines(name, answer):
        console().print(line, markup=False, soft_wrap=True)


def _system_task(text: str, study: Path | None, flags: dict[str, Any], plugins: "Plugins") -> tuple[str, "Task", str]:
    """Returns the name of a system, its task, and the device to train on."""
    from greensv.cli.describe import find_system
    from greensv.config import EnergyConfig, Recipe
    from greensv.search.cost.full_recipe import PAPER_SPEAKERS, PAPER_UTTERANCES, Task

    system: System = find_system(text, plugins)
    if study is None:
        if flags["data_root"]:
            raise click.UsageError("--data-root is of a study's dataset; name STUDY.toml")
        task = Task(
            backbone=system.backbone,
            params=system.params,
            recipe=Recipe(),
            features=system.backbone.published_features,
            energy=EnergyConfig(meters=flags["meters"] or ("auto",)),
            num_utterances=flags["num_utterances"] or PAPER_UTTERANCES,
            num_speakers=flags["num_speakers"] or PAPER_SPEAKERS,
        )
        return system.name, task, flags["device"] or "auto"
    from greensv.cli.search import study_data
    from greensv.search.configure import configure

    given = {"dataset": None, "backbones": (), "study_name": None, "seed": None, "also_meters": ()}
    kept = {key: flags[key] for key in ("data_root", "device", "meters")}
    config = configure(study_data(study, {**given, **kept}), source=str(study), plugins=plugins)
    return system.name, _study_task(config, system, flags, plugins), config.device


def _trial_task(
    number: int | None, flags: dict[str, Any], plugins: "Plugins"
) -> tuple[str, "Task", str, "Measured | None"]:
    """Returns the name of a trial, its task, the device, and what its short training cost."""
    from greensv.cli.describe import System
    from greensv.search.candidate import build_space
    from greensv.search.cost.model import Measured
    from greensv.search.storage import open_storage
    from greensv.search.study import load
    from greensv.search.workbench import network_work

    storage, _ = open_storage(flags["storage"], create=False)
    found = load(flags["study_name"], storage)
    config = found.config
    if flags["meters"]:
        config = replace(config, energy=replace(config.energy, meters=flags["meters"]))
    records = {record.number: record for record in found.records()}
    if number not in records:
        known = ", ".join(map(str, records)) or "none"
        raise StudyError(f"study {config.name!r} has no trial {number}; its trials: {known}")
    record = records[number]
    space = build_space(config.backbones, plugins)
    candidate = space.candidate(record.params)
    system = System(
        name=f"trial {number} of {config.name}",
        backbone=space.backbones[candidate.backbone],
        params=candidate.params,
    )
    own = None
    if record.joules_per_step and record.seconds_per_step:
        speech_s = config.recipe.batch_size * config.recipe.phases[0].crop_s
        work = network_work(system.backbone, system.params, features=config.features)
        joules, seconds = record.joules_per_step / speech_s, record.seconds_per_step / speech_s
        own = Measured(work=work.per_second, joules=joules, seconds=seconds)
    return system.name, _study_task(config, system, flags, plugins), flags["device"] or config.device, own


def _study_task(config: "StudyConfig", system: "System", flags: dict[str, Any], plugins: "Plugins") -> "Task":
    """Returns the training of a system by a study's recipe, on as much data as the full recipe uses."""
    from greensv.search.cost.full_recipe import PAPER_SPEAKERS, Task

    num_utterances, num_speakers = flags["num_utterances"], flags["num_speakers"] or PAPER_SPEAKERS
    if num_utterances is None:
        from greensv.search.trainer import load_corpus

        corpus = load_corpus(config, plugins, _told_progress())
        added = corpus.dev.utterances if corpus.dev_rejoins_training else None
        num_utterances = len(corpus.train) + (len(added) if added is not None else 0)
        num_speakers = flags["num_speakers"] or (
            corpus.train.num_speakers + (added.num_speakers if added is not None else 0)
        )
    if config.num_threads:
        import torch

        torch.set_num_threads(config.num_threads)
    return Task(
        backbone=system.backbone,
        params=system.params,
        recipe=config.recipe,
        features=config.features,
        energy=config.energy,
        num_utterances=num_utterances,
        num_speakers=num_speakers,
    )


def _told_progress() -> Any:
    last = ""

    def tell(what: str, done: int, total: int) -> None:
        nonlocal last
        if what != last:
            last = what
            click.echo(f"{what} ...", err=True)

    return tell


def _told(is_probed: bool) -> Any:
    if is_probed:
        click.echo("measuring training steps on noise ...", err=True)
    return lambda step: None
