"""The same live counters read by greensv, CodeCarbon, Zeus and carbontracker at the same time, beside the truth.

    uv venv --python 3.11 VENV
    uv pip install --python VENV/bin/python codecarbon==3.3.2 zeus==0.16.0 carbontracker==2.4.7
    uv run python benchmarks/energy_tools.py --tools-python VENV/bin/python

A process of its own writes a powercap tree each millisecond and the state of a GPU each 100 ms, after known functions
of power (side_by_side/scenes.py). The tree is mounted on /sys/class/powercap, and the GPU answers through a stand-in
for libnvidia-ml, so that each tool runs as released, with its defaults. Each measures the same window in a process of
its own; its energies are compared with the integral from the moment it had begun until it was told to end. Where reads
fail, a preloaded library makes them fail at the same moments for all (side_by_side/failing_reads.c). Several windows,
each with hardware of its own, are measured at once. Prints a Markdown table.
"""

import argparse
import json
import platform
import random
import shlex
import statistics
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from side_by_side.hardware import GPU_UPDATE_S, be_hardware, environment, make_hardware
from side_by_side.scenes import SCENES
from side_by_side.tools import TOOLS, Energies, be_tool
from watched import machine

LEADS_S = (35.0, 70.0)
"""For starting and importing four tools at once; the next one where one of them came late."""
APART_S = 12.0
"""Between two starts, so that not all import at once."""
DOMAINS = ("package", "dram", "gpu")


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """What a tool said of a window, and what was true; or the error it ended with."""

    energies_j: Energies
    truth_j: Energies
    error: str | None = None


