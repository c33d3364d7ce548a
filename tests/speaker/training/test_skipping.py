import pytest

from greensv.errors import DataError
from greensv.speaker.dataset import Skipped
from greensv.speaker.training.skipping import SkippedUtterances


def broken(numbers: range, reason: str = "{} is damaged") -> list[Skipped]:
    return [Skipped(path=f"/data/{n}.wav", reason=reason.format(f"/data/{n}.wav")) for n in numbers]


def test_a_file_met_twice_is_remembered_once_with_its_first_reason() -> None:
    skipped = SkippedUtterances(100)
    skipped.add(broken(range(3)))
    skipped.add(broken(range(2, 4), reason="no audio file {}"))
    assert list(skipped.reasons) == [f"/data/{n}.wav" for n in range(4)]
    assert skipped.reasons["/data/2.wav"] == "/data/2.wav is damaged"


def test_ten_or_one_in_a_hundred_may_be_unreadable_and_no_more() -> None:
    few, many = SkippedUtterances(24), SkippedUtterances(5000)
    few.add(broken(range(10)))
    many.add(broken(range(50)))
    with pytest.raises(DataError, match="11 of 24 training utterances cannot be read"):
        few.add(broken(range(10, 11)))
    with pytest.raises(DataError, match="51 of 5000"):
        many.add(broken(range(50, 51)))


def test_the_error_names_the_commonest_reasons_without_the_files() -> None:
    skipped = SkippedUtterances(24)
    skipped.add(broken(range(4), reason="no audio file {}"))
    with pytest.raises(DataError, match=r"such as /data/0\.wav \(7 times: the file is damaged; 4 times: no audio file"):
        skipped.add(broken(range(4, 11)))
