"""Writes down, every few seconds, what the devices are doing: utilisation, memory, clocks, temperature.

It explains energy and charges none, so nothing that goes wrong with it may stop the work: it is logged once.
"""

import logging
import threading
import time
from collections.abc import Callable, Sequence
from types import TracebackType
from typing import Self, TypeVar

from sqlalchemy import Engine

from greensv.energy.baseline.idle import this_host
from greensv.energy.books.accrual import Use
from greensv.energy.books.schema import transaction
from greensv.energy.devices.device_state import DeviceReader
from greensv.energy.devices.telemetry_book import TelemetryRecord, record_telemetry
from greensv.errors import GreensvError

logger = logging.getLogger(__name__)

Result = TypeVar("Result")

WRITE_INTERVAL_S = 10.0
"""Seconds between two transactions: each is an fsync."""
MAX_UNWRITTEN = 10_000
"""Beyond, while the database cannot be written, the oldest records are dropped."""


class Telemetry:
    """Reads devices from a thread of its own; a context manager that starts and stops it.

    Args:
        readers: of the devices; closed at the end.
        engine: the study's database.
        study_id: the study.
        account: the account whose work it is.
        use: what the work is at this moment.
        interval_s: seconds between two records.
        clock: the time in UTC epoch seconds.
    """

    def __init__(
        self,
        readers: Sequence[DeviceReader],
        engine: Engine,
        *,
        study_id: str,
        account: str,
        use: Callable[[], Use],
        interval_s: float,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._readers = tuple(readers)
        self._engine = engine
        self._study_id, self._account = study_id, account
        self._use = use
        self._interval_s = interval_s
        self._clock = clock
        self._unwritten: list[TelemetryRecord] = []
        self._told: set[str] = set()
        self._stopping = threading.Event()
        self._thread: threading.Thread | None = None

    def __enter__(self) -> Self:
        self._thread = threading.Thread(target=self._run, name="greensv-telemetry", daemon=True)
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stopping.set()
        if self._thread is not None:
            self._thread.join()
            self._thread = None
        for reader in self._readers:
            self._guarded(reader.close, what="closing")

    def read(self) -> None:
        """Reads every device once. A reader that fails is passed over."""
        use, at, host = self._use(), self._clock(), this_host()
        for reader in self._readers:
            for state in self._guarded(reader.read, what=type(reader).__name__) or ():
                self._unwritten.append(
                    TelemetryRecord(at=at, host=host, purpose=use.purpose, trial_number=use.trial_number, state=state)
                )

    def write(self) -> None:
        """Writes what was read in one transaction; what cannot be written now is written with what comes next."""
        if self._guarded(self._write, what="writing"):
            self._unwritten.clear()
        del self._unwritten[:-MAX_UNWRITTEN]

    def _write(self) -> bool:
        if self._unwritten:
            with transaction(self._engine) as connection:
                record_telemetry(connection, self._study_id, self._account, self._unwritten)
        return True

    def _run(self) -> None:
        written_s = time.monotonic()
        while not self._stopping.wait(self._interval_s):
            self.read()
            if time.monotonic() - written_s >= WRITE_INTERVAL_S:
                self.write()
                written_s = time.monotonic()
        self.write()

    def _guarded(self, call: Callable[[], Result], *, what: str) -> Result | None:
        """Returns what the call returns; None when it fails, which is logged the first time."""
        try:
            return call()
        except GreensvError as error:
            if self._is_news(what):
                logger.warning("telemetry, %s: %s (said once)", what, error)
        except Exception:
            if self._is_news(what):
                logger.exception("telemetry, %s, failed (said once)", what)
        return None

    def _is_news(self, what: str) -> bool:
        is_news = what not in self._told
        self._told.add(what)
        return is_news
