"""`greensv job-energy`: what a SLURM job used, from a cluster's Prometheus server."""

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import click

from greensv.cli.console import console, echo_json
from greensv.cli.options import json_option

if TYPE_CHECKING:
    from greensv.energy.cluster.job_energy import JobEnergy, NodeShare


@click.command("job-energy")
@click.argument("job_id", metavar="JOB_ID")
@click.option(
    "--url",
    required=True,
    envvar="GREENSV_PROMETHEUS_URL",
    show_envvar=True,
    help="The server, such as http://host:9090.",
)
@click.option("--pue", type=click.FloatRange(min=1), default=1.0, show_default=True, help="Of the building.")
@click.option(
    "--idle-w", type=click.FloatRange(min=0), help="Idle power of a node without GPUs; else the day's lowest."
)
@click.option(
    "--ipmi-includes-gpu/--ipmi-excludes-gpu",
    default=None,
    help="Whether the BMC's power holds that of the GPUs. Needed for jobs with GPUs.",
)
@click.option("--cpu-range-j", type=click.FloatRange(min=1), help="Where the package counters wrap; else 262143 J.")
@click.option("--dram-range-j", type=click.FloatRange(min=1), help="Where the dram counters wrap; else 65713 J.")
@click.option(
    "--dram-max-power-w",
    type=click.FloatRange(min=0, min_open=True),
    help="What a socket's memory draws at the most; else 250 W.",
)
@click.option(
    "--look-back-days", type=click.FloatRange(min=0.001, max=3650), default=7.0, show_default=True, help="Job's age."
)
@json_option
def job_energy(job_id: str, *, url: str, pue: float, look_back_days: float, as_json: bool, **known: Any) -> None:
    """Show the energy of a SLURM job, running or finished, from the series of CEEMS and DCGM.

    A node's energy is split between its jobs: what it draws at rest equally, the rest by CPU time and memory; a GPU's
    energy goes to the jobs it is bound to. A bearer token comes from the environment, GREENSV_PROMETHEUS_TOKEN.
    """
    from greensv.energy.cluster.job_energy import DAY_S, JobOptions
    from greensv.energy.cluster.job_energy import job_energy as energy_of
    from greensv.energy.cluster.prometheus import PrometheusClient

    options = JobOptions(**{name: value for name, value in known.items() if value is not None})
    found = energy_of(PrometheusClient(url), job_id, options, lookback_s=look_back_days * DAY_S)
    if as_json:
        echo_json(job_record(found, pue=pue))
        return
    for line in job_lines(found, pue=pue):
        console().print(line, markup=False, soft_wrap=True)


def job_record(job: "JobEnergy", *, pue: float) -> dict[str, Any]:
    """Returns a job's energy as a JSON-able record; `energy_j` and `uncertainty_j` hold the PUE, the nodes' do not."""
    return {
        "job_id": job.job_id,
        "energy_j": pue * job.energy_j,
        "uncertainty_j": pue * job.uncertainty_j,
        "quality": job.quality,
        "pue": pue,
        "nodes": [_node_record(node) for node in job.nodes],
    }


def job_lines(job: "JobEnergy", *, pue: float) -> list[str]:
    """Returns a job's energy for people."""
    from greensv.units import format_duration, format_energy

    pue_text = f", PUE {pue:g} included" if pue != 1 else ""
    total = f"{format_energy(pue * job.energy_j)} ± {format_energy(pue * job.uncertainty_j)}"
    lines = [f"Job {job.job_id}: {total} (one standard uncertainty; {job.quality}{pue_text})"]
    for node in job.nodes:
        duration = format_duration(node.last_at - node.first_at)
        gpus = f", GPUs {format_energy(node.gpu_j)}" if node.gpu_j else ""
        lines.append(
            f"  {node.hostname}, {duration} from {_time(node.first_at)}: {format_energy(node.energy_j)} of the node's "
            f"{format_energy(node.node_j)} (machine {format_energy(node.host_j)}, of which at rest "
            f"{format_energy(node.idle_j)}{gpus})"
        )
        lines += [f"    {note}" for note in node.notes]
    lines.append("From the first to the last sample of the job; how it is split is in docs/how-to/prometheus.md.")
    return lines


def _node_record(node: "NodeShare") -> dict[str, Any]:
    return {
        "hostname": node.hostname,
        "first_at": _time(node.first_at),
        "last_at": _time(node.last_at),
        "energy_j": node.energy_j,
        "host_j": node.host_j,
        "gpu_j": node.gpu_j,
        "idle_j": node.idle_j,
        "idle_w": node.idle_w,
        "uncertainty_j": node.uncertainty_j,
        "node_j": node.node_j,
        "notes": list(node.notes),
    }


def _time(at_s: float) -> str:
    return datetime.fromtimestamp(at_s, UTC).isoformat(timespec="seconds")
