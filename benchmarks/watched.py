"""A measurement in a process of its own, its memory watched from outside; and the name of the machine."""

import json
import os
import platform
import select
import subprocess
from pathlib import Path
from typing import Any

PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")
LOOKED_AT_EVERY_S = 0.002


def watch(command: list[str]) -> tuple[Any, float]:
    """Runs a command that prints `ready`, works, and prints a line of JSON.

    Returns what it printed, and the megabytes it held at the most beyond those it held when it was ready.
    """
    with subprocess.Popen(command, stdout=subprocess.PIPE, bufsize=0) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"ready\n"
        before = peak = resident(process.pid)
        while not select.select([process.stdout], [], [], LOOKED_AT_EVERY_S)[0]:
            peak = max(peak, resident(process.pid))
        answer = process.stdout.readline()
    return json.loads(answer), (peak - before) / 1e6


def resident(process: int) -> int:
    """Returns the bytes of memory that a running process holds."""
    return int(Path(f"/proc/{process}/statm").read_text().split()[1]) * PAGE_BYTES


def machine() -> str:
    """Returns the processor, how many cores this process may use, and how busy they are."""
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    model = next((line.split(":")[1].strip() for line in lines if line.startswith("model name")), platform.machine())
    return f"{model}, {len(os.sched_getaffinity(0))} cores (load {os.getloadavg()[0]:.1f})"
