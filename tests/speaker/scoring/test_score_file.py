from pathlib import Path

import numpy as np
import pytest

from greensv.errors import DataError
from greensv.speaker.corpora import word_columns
from greensv.speaker.corpora.trial_list import TrialList, read_trial_list
from greensv.speaker.scoring.score_file import read_scores

LIST = "1 s1/a.wav s1/b.wav\n0 s1/a.wav s2/c.wav\n1 s2/c.wav s2/d.wav\n0 s2/c.wav s1/a.wav\n0 s1/a.wav s2/c.wav\n"


@pytest.fixture
def trials(tmp_path: Path) -> TrialList:
    (tmp_path / "list").write_text(LIST)
    return read_trial_list(tmp_path / "list")


def scores_of(tmp_path: Path, text: str) -> Path:
    (tmp_path / "scores").write_text(text)
    return tmp_path / "scores"


IN_ORDER = [
    "s1/a.wav s1/b.wav 0.75",
    "s1/a.wav s2/c.wav -1e-3",
    "s2/c.wav s2/d.wav 2",
    "s2/c.wav s1/a.wav +.5",
    "s1/a.wav s2/c.wav -0.001",
]
EXPECTED = [0.75, -0.001, 2, 0.5, -0.001]


@pytest.mark.parametrize("order", [[0, 1, 2, 3, 4], [4, 3, 2, 1, 0], [2, 0, 3, 1]])
@pytest.mark.parametrize("block_bytes", [16, 1 << 20])
def test_scores_are_matched_by_name_in_any_order_and_a_pair_listed_twice_has_its_score_twice(
    order: list[int], block_bytes: int, trials: TrialList, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(word_columns, "BLOCK_BYTES", block_bytes)
    path = scores_of(tmp_path, "\n".join(IN_ORDER[number] for number in order))
    assert read_scores(path, trials).tolist() == EXPECTED


def test_labels_as_wespeaker_writes_them_are_compared(trials: TrialList, tmp_path: Path) -> None:
    labels = ["target", "nontarget", "target", "nontarget", "nontarget"]
    lines = [f"{line} {label}" for line, label in zip(IN_ORDER, labels, strict=True)]
    assert read_scores(scores_of(tmp_path, "\n".join(lines)), trials).tolist() == EXPECTED
    assert read_scores(scores_of(tmp_path, "\n".join(lines[::-1])), trials).tolist() == EXPECTED
    lines[2] = lines[2].replace(" target", " nontarget")
    with pytest.raises(DataError, match=r"scores:3: labelled nontarget, .* otherwise \(so of 1 of 5 lines\)"):
        read_scores(scores_of(tmp_path, "\n".join(lines)), trials)
    with pytest.raises(DataError, match="scores:3: labelled nontarget"):
        read_scores(scores_of(tmp_path, "\n".join([lines[1], lines[0], *lines[2:]])), trials)


def test_labels_of_pairs_that_the_list_contradicts_itself_about_are_not_compared(tmp_path: Path) -> None:
    (tmp_path / "list").write_text("1 a b\n0 a b\n0 a c\n")
    trials = read_trial_list(tmp_path / "list")
    assert (trials.num_duplicates, trials.num_contradictory) == (0, 2)
    path = scores_of(tmp_path, "a c 0.1 nontarget\na b 0.3 target\n")
    assert read_scores(path, trials).tolist() == [0.3, 0.3, 0.1]
    path = scores_of(tmp_path, "a b 0.3 target\na b 0.3 nontarget\na c 0.1 nontarget\n")
    assert read_scores(path, trials).tolist() == [0.3, 0.3, 0.1]


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("s1/a.wav s2/c.wav nan", "scores:2: the score is nan, not a finite number"),
        ("s1/a.wav s2/c.wav -inf", "scores:2: the score is -inf, not a finite number"),
        ("s1/a.wav s2/c.wav high", "scores:2: score 'high' is no number"),
        ("s1/a.wav s2/c.wav", "scores:2: found 's1/a.wav s2/c.wav', expected `enrolment test score`"),
        ("s1/a.wav s2/c.wav 1 target", "scores:2: found"),
    ],
)
def test_bad_line_is_named(line: str, message: str, trials: TrialList, tmp_path: Path) -> None:
    path = scores_of(tmp_path, "\n".join([IN_ORDER[0], line, *IN_ORDER[2:]]))
    with pytest.raises(DataError, match=message):
        read_scores(path, trials)


