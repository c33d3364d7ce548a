"""Energy windows over power that is known: how far off they are, and how often the stated 95 % interval is right.

    uv run python benchmarks/energy_accuracy.py

The real monitor reads simulated hardware on a simulated clock (tests/simulated/accuracy.py): a counter that changes
every millisecond, in microjoules, as RAPL has; one that changes every 100 ms, in millijoules, as NVML has; and power
that is looked at every 100 ms, as NVML has where there is no such counter, which greensv reads every 50 ms.
Window, sensor and polling thread are at random to one another. First with a perfect scale; then with one drawn for each
run from the distribution that the meter states (normal, standard deviation 5 %), one from each of as many equally
likely parts, so that little is left to chance. All scenes with bursts have the same ones. Then many more windows of
integrated power, to see how often it misses its target. Prints a Markdown report.
"""

import argparse
import logging
import math
import platform
import random
import statistics
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from watched import machine

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

from greensv.energy.metering.window import COVERAGE_FACTOR
from simulated.accuracy import GAIN_UNCERTAINTY, HARDWARE, SCENES, Outcome, measure
from simulated.nvml import UUIDS, FakeGpus, build_stub, run_python
from simulated.powercap_tree import PowercapTree

DIES, WRAPS = "bursts, dies half-way", "bursts, wrap every 30 s"
BURSTS, LOST, GAP = "random bursts", "bursts, one read in ten lost", "bursts, 3 s without a read"
SAMPLED, SHORTEST_S = "NVML power", 20.0
TARGETS = {"RAPL counter": 0.005, "NVML counter": 0.01, SAMPLED: 0.01}
COLUMNS = (
    "meter",
    "power",
    "error: median",
    "95 % of runs",
    "largest",
    "beyond target",
    "stated without scale",
    "its 95 % holds",
    "95 % interval holds",
)
NUM_TIMED = 1000
TIME_WINDOWS = """
import statistics, sys, timeit
from greensv.energy.monitoring import Monitor
from greensv.energy.metering.selection import choose_meters, open_meters
from greensv.plugins import load_plugins

root, uuid, num_timed = sys.argv[1], sys.argv[2], int(sys.argv[3])
meters = load_plugins(third_party=False).all("meter")
choices = choose_meters(meters, ["rapl", "nvml"], gpu_uuids=[uuid], options={"rapl": {"root": root}})

def open_and_close():
    with monitor.window("step"):
        pass

with Monitor(open_meters(choices)) as monitor:
    print(statistics.median(timeit.repeat(open_and_close, number=num_timed, repeat=5)) / num_timed)
"""


