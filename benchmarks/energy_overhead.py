"""What metering itself costs: processor time, memory, and the time of a window's edges, beside CodeCarbon and Zeus.

    uv run python benchmarks/energy_overhead.py [--seconds 60] [--rounds 5]

greensv's monitor with `rapl` and `nvml` at one reading a second, CodeCarbon at one a second (its default is 15 s), and
Zeus with its defaults, each in processes of their own over simulated hardware: a powercap tree on
/sys/class/powercap and a stand-in for libnvidia-ml, whose calls take microseconds where a driver's may take longer.
Three things are measured:

- *processor time* of a process that sleeps while it is metered, its child processes included, in % of one core; and by
  how much its memory (proportional set size, with its children's) grew from before the tool's import to the end, torch
  being imported already;
- *edges*: the median and the largest time to open and to close a window;
- *training*: steps a second of a small network, by turns with no meter, as the median ratio of the rounds.

What the machine does beside disturbs the last most. Prints a Markdown report.
"""

import argparse
import contextlib
import json
import os
import platform
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

from side_by_side.hardware import make_hardware
from side_by_side.tools import TESTS

NUM_EDGES = 300
SETTLE_S = 2.0
Window = Callable[[], AbstractContextManager[object]]


def main() -> None:
    """Runs every tool by turns and prints tables, or is one of the tools."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=60.0)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--part", choices=[f"{what} {tool}" for what in ("rest", "training") for tool in TOOLS])
    arguments = parser.parse_args()
    if arguments.part is None:
        report(seconds=arguments.seconds, num_rounds=arguments.rounds)
        return
    what, tool = arguments.part.split()
    said = rest(tool, arguments.seconds) if what == "rest" else training(tool, arguments.seconds)
    print(json.dumps(said))


def report(*, seconds: float, num_rounds: int) -> None:
    """Prints what each tool costs."""
    print(f"{seconds:g} s of sleep; medians of {num_rounds} rounds, with the lowest and the highest\n")
    print("| tool | processor time, % of a core | memory, MB | open + close, ms: median | largest |")
    print("| --- | ---: | ---: | ---: | ---: |")
    metered = [tool for tool in TOOLS if tool != "nothing"]
    rounds = [{tool: run(f"rest {tool}", seconds) for tool in metered} for _ in range(num_rounds)]
    for tool in metered:
        columns = ("core_share", "memory_mb", "edges_ms", "largest_edge_ms")
        cells = [spread([found[tool][column] for found in rounds]) for column in columns]
        print(f"| {tool} | {' | '.join(cells)} |", flush=True)
    print("\n| tool | steps a second | of those with no meter |\n| --- | ---: | ---: |")
    steps = [{tool: run(f"training {tool}", seconds / 6)["steps_per_s"] for tool in TOOLS} for _ in range(num_rounds)]
    for tool in TOOLS:
        ratios = spread([found[tool] / found["nothing"] for found in steps])
        print(f"| {tool} | {statistics.median(found[tool] for found in steps):.1f} | {ratios} |", flush=True)
    from watched import machine

    print(f"\n{machine()}, Python {platform.python_version()}")


def spread(values: list[float]) -> str:
    """Returns the median and the range."""
    return f"{statistics.median(values):.3g} ({min(values):.3g} to {max(values):.3g})"


def run(part: str, seconds: float) -> dict[str, float]:
    """Runs one part in a process of its own, over hardware of its own, and returns what it says."""
    sys.path.insert(0, str(TESTS))
    from simulated.namespace import MOUNT

    with tempfile.TemporaryDirectory(prefix="energy-overhead-") as name:
        folder = Path(name)
        library = make_hardware(folder)
        environment = {
            **os.environ,
            "LD_LIBRARY_PATH": str(library),
            "FAKE_NVML_DIR": str(folder / "gpus"),
            "PATH": f"{folder / 'bin'}:{os.environ['PATH']}",
            "OMP_NUM_THREADS": "1",
        }
        namespaces = "-m" if os.geteuid() == 0 else "-rm"
        command = ["unshare", namespaces, "bash", "-c", MOUNT, "bash", str(folder / "powercap")]
        command += [sys.executable, str(Path(__file__).resolve()), "--seconds", str(seconds), "--part", part]
        done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"{part} failed:\n{done.stderr[-3000:]}")
    said: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return said


def rest(tool: str, seconds: float) -> dict[str, float]:
    """Sleeps while it is metered. torch is there already, as in any program that trains."""
    import torch  # noqa: F401

    before_mb = memory_mb()
    with TOOLS[tool]() as window:
        time.sleep(SETTLE_S)
        began_s, used_s = time.monotonic(), processor_s()
        time.sleep(seconds)
        core_share = 100 * (processor_s() - used_s) / (time.monotonic() - began_s)
        grown_mb = memory_mb() - before_mb
        edges_ms = []
        for _ in range(NUM_EDGES):
            opened_s = time.perf_counter()
            with window():
                pass
            edges_ms.append(1e3 * (time.perf_counter() - opened_s))
    return {
        "core_share": core_share,
        "memory_mb": grown_mb,
        "edges_ms": statistics.median(edges_ms),
        "largest_edge_ms": max(edges_ms),
    }


def training(tool: str, seconds: float) -> dict[str, float]:
    """Trains a small network for a while, with a window around all of it."""
    import torch

    torch.manual_seed(0)
    network = torch.nn.Sequential(torch.nn.Linear(80, 512), torch.nn.ReLU(), torch.nn.Linear(512, 512))
    optimizer = torch.optim.SGD(network.parameters(), lr=0.01)
    features = torch.randn(256, 80)
    with TOOLS[tool]() as window, window():
        began_s, num_steps = time.perf_counter(), 0
        while time.perf_counter() - began_s < seconds:
            optimizer.zero_grad()
            network(features).square().mean().backward()
            optimizer.step()
            num_steps += 1
        return {"steps_per_s": num_steps / (time.perf_counter() - began_s)}


@contextmanager
def nothing() -> Iterator[Window]:
    """Measures nothing."""

    @contextmanager
    def window() -> Iterator[None]:
        yield

    yield window


@contextmanager
def greensv() -> Iterator[Window]:
    """The monitor of greensv, `rapl` and `nvml` at one reading a second."""
    import greensv.energy

    with greensv.energy.monitor("rapl", "nvml", interval_s=1.0) as monitor:
        yield lambda: monitor.window("work")


@contextmanager
def codecarbon() -> Iterator[Window]:
    """CodeCarbon's offline tracker; its windows are tasks."""
    from codecarbon import OfflineEmissionsTracker

    tracker = OfflineEmissionsTracker(
        country_iso_code="FRA", measure_power_secs=1, save_to_file=False, log_level="error", allow_multiple_runs=True
    )
    tracker.start()

    @contextmanager
    def window() -> Iterator[None]:
        tracker.start_task()
        yield
        tracker.stop_task()

    yield window
    tracker.stop()


