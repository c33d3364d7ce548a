import dataclasses
import os
import uuid
from pathlib import Path

import pytest
from sqlalchemy import Engine, create_engine

from greensv.energy.books.budget import Charge, is_alive, this_process
from greensv.energy.books.ledger import Ledger
from greensv.energy.books.unwritten import Outage, book_unwritten, save_unwritten
from greensv.errors import StudyError

STUDY = str(uuid.uuid4())


@pytest.fixture
def ledger(tmp_path: Path):
    engine: Engine = create_engine(f"sqlite:///{tmp_path / 'study.db'}")
    ledger = Ledger(engine)
    ledger.open_account(STUDY, "search", 1000)
    yield ledger
    engine.dispose()


@pytest.fixture
def charges() -> list[Charge]:
    charge = Charge(
        purpose="training",
        trial_number=3,
        started_at=10.0,
        ended_at=12.5,
        meter="rapl",
        domain="cpu:0",
        quality="measured",
        energy_uj=7,
        pue=1.25,
        uncertainty_uj=2,
    )
    return [charge, dataclasses.replace(charge, id=str(uuid.uuid4()), energy_uj=30, uncertainty_uj=None)]


def test_charges_kept_in_a_file_are_booked_once_by_the_next_process(
    tmp_path: Path, ledger: Ledger, charges: list[Charge]
) -> None:
    ledger.charge_unreserved(STUDY, "search", charges[:1])  # the commit of which got no answer
    path = save_unwritten(tmp_path, charges, study_id=STUDY, account="search")
    assert path is not None
    copy = path.read_text()
    assert book_unwritten(tmp_path, ledger, study_id=STUDY) == 2
    assert not path.exists()
    path.write_text(copy)  # as if the process had been killed before it could remove it
    book_unwritten(tmp_path, ledger, study_id=STUDY)
    assert ledger.trial_energy_uj(STUDY, "search", 3) == 37
    ledger.verify(STUDY)
    assert book_unwritten(tmp_path, ledger, study_id=STUDY) == 0


def test_charges_of_another_study_are_left_where_they_are(
    tmp_path: Path, ledger: Ledger, charges: list[Charge]
) -> None:
    path = save_unwritten(tmp_path, charges, study_id="another", account="search")
    assert path is not None
    assert book_unwritten(tmp_path, ledger, study_id=STUDY) == 0
    assert path.exists()


def test_nothing_to_keep_leaves_no_file(tmp_path: Path) -> None:
    assert save_unwritten(tmp_path, [], study_id=STUDY, account="search") is None
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_cannot_be_written_is_told(tmp_path: Path, charges: list[Charge]) -> None:
    (tmp_path / "nowhere").write_text("no folder")
    (tmp_path / "file").touch()
    with pytest.raises(StudyError, match=r"2 charges could not be written .*missing from the books"):
        save_unwritten(tmp_path / "file" / "nowhere", charges, study_id=STUDY, account="search")


@pytest.mark.parametrize("content", ["not json\n", "{}\n", '{"study_id": "STUDY", "account": "search"}\n'])
def test_a_file_that_holds_no_charges_is_told_and_kept(tmp_path: Path, ledger: Ledger, content: str) -> None:
    path = tmp_path / "1-x.charges.jsonl"
    path.write_text(content.replace("STUDY", STUDY))
    with pytest.raises(StudyError, match=r"1-x\.charges\.jsonl should hold charges"):
        book_unwritten(tmp_path, ledger, study_id=STUDY)
    assert path.exists()


def test_a_line_that_a_killed_process_did_not_finish_is_passed_over(
    tmp_path: Path, ledger: Ledger, charges: list[Charge]
) -> None:
    path = save_unwritten(tmp_path, charges, study_id=STUDY, account="search")
    assert path is not None
    path.write_text(path.read_text()[:-20])
    assert book_unwritten(tmp_path, ledger, study_id=STUDY) == 1
    assert ledger.trial_energy_uj(STUDY, "search", 3) == 7


@pytest.mark.parametrize("lease_is_known", [True, False])
def test_charges_of_a_lease_are_paid_by_it_or_where_it_is_not_known_by_the_account(
    tmp_path: Path, ledger: Ledger, charges: list[Charge], lease_is_known: bool
) -> None:
    holder = dataclasses.replace(this_process(), pid=2**22 + 1)  # beyond the kernel's PIDs: it cannot run
    lease = ledger.reserve(STUDY, "search", 500, purpose="training", trial_number=3, holder=holder, ttl_s=60.0)
    assert lease is not None
    known = lease if lease_is_known else dataclasses.replace(lease, id=str(uuid.uuid4()))
    outage = Outage(tmp_path, study_id=STUDY, account="search")
    outage.keep(known, charges, peak_power_w=1e-6, next_beat_s=8.0)
    outage.keep(known, charges, peak_power_w=1e-6, next_beat_s=8.0)
    (path,) = tmp_path.glob("*.jsonl")
    path.write_text(path.read_text().replace(f'"pid": {os.getpid()}', f'"pid": {holder.pid}'))
    assert book_unwritten(tmp_path, ledger, study_id=STUDY) == 2
    statement = ledger.statement(STUDY, "search")
    assert (statement.spent_uj, statement.reserved_uj) == (37, 463 if lease_is_known else 500)
    (reaped,) = ledger.reap(STUDY, is_alive=is_alive)
    assert reaped.charged_uj <= (8 if lease_is_known else 0), "1 uW for 8 s at the most"
    ledger.verify(STUDY)