def test_other_columns_are_refused(trials: TrialList, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"scores:1: found '0.3' as a fourth word, .* cut other columns off"):
        read_scores(scores_of(tmp_path, "a b 0.5 0.3\n"), trials)
    with pytest.raises(DataError, match=r"scores:1: found 'a b 0.5 target 1 2', expected"):
        read_scores(scores_of(tmp_path, "a b 0.5 target 1 2\n"), trials)
    with pytest.raises(DataError, match="is empty"):
        read_scores(scores_of(tmp_path, "\n\n"), trials)


def test_pairs_without_score_and_scores_without_pair_are_counted_and_named(trials: TrialList, tmp_path: Path) -> None:
    path = scores_of(tmp_path, "\n".join(["s9/x.wav s1/a.wav 0", *IN_ORDER[2:]]))
    with pytest.raises(DataError) as caught:
        read_scores(path, trials)
    message = str(caught.value)
    assert "1 of 5 pairs of" in message
    assert "`s1/a.wav s1/b.wav` (line 1); 1 of 4 scores of" in message
    assert "`s9/x.wav s1/a.wav` (line 1); give the list" in message


@pytest.mark.parametrize(
    ("enrolment", "test", "hint"),
    [
        ("s1/a", "s1/b", "'s1/a' in the score file, 's1/a.wav' in the list"),
        ("s1_a", "s1_b", "'s1_a' in the score file, 's1/a.wav' in the list"),
        ("s1-a.flac", "s1-b.flac", "'s1-a.flac' in the score file, 's1/a.wav' in the list"),
        ("s1/b.wav", "s1/a.wav", "the other way round"),
    ],
)
def test_names_in_another_style_are_recognised(
    enrolment: str, test: str, hint: str, trials: TrialList, tmp_path: Path
) -> None:
    path = scores_of(tmp_path, "\n".join([*IN_ORDER[1:], f"{enrolment} {test} 0.3"]))
    with pytest.raises(DataError, match=hint):
        read_scores(path, trials)


def test_two_scores_of_one_pair_are_an_error(trials: TrialList, tmp_path: Path) -> None:
    path = scores_of(tmp_path, "\n".join([*IN_ORDER[::-1], "s1/a.wav s1/b.wav 0.8"]))
    with pytest.raises(DataError, match=r"lines 5 and 6 give one pair different scores \(0.75 and 0.8; so do 1 lines"):
        read_scores(path, trials)


def test_in_the_lists_order_each_repetition_keeps_the_score_of_its_line(trials: TrialList, tmp_path: Path) -> None:
    path = scores_of(tmp_path, "\n".join([*IN_ORDER[:4], "s1/a.wav s2/c.wav -0.002"]))
    assert read_scores(path, trials).tolist() == [*EXPECTED[:4], -0.002]


def test_many_scores_keep_their_pairs(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    names = [f"id{i:05d}/video_{i % 7}/{i}.wav" for i in range(300)]
    pairs = [(names[a], names[b]) for a, b in zip(rng.integers(0, 300, 5000), rng.integers(0, 300, 5000), strict=True)]
    score_of = {pair: round(float(score), 4) for pair, score in zip(pairs, rng.normal(size=5000), strict=True)}
    (tmp_path / "list").write_text("".join(f"{i % 2} {a} {b}\n" for i, (a, b) in enumerate(pairs)))
    shuffled = [pairs[i] for i in rng.permutation(5000)]
    path = scores_of(tmp_path, "".join(f"{a}\t{b}\t{score_of[a, b]}\n" for a, b in shuffled))
    assert read_scores(path, read_trial_list(tmp_path / "list")).tolist() == [score_of[pair] for pair in pairs]
