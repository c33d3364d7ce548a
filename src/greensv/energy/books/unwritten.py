"""Charges that could not be booked because the database was away: kept in a file, and booked by the next process."""

import errno
import json
import logging
import os
import time
import uuid
from collections.abc import Iterable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from greensv.energy.books.budget import Charge, Holder, Lease, is_alive, this_process
from greensv.energy.books.ledger import Ledger
from greensv.errors import StudyError

logger = logging.getLogger(__name__)

SUFFIX = ".charges.jsonl"


class Outage:
    """What a process uses while the database is away: in a file meanwhile, for the case that the process is killed.

    Written without waiting for the disk: what was written outlives the process, though not a power cut. A folder that
    cannot be written is logged and stops nothing. For one thread at a time.
    """

    def __init__(self, folder: Path, *, study_id: str, account: str) -> None:
        self._path = folder / f"{os.getpid()}-{uuid.uuid4()}{SUFFIX}"
        self._study = {"study_id": study_id, "account": account, "holder": asdict(this_process())}
        self._kept: set[str] = set()
        self._is_told = False

    def keep(self, lease: Lease | None, charges: Sequence[Charge], *, peak_power_w: float, next_beat_s: float) -> None:
        """Adds the charges that are not in the file yet, with what `Ledger.charge` needs to renew their lease."""
        new = [charge for charge in charges if charge.id not in self._kept]
        if not new:
            return
        beat = {"lease": lease and asdict(lease), "peak_power_w": peak_power_w, "next_beat_s": next_beat_s}
        data = "".join(json.dumps({**self._study, **beat, **asdict(charge)}) + "\n" for charge in new).encode()
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            with self._path.open("ab", buffering=0) as file:
                end = file.tell()
                if file.write(data) < len(data):  # the disk is full: no half of a line is left behind
                    file.truncate(end)
                    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        except OSError as error:
            if not self._is_told:
                logger.warning("%s cannot be written (%s): energy is lost if this process is killed", self._path, error)
            self._is_told = True
        else:
            self._kept |= {charge.id for charge in new}

    def end(self) -> None:
        """Removes the file: the database has taken all that is in it."""
        if self._kept:
            self._path.unlink(missing_ok=True)
            self._kept.clear()


def save_unwritten(folder: Path, charges: Iterable[Charge], *, study_id: str, account: str) -> Path | None:
    """Writes charges to a new file in a study's folder and returns it; None when there are none.

    Raises:
        StudyError: the folder cannot be written either.
    """
    lines = [json.dumps({"study_id": study_id, "account": account, **asdict(charge)}) for charge in charges]
    if not lines:
        return None
    path = folder / f"{os.getpid()}-{json.loads(lines[0])['id']}{SUFFIX}"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with path.open("x", encoding="utf-8") as file:
            file.write("\n".join(lines) + "\n")
            file.flush()
            os.fsync(file.fileno())
    except OSError as error:
        raise StudyError(
            f"{len(lines)} charges could not be written to the database, nor to {path}: {error.strerror}; their energy "
            "is missing from the books; make room before running the same command again"
        ) from error
    return path


def book_unwritten(folder: Path, ledger: Ledger, *, study_id: str) -> int:
    """Books the charges that earlier processes left in a study's folder and removes their files; returns how many.

    Those of a process that ended by itself are paid by the account: its leases are closed, or will be reaped. Those of
    one that was killed are paid by their leases, which are renewed up to the last charge: whoever reaps them next
    assumes use from then on only. Files of processes that still run are left to them. Each charge is booked once,
    whoever else does the same.

    Raises:
        StudyError: a file holds no charges; or the ledger cannot be written.
    """
    num_booked = 0
    for path in sorted(folder.glob(f"*{SUFFIX}")):
        try:
            lines = path.read_text(encoding="utf-8").split("\n")[:-1]  # a process may be killed within its last line
            rows = [row for row in map(json.loads, lines) if row["study_id"] == study_id]
            if any(is_alive(Holder(**row["holder"])) for row in rows if "holder" in row):
                continue
            payers: dict[tuple[str, Lease | None], list[dict[str, Any]]] = {}
            for row in rows:
                payers.setdefault((row["account"], _lease(row)), []).append(row)
            charges = {payer: [_charge(row) for row in of_payer] for payer, of_payer in payers.items()}
        except FileNotFoundError:
            continue  # another process has booked them
        except (ValueError, KeyError, TypeError) as error:
            raise StudyError(
                f"{path} should hold charges that wait to be booked, and does not ({error}); if nothing can be told "
                "from it, remove it: their energy stays missing from the books"
            ) from error
        for (account, lease), to_book in charges.items():
            last = payers[account, lease][-1]
            try:
                if lease is None:
                    raise LookupError
                ledger.charge(
                    lease,
                    to_book,
                    peak_power_w=last["peak_power_w"],
                    next_beat_s=last["next_beat_s"],
                    age_s=max(0.0, time.time() - to_book[-1].ended_at),
                )
            except LookupError:  # without a lease, or with one that this database, an older copy, does not know
                ledger.charge_unreserved(study_id, account, to_book)
            num_booked += len(to_book)
        if rows:
            path.unlink(missing_ok=True)
    return num_booked


def _charge(row: dict[str, Any]) -> Charge:
    return Charge(**{name: row[name] for name in Charge.__dataclass_fields__})


def _lease(row: dict[str, Any]) -> Lease | None:
    lease = row.get("lease")
    return None if lease is None else Lease(**{**lease, "holder": Holder(**lease["holder"])})
