import dataclasses
import uuid
from pathlib import Path

import pytest
from sqlalchemy import Engine, create_engine

from greensv.energy.books.budget import Charge
from greensv.energy.books.ledger import Ledger
from greensv.energy.books.unwritten import book_unwritten, save_unwritten
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
    with pytest.raises(StudyError, match=r"2 charges could not be written .*missing from the books"):
        save_unwritten(tmp_path / "nowhere", charges, study_id=STUDY, account="search")


@pytest.mark.parametrize("content", ["not json\n", "{}\n", '{"study_id": "STUDY", "account": "search"}\n'])
def test_a_file_that_holds_no_charges_is_told_and_kept(tmp_path: Path, ledger: Ledger, content: str) -> None:
    path = tmp_path / "1-x.charges.jsonl"
    path.write_text(content.replace("STUDY", STUDY))
    with pytest.raises(StudyError, match=r"1-x\.charges\.jsonl should hold charges"):
        book_unwritten(tmp_path, ledger, study_id=STUDY)
    assert path.exists()
