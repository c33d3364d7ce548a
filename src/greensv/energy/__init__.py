"""Energy: meters and the monitor that accounts for them, carbon, ledger and budget. Knows neither torch nor Optuna.

Any Python program can be measured::

    import greensv.energy

    with greensv.energy.monitor() as monitor:
        with monitor.window("train") as window:
            train()
        print(window.result.energy_j, window.result.uncertainty_j)
"""

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from greensv.energy.started import StartedMonitor

__all__ = ["monitor"]


def monitor(
    *names: str,
    also: Sequence[str] = (),
    gpu_uuids: Sequence[str] | None = None,
    interval_s: float = 1.0,
    synchronise: Callable[[], None] | None = None,
    options: Mapping[str, Mapping[str, Any]] | None = None,
) -> "StartedMonitor":
    """Starts to measure this machine, and returns the monitor that does; its windows are the measurements.

    It is a context manager, but need not be: a monitor that nobody stops ends with the interpreter. Loads neither torch
    nor Optuna, and needs no study and no database.

    Args:
        names: the meters to use, all of them and no other; none, or `auto`: the best of greensv's own for each part of
            the machine. `greensv meters` lists them.
        also: meters to record beside those, in `EnergyWindow.others`.
        gpu_uuids: the GPUs in use, `()` for none; None: those that CUDA shows to a program started now, by
            `CUDA_VISIBLE_DEVICES`.
        interval_s: seconds between two readings.
        synchronise: called at both edges of a window, to wait for a device that works ahead of the program:
            `torch.cuda.synchronize`. Without it, a window holds the work that the GPU did in it, not what was asked of
            it.
        options: options by meter name, as in `[energy.options.<name>]` of a study.

    Raises:
        MeterError: a meter is unknown, unavailable or cannot be read, two would count the same joules, or something in
            use would be measured by none.
        ConfigError: options that cannot be used.
    """
    from greensv.energy.started import installed_meters, start_monitor

    return start_monitor(
        installed_meters([*(names or ("auto",)), *also]),
        names or ("auto",),
        also=also,
        gpu_uuids=gpu_uuids,
        interval_s=interval_s,
        synchronise=synchronise,
        options=options or {},
    )
