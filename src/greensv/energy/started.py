"""A monitor that reads already: the installed meters by name, for any program, without a study or a database."""

import atexit
import logging
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Self

from greensv.energy.baseline.gains import load_gains, with_gains
from greensv.energy.meter import Meter
from greensv.energy.metering.selection import AUTO, NO_OPTIONS, Choice, choose_meters, open_meters
from greensv.energy.monitoring import Monitor

logger = logging.getLogger(__name__)


class StartedMonitor(Monitor):
    """A `Monitor` that has been started. Leaving a `with` block, `stop`, or the end of the interpreter stops it."""

    choices: tuple[Choice, ...] = ()
    """Every meter that was considered, and why it is used or not."""

    def __enter__(self) -> Self:
        return self

    def start(self) -> None:
        """Starts reading, and sees to it that the end of the interpreter stops it. Raises as `Monitor.start`."""
        super().start()
        atexit.register(self._stop_quietly)

    def stop(self) -> None:
        """Reads a last time and closes the meters. The totals stay."""
        atexit.unregister(self._stop_quietly)
        super().stop()

    def _stop_quietly(self) -> None:
        try:
            super().stop()
        except Exception as error:  # noqa: BLE001 - nobody is left to mend it
            logger.debug("an energy monitor could not be stopped at the end of the interpreter: %s", error)


def start_monitor(
    meters: Iterable[Meter],
    names: Sequence[str] = (AUTO,),
    *,
    also: Sequence[str] = (),
    gpu_uuids: Sequence[str] | None = None,
    interval_s: float = 1.0,
    synchronise: Callable[[], None] | None = None,
    options: Mapping[str, Mapping[str, Any]] = NO_OPTIONS,
) -> StartedMonitor:
    """Chooses among meters, opens and starts them. Arguments and errors as of `greensv.energy.monitor`."""
    choices = choose_meters(
        meters,
        names,
        also=also,
        gpu_uuids=gpu_uuids or (),
        uses_visible_gpus=gpu_uuids is None,
        options=options,
    )
    gains = load_gains()  # first: a damaged file must not leave meters open
    opened = with_gains(open_meters(choices), gains)
    monitor = StartedMonitor(opened, interval_s=interval_s, synchronise=synchronise)
    monitor.choices = choices
    monitor.start()
    return monitor


def installed_meters(names: Iterable[str]) -> tuple[Meter, ...]:
    """Returns greensv's meters, and those of all plugins where a name is not one of greensv's; failures are logged.

    The one place where `energy` reaches up to the plugins: a program that only measures needs no more than its meters'
    names, as on the command line. Everything else here takes its meters as arguments.
    """
    from greensv.plugins import load_meters

    plugins = load_meters(names)
    for problem in plugins.problems:
        logger.warning("%s", problem)
    return tuple(plugins.all("meter"))
