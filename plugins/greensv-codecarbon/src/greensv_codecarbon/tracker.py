"""CodeCarbon itself, by its public interface: an offline tracker, and an output handler that keeps what it tells."""

import contextlib
import io
import logging
import time
from collections.abc import Iterator

from greensv.energy.meter import DomainKind
from greensv.errors import MeterError

MICROJOULES_PER_KWH = 3.6e12
LONG_S = 86_400.0
"""CodeCarbon measures every so often by itself, from a thread of its own, and whenever it is asked. Both at once count
some energy twice, since it holds no lock; greensv asks each second, so its own schedule only gets in the way."""


class Tracker:
    """A started `OfflineEmissionsTracker`: no network, no files, no log.

    Settings of the user's own `.codecarbon.config` hold, but for those given here.

    Args:
        needs_gpu: whether a tracker that finds no GPU is an error.

    Raises:
        MeterError: CodeCarbon cannot be started.
    """

    def __init__(self, *, needs_gpu: bool) -> None:
        try:
            with _quiet():
                from codecarbon import OfflineEmissionsTracker
                from codecarbon.output_methods.base_output import BaseOutput

                class Latest(BaseOutput):
                    """Keeps what CodeCarbon hands out."""

                    total: object = None

                    def out(self, total: object, delta: object) -> None:
                        self.total = total

                self._latest = Latest()
                logging.getLogger("codecarbon").setLevel(logging.CRITICAL)
                self._tracker = OfflineEmissionsTracker(
                    country_iso_code="FRA",  # for grams of CO2, which nobody asks for
                    tracking_mode="machine",
                    measure_power_secs=LONG_S,
                    output_methods=[],
                    output_handlers=[self._latest],
                    log_level="critical",
                    allow_multiple_runs=True,
                )
                num_gpus = self._tracker.get_detected_hardware()["gpu_count"]
                if needs_gpu and not num_gpus:
                    raise MeterError("meter 'codecarbon': CodeCarbon finds no GPU; see whether nvidia-smi works")
                self._tracker.start()
        except MeterError:
            raise
        # CodeCarbon swallows what goes wrong, and then trips over what is missing.
        except Exception as error:
            raise MeterError(
                f"meter 'codecarbon' could not be started ({type(error).__name__}: {error}); "
                "see whether `codecarbon monitor` works here"
            ) from error

    def measure(self) -> tuple[dict[DomainKind, int], float]:
        """Returns microjoules since the start by kind, and when they were measured.

        Raises:
            MeterError: CodeCarbon told nothing.
        """
        self._latest.total = None
        self._tracker.flush()
        taken_at_s, total = time.monotonic(), self._latest.total
        if total is None:
            raise MeterError("meter 'codecarbon': CodeCarbon told nothing; what went wrong it keeps to itself")
        return {
            "cpu": round(total.cpu_energy * MICROJOULES_PER_KWH),
            "dram": round(total.ram_energy * MICROJOULES_PER_KWH),
            "gpu": round(total.gpu_energy * MICROJOULES_PER_KWH),
        }, taken_at_s

    def stop(self) -> None:
        """Ends the tracker's thread."""
        self._tracker.stop()


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Importing CodeCarbon prints and logs about AMD's library where it is not whole.

    It silences the whole process, so it is for the start alone: afterwards the program prints and logs its own things
    from other threads.
    """
    disabled = logging.root.manager.disable
    logging.disable(logging.CRITICAL)
    try:
        with contextlib.redirect_stdout(io.StringIO()):
            yield
    finally:
        logging.disable(disabled)
