"""Simulated hardware in real time: a powercap tree and a GPU that follow known power."""

import contextlib
import json
import os
import subprocess
import time
from pathlib import Path

from side_by_side.scenes import SCENES

PACKAGE_UPDATE_S, GPU_UPDATE_S = 0.001, 0.1
HERE = Path(__file__).parent
SHARED = ["-shared", "-fPIC", "-fvisibility=hidden", "-Wall"]


def make_hardware(folder: Path) -> Path:
    """Writes the powercap tree and the GPU's first state; returns the folder of the stand-in for libnvidia-ml."""
    from simulated import nvml
    from simulated.powercap_tree import PowercapTree

    tree = PowercapTree(folder / "powercap")
    tree.add_part(tree.add_package(0), 0)
    (tree.root / "intel-rapl" / "subsystem").symlink_to("..")  # CodeCarbon looks for it, and Linux has it
    (folder / "bin").mkdir()
    (folder / "bin" / "nvidia-smi").write_text("#!/bin/sh\n")  # without it, CodeCarbon sees no GPU
    (folder / "bin" / "nvidia-smi").chmod(0o755)
    gpus = nvml.FakeGpus(folder / "gpus")
    number = f"{1:012d}"
    gpus.add(0, energy_mj=number, power_mw=number, instant_mw=number, utilisation=90, memory_utilisation=30)
    gpus.set(0, memory_used=1, memory_total=2, temperature=60)
    (folder / "library").mkdir()
    sources = [nvml.STUB, HERE.parent / "nvml_limits.c"]
    target = folder / "library" / "libnvidia-ml.so.1"
    subprocess.run(["gcc", *SHARED, "-Wl,-soname,libnvidia-ml.so.1", "-o", target, *sources], check=True)
    subprocess.run(["gcc", *SHARED, "-o", folder / "failing_reads.so", HERE / "failing_reads.c", "-ldl"], check=True)
    return folder / "library"


def environment(folder: Path) -> dict[str, str]:
    """Returns what a tool's process needs to see the hardware, and to suffer what its scene says."""
    plan = json.loads((folder / "plan.json").read_text())
    scene = SCENES[plan["scene"]]
    from_s = plan["opens_s"] + scene.fails_from * (plan["closes_s"] - plan["opens_s"])
    suffers = {
        "LD_PRELOAD": str(folder / "failing_reads.so"),
        "FAILING_READS": f"{scene.fails} {round(1e9 * (plan['starts_at_s'] + from_s))} {plan['seed']}",
    }
    return {
        "LD_LIBRARY_PATH": str(folder / "library"),
        "FAKE_NVML_DIR": str(folder / "gpus"),
        **(suffers if scene.fails else {}),
    }


def be_hardware(folder: Path) -> None:
    """Writes counters and power in place and in fixed width, until it is terminated."""
    from simulated.powercap_tree import PACKAGE_RANGE_UJ

    with contextlib.suppress(PermissionError):
        os.nice(-10)  # hardware does not wait for a processor
    plan = json.loads((folder / "plan.json").read_text())
    scene = SCENES[plan["scene"]]
    curves = scene.curves(plan["seed"], plan["opens_s"], plan["closes_s"])
    zone = folder / "powercap" / "intel-rapl" / "intel-rapl:0"
    paths = {"package": zone / "energy_uj", "dram": zone / "intel-rapl:0:0" / "energy_uj"}
    paths |= {what: folder / "gpus" / "0" / what for what in ("energy_mj", "power_mw", "instant_mw")}
    files = {what: os.open(path, os.O_WRONLY) for what, path in paths.items()}
    wraps_at_s = (plan["opens_s"] + plan["closes_s"]) / 2
    first_uj = PACKAGE_RANGE_UJ - round(curves["package"].energy_j(wraps_at_s) * 1e6) if scene.wraps else 10**9
    next_gpu_s = 0.0
    while True:
        now_s = time.monotonic() - plan["starts_at_s"]
        package_uj = (first_uj + round(curves["package"].energy_j(now_s) * 1e6)) % PACKAGE_RANGE_UJ
        os.pwrite(files["package"], f"{package_uj:012d}\n".encode(), 0)
        os.pwrite(files["dram"], f"{round(curves['dram'].energy_j(now_s) * 1e6):012d}\n".encode(), 0)
        if now_s >= next_gpu_s:
            next_gpu_s += GPU_UPDATE_S
            power_mw = round(curves["gpu"].power_w(now_s) * 1e3)
            energy_mj = 10**6 + round(curves["gpu"].energy_j(now_s) * 1e3)
            for what, number in (("energy_mj", energy_mj), ("power_mw", power_mw), ("instant_mw", power_mw)):
                os.pwrite(files[what], f"{number:012d}\n".encode(), 0)
        time.sleep(PACKAGE_UPDATE_S)