@contextmanager
def zeus() -> Iterator[Window]:
    """Zeus's monitor."""
    from zeus.monitor import ZeusMonitor

    monitor = ZeusMonitor(approx_instant_energy=False)

    @contextmanager
    def window() -> Iterator[None]:
        monitor.begin_window("work", sync_execution=False)
        yield
        monitor.end_window("work", sync_execution=False)

    yield window


def processor_s() -> float:
    """Returns the processor time of this process and its children, living ones included, in seconds."""
    ended = resource.getrusage(resource.RUSAGE_CHILDREN)
    ticks = sum(sum(map(int, stat.rpartition(")")[2].split()[11:13])) for stat in map(read_stat, children()))
    return time.process_time() + ended.ru_utime + ended.ru_stime + ticks / os.sysconf("SC_CLK_TCK")


def memory_mb() -> float:
    """Returns the proportional set size of this process and its children."""
    kilobytes = 0
    for pid in (os.getpid(), *children()):
        rollup = Path(f"/proc/{pid}/smaps_rollup").read_text()
        kilobytes += next(int(line.split()[1]) for line in rollup.splitlines() if line.startswith("Pss:"))
    return kilobytes / 1e3


def children(pid: int | None = None) -> list[int]:
    """Returns the living descendants of a process."""
    found: list[int] = []
    for tasks in Path(f"/proc/{pid or os.getpid()}/task").glob("*/children"):
        with contextlib.suppress(OSError):  # a thread that has just ended
            for child in map(int, tasks.read_text().split()):
                found += [child, *children(child)]
    return found


def read_stat(pid: int) -> str:
    """Returns /proc/PID/stat."""
    return Path(f"/proc/{pid}/stat").read_text()


TOOLS: dict[str, Callable[[], AbstractContextManager[Window]]] = {
    "nothing": nothing,
    "greensv": greensv,
    "codecarbon": codecarbon,
    "zeus": zeus,
}

if __name__ == "__main__":
    main()