def main() -> None:
    """Runs every scene on every kind of hardware and prints the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=200)
    parser.add_argument("--window-s", type=float, nargs="+", default=[20.0, 60.0])
    parser.add_argument("--many-runs", type=int, default=1000)
    arguments = parser.parse_args()
    logging.disable(logging.CRITICAL)  # lost reads are logged, by the thousand here
    began_s = time.perf_counter()
    for window_s in arguments.window_s:
        head(window_s, num_runs=arguments.runs)
        for hardware in HARDWARE:
            for scene in SCENES:
                if scene != DIES and (scene != WRAPS or hardware == "RAPL counter"):
                    print(row(hardware, scene, window_s=window_s, num_runs=arguments.runs), flush=True)
    head(SHORTEST_S, num_runs=arguments.many_runs)
    for scene in (BURSTS, LOST, GAP):
        print(row(SAMPLED, scene, window_s=SHORTEST_S, num_runs=arguments.many_runs), flush=True)
    print("\n## A meter that dies half-way through 20 s\n")
    print("| meter | what the window raises | joules known by then, against the truth |")
    print("| --- | --- | ---: |")
    for hardware in HARDWARE:
        print(death(hardware, num_runs=arguments.runs))
    print(
        f"\nA window over `rapl` (package, memory) and `nvml` (one GPU) opens and closes in {window_cost_us():.0f} µs"
    )
    print(f"(median of 5 × {NUM_TIMED}).")
    print(f"\n{machine()}, Python {platform.python_version()}; {time.perf_counter() - began_s:.0f} s")


def head(window_s: float, *, num_runs: int) -> None:
    """Prints what is above the rows of a table."""
    print(f"\n## Windows of {window_s:g} s, {num_runs} runs\n")
    print(f"| {' | '.join(COLUMNS)} |")
    print(f"| --- | --- |{' ---: |' * (len(COLUMNS) - 2)}")


def row(hardware: str, scene: str, *, window_s: float, num_runs: int) -> str:
    """Returns a row of the table: errors with a perfect scale, then how often the interval held with a random one."""
    power = power_of(scene)
    plain = [
        measure(hardware, scene, window_s=window_s, gain=1.0, rng=random.Random(f"{hardware}/{power}/{run}"))
        for run in range(num_runs)
    ]
    errors = sorted(abs(outcome.window.energy_j / outcome.true_j - 1) for outcome in plain if outcome.window)
    stated = statistics.median(sampling_j(outcome) / outcome.true_j for outcome in plain if outcome.window)
    num_good = sum(
        abs(outcome.window.energy_j - outcome.true_j) <= COVERAGE_FACTOR * sampling_j(outcome)
        for outcome in plain
        if outcome.window
    )
    scaled = [
        measure(hardware, scene, window_s=window_s, gain=gain, rng=random.Random(f"{power}/{hardware}/{run}"))
        for run, gain in enumerate(gains(num_runs))
    ]
    refused = num_runs - len(errors) + sum(outcome.window is None for outcome in scaled)
    num_held = sum(holds(outcome) for outcome in scaled)
    num_scaled = sum(outcome.window is not None for outcome in scaled)
    cells = (
        hardware,
        scene,
        f"{statistics.median(errors):.3%}",
        f"{errors[math.ceil(0.95 * len(errors)) - 1]:.3%}",
        f"{errors[-1]:.3%}",
        f"{sum(error > TARGETS[hardware] for error in errors) / len(errors):.1%}",
        f"±{stated:.3%}",
        f"{num_good / len(errors):.1%}",
        f"{num_held / num_scaled:.1%}" + (f" ({refused} refused)" if refused else ""),
    )
    return f"| {' | '.join(cells)} |"


def power_of(scene: str) -> str:
    """Names the power of a scene: what seeds its generator, so that scenes of one power differ in the reads alone."""
    return BURSTS if scene.startswith("bursts") else scene


def gains(num: int) -> Sequence[float]:
    """Returns gains in random order, one from each of `num` equally likely parts of their distribution."""
    rng = random.Random(0)
    drawn = [statistics.NormalDist(1.0, GAIN_UNCERTAINTY).inv_cdf((run + rng.random()) / num) for run in range(num)]
    rng.shuffle(drawn)
    return drawn


def holds(outcome: Outcome) -> bool:
    """Says whether the stated 95 % interval holds the truth."""
    return outcome.window is not None and outcome.window.interval_j[0] <= outcome.true_j <= outcome.window.interval_j[1]


def sampling_j(outcome: Outcome) -> float:
    """Returns the stated standard uncertainty without the scale's, in joules."""
    assert outcome.window is not None
    (reading,) = outcome.window.readings
    return math.sqrt(max(0.0, reading.uncertainty_j**2 - reading.scale_uncertainty_j**2))


def death(hardware: str, *, num_runs: int) -> str:
    """Returns a row on meters that die: what is raised, and how well the joules until then are known."""
    outcomes = [
        measure(hardware, DIES, window_s=20.0, gain=1.0, rng=random.Random(f"{hardware}/{run}"))
        for run in range(num_runs)
    ]
    assert all(outcome.window is None for outcome in outcomes), "a window was closed over a dead meter"
    errors = [abs(outcome.known_j / outcome.true_known_j - 1) for outcome in outcomes]
    said = f"MeterError in {num_runs} of {num_runs}: “{outcomes[0].error}”"
    return f"| {hardware} | {said} | median {statistics.median(errors):.2%}, largest {max(errors):.2%} |"


def window_cost_us() -> float:
    """Returns the microseconds that opening and closing a window takes over `rapl` and `nvml`, as they are.

    Their hardware is simulated: the files of a powercap tree, and a libnvidia-ml that reads a file at each call.
    """
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        tree = PowercapTree(folder / "powercap")
        tree.add_part(tree.add_package(0), 0)
        gpus = FakeGpus(folder / "gpus")
        gpus.add(0, energy_mj=1)
        arguments = (str(tree.root), UUIDS[0], str(NUM_TIMED))
        done = run_python(TIME_WINDOWS, library=build_stub(folder / "library"), gpus=gpus, arguments=arguments)
    assert done.returncode == 0, done.stderr
    return 1e6 * float(done.stdout)


if __name__ == "__main__":
    main()
