"""The `greensv` command. Imports click alone, and each subcommand when it is called: --help is quick."""

import importlib
import logging
import os
import sys
from collections.abc import Mapping
from types import MappingProxyType

import click

from greensv import __version__
from greensv.errors import GreensvError

COMMANDS: Mapping[str, tuple[str, str]] = MappingProxyType(
    {
        "search": ("greensv.cli.search:search", "Search for accurate and cheap networks inside an energy budget."),
        "launch": (
            "greensv.cli.launch:launch",
            "Begin a search with several workers: on this machine's GPUs, or as SLURM jobs.",
        ),
        "worker": ("greensv.cli.worker:worker", "Join a search that has been begun, from any machine."),
        "pareto": ("greensv.cli.results:pareto", "Show the Pareto set of a study: EER against training energy."),
        "trials": ("greensv.cli.results:trials", "List a study's trials."),
        "budget": ("greensv.cli.results:budget", "Show what a study may spend and has spent."),
        "carbon": ("greensv.cli.carbon:carbon", "Show the carbon of a study, in its own grid and in others."),
        "retrain": (
            "greensv.cli.retrain:retrain",
            "Train found networks with the full recipe and score the test pairs.",
        ),
        "evaluate": ("greensv.cli.evaluate:evaluate", "EER, minDCF and more of a checkpoint on a trial list."),
        "metrics": ("greensv.cli.metrics:metrics", "EER, minDCF, actDCF and Cllr of any toolkit's score file."),
        "embed": ("greensv.cli.embed:embed", "Write the speaker embeddings of audio files."),
        "verify": ("greensv.cli.verify:verify", "Say whether two recordings are of the same speaker."),
        "export": ("greensv.cli.export:export", "Write a saved network as an ONNX model, checked against it."),
        "describe": ("greensv.cli.describe:describe", "Parameters and MACs of a named system or any network."),
        "predict": ("greensv.cli.predict:predict", "What training a network in full will cost, before it runs."),
        "data": ("greensv.cli.data:data", "Check a corpus before anything is trained on it."),
        "plugins": ("greensv.cli.components:plugins", "List every component and who provides it."),
        "meters": ("greensv.cli.components:meters", "What energy this machine can measure, and how well."),
        "job-energy": ("greensv.cli.job_energy:job_energy", "Energy of a SLURM job, from a cluster's Prometheus."),
        "measure": ("greensv.cli.measure:measure", "Run any program and report its energy."),
        "calibrate": (
            "greensv.cli.calibrate:calibrate",
            "Measure a reference workload here, or how far a meter's scale is off.",
        ),
        "bench": ("greensv.cli.bench:bench", "Compare search methods on simulated problems, without a GPU."),
        "dashboard": ("greensv.cli.dashboard:dashboard", "Open a study in optuna-dashboard."),
    }
)


class LazyGroup(click.Group):
    """A group that knows its commands' names and one-line help without importing them."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Returns the commands in the order of `COMMANDS`."""
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Imports and returns one command."""
        if cmd_name not in COMMANDS:
            return None
        module_name, function = COMMANDS[cmd_name][0].split(":")
        command: click.Command = getattr(importlib.import_module(module_name), function)
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Writes the list of commands without importing any."""
        with formatter.section("Commands"):
            formatter.write_dl([(name, text) for name, (_, text) in COMMANDS.items()])


@click.group(cls=LazyGroup, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="greensv")
@click.option("--no-plugins", is_flag=True, help="Load the built-in components only.")
@click.option("-v", "--verbose", count=True, help="Log more (twice: debug).")
@click.pass_context
def cli(ctx: click.Context, *, no_plugins: bool, verbose: int) -> None:
    """Find speaker-verification networks that are accurate and cheap to train and run.

    Start with `greensv search --budget-kwh 0.002 --max-trials 6`: it needs no data and no GPU.
    """
    ctx.obj = {"third_party": not no_plugins}
    level = [logging.WARNING, logging.INFO, logging.DEBUG][min(verbose, 2)]
    logging.basicConfig(level=level, format="%(levelname)s %(name)s: %(message)s", stream=sys.stderr)


def main() -> None:
    """Runs the command line: exit code 0, 1 for a user's error, 2 for usage, 130 on Ctrl-C."""
    try:
        code = cli.main(standalone_mode=False)
    except click.exceptions.Abort:
        code = 130
    except click.ClickException as error:
        error.show()
        code = error.exit_code
    except KeyboardInterrupt:
        code = 130
    except GreensvError as error:
        click.echo(f"{click.style('error:', fg='red', bold=True)} {error}", err=True)
        code = 1
    except BrokenPipeError:
        # A reader such as `head` has gone; give the interpreter a place to flush what is left.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        code = 0
    sys.exit(code if isinstance(code, int) else 0)


if __name__ == "__main__":
    main()
