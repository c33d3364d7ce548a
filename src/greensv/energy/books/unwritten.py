"""Charges that could not be booked because the database stayed away: kept in a file, and booked by the next process."""

import json
import os
from collections.abc import Iterable
from dataclasses import asdict
from pathlib import Path

from greensv.energy.books.budget import Charge
from greensv.energy.books.ledger import Ledger
from greensv.errors import StudyError

SUFFIX = ".charges.jsonl"


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

    Their leases are closed, or will be reaped, so the account pays. Each is booked once, whoever else does the same.

    Raises:
        StudyError: a file holds no charges; or the ledger cannot be written.
    """
    num_booked = 0
    for path in sorted(folder.glob(f"*{SUFFIX}")):
        try:
            rows = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
            accounts = {row["account"] for row in rows if row["study_id"] == study_id}
            by_account = {name: [_charge(row) for row in rows if row["account"] == name] for name in sorted(accounts)}
        except FileNotFoundError:
            continue  # another process has booked them
        except (ValueError, KeyError, TypeError) as error:
            raise StudyError(
                f"{path} should hold charges that wait to be booked, and does not ({error}); if nothing can be told "
                "from it, remove it: their energy stays missing from the books"
            ) from error
        for account, charges in by_account.items():
            ledger.charge_unreserved(study_id, account, charges)
            num_booked += len(charges)
        if by_account:
            path.unlink(missing_ok=True)
    return num_booked


def _charge(row: dict[str, object]) -> Charge:
    return Charge(**{name: row[name] for name in Charge.__dataclass_fields__})  # type: ignore[arg-type]