def main() -> None:
    """Runs all tools side by side and prints a table, or is the hardware or one of the tools."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tools-python", default=sys.executable)
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=20.0)
    parser.add_argument("--at-once", type=int, default=4, help="windows that are measured at the same time")
    parser.add_argument("--scenes", nargs="+", choices=SCENES, default=list(SCENES))
    parser.add_argument("--part", choices=["hardware", *TOOLS])
    parser.add_argument("--folder", type=Path)
    arguments = parser.parse_args()
    if arguments.part == "hardware":
        be_hardware(arguments.folder)
    elif arguments.part:
        be_tool(arguments.part, arguments.folder)
    else:
        compare(arguments)


def compare(arguments: argparse.Namespace) -> None:
    """Measures some windows of each scene and prints a table."""
    began_s = time.monotonic()
    jobs = [(scene, seed) for scene in arguments.scenes for seed in range(arguments.runs)]

    def one(index: int) -> dict[str, Outcome]:
        time.sleep(APART_S * index if index < arguments.at_once else 0.0)
        scene, seed = jobs[index]
        for lead_s in LEADS_S:
            measured = measure(arguments.tools_python, scene, lead_s=lead_s, seconds=arguments.seconds, seed=seed)
            if measured is not None:
                return measured
        raise SystemExit(f"a tool was late even {LEADS_S[-1]:g} s after its start: measure fewer windows --at-once")

    with ThreadPoolExecutor(arguments.at_once) as pool:
        outcomes = dict(zip(jobs, pool.map(one, range(len(jobs))), strict=True))
    print(f"Windows of {arguments.seconds:g} s, {arguments.runs} of each; error in % of the truth: median (range).\n")
    print("| power | tool | package | memory | GPU | all it gives, against all |")
    print("| --- | --- | ---: | ---: | ---: | ---: |")
    for scene in arguments.scenes:
        for tool in TOOLS:
            of_tool = [outcomes[scene, seed][tool] for seed in range(arguments.runs)]
            cells = [spread(of_tool, domain) for domain in (*DOMAINS, "total")]
            print(f"| {scene} | {tool} | {' | '.join(cells)} |")
    print("\nErrors that tools ended with, the first of each:\n")
    for scene in arguments.scenes:
        for tool in TOOLS:
            errors = [outcomes[scene, seed][tool].error for seed in range(arguments.runs)]
            if said := [error for error in errors if error is not None]:
                print(f"- {scene}, {tool}, {len(said)} of {len(errors)}: {said[0]}")
    print(f"\n{machine()}, Python {platform.python_version()}; {time.monotonic() - began_s:.0f} s")


def spread(outcomes: list[Outcome], domain: str) -> str:
    """Returns a cell: the median error in % and its range, over the runs in which the tool gave a figure."""
    said = [outcome for outcome in outcomes if outcome.error is None]
    if not said:
        return "error"
    errors = [
        100 * (energy_j / truth_j - 1)
        for energy_j, truth_j in ((outcome.energies_j.get(domain), outcome.truth_j[domain]) for outcome in said)
        if energy_j is not None and truth_j
    ]
    if not errors:
        return "not given"
    raised = f"; error in {len(outcomes) - len(said)}" if len(said) < len(outcomes) else ""
    missing = f"; not given in {len(said) - len(errors)}" if len(errors) < len(said) else ""
    return f"{statistics.median(errors):+.2f} ({min(errors):+.2f} to {max(errors):+.2f}{missing}{raised})"


def measure(tools_python: str, scene: str, *, lead_s: float, seconds: float, seed: int) -> dict[str, Outcome] | None:
    """Runs the hardware and every tool once; returns what came of each, or None where one was late for the window."""
    from simulated.namespace import run_with_powercap

    with tempfile.TemporaryDirectory(prefix="energy-tools-") as name:
        folder = Path(name)
        make_hardware(folder)
        starts_at_s = time.monotonic()
        opens_s = lead_s + random.Random(seed).uniform(0, GPU_UPDATE_S)  # at random to the GPU's updates
        plan = {"starts_at_s": starts_at_s, "opens_s": opens_s, "closes_s": opens_s + seconds}
        (folder / "plan.json").write_text(json.dumps(plan | {"seed": seed, "scene": scene}))
        variables = shlex.join(f"{name}={value}" for name, value in environment(folder).items())
        this = [str(Path(__file__)), "--folder", str(folder), "--part"]
        with subprocess.Popen([sys.executable, *this, "hardware"]) as hardware:
            commands = [
                f"env {variables} PATH={folder}/bin:$PATH "
                + shlex.join([sys.executable if tool == "greensv" else tools_python, *this, tool])
                + f" >{shlex.quote(str(folder / tool))}.log 2>&1"
                for tool in TOOLS
            ]
            done = run_with_powercap(folder / "powercap", ["bash", "-c", " & ".join(commands) + " & wait"])
            hardware.terminate()
        assert done.returncode == 0, done.stderr
        if any((folder / f"{tool}.late").exists() for tool in TOOLS):
            return None
        curves = SCENES[scene].curves(seed, plan["opens_s"], plan["closes_s"])
        outcomes = {tool: outcome_of(tool, folder, curves, starts_at_s) for tool in TOOLS}
    for tool, outcome in outcomes.items():
        print(f"  {scene}, run {seed}, {tool}: {outcome}", file=sys.stderr)
    return outcomes


def outcome_of(tool: str, folder: Path, curves: dict[str, object], starts_at_s: float) -> Outcome:
    """Returns what a tool said and what was true in its window, or how it ended."""
    answer = folder / f"{tool}.json"
    if not answer.exists():
        lines = (folder / f"{tool}.log").read_text().strip().splitlines()
        return Outcome(energies_j={}, truth_j={}, error=f"ended without an answer: {lines[-1] if lines else 'no word'}")
    said = json.loads(answer.read_text())
    if "error" in said:
        return Outcome(energies_j={}, truth_j={}, error=said["error"])
    from_s, to_s = said["from_s"] - starts_at_s, said["to_s"] - starts_at_s
    truth: Energies = {d: curve.energy_j(to_s) - curve.energy_j(from_s) for d, curve in curves.items()}
    truth["total"] = sum(truth.values())
    given = [energy_j for energy_j in said["energies_j"].values() if energy_j is not None]
    return Outcome(energies_j={"total": sum(given), **said["energies_j"]}, truth_j=truth)


if __name__ == "__main__":
    main()
