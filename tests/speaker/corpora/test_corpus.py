from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import soundfile
from hypothesis import given, settings
from hypothesis import strategies as st

from greensv.errors import DataError
from greensv.speaker.corpora.corpus import (
    build_utterances,
    check_disjoint,
    hold_out_speakers,
    join,
    make_pairs,
    measure_utterances,
    select,
)
from greensv.speaker.dataset import Utterances


def spoken_by(*speakers: str, prefix: str = "u") -> Utterances:
    ids = [f"{prefix}{i}" for i in range(len(speakers))]
    lengths = np.arange(1, len(ids) + 1) * 1_000
    return build_utterances(ids=ids, paths=[f"/{i}.wav" for i in ids], speaker_of=speakers, num_samples=lengths)


def test_speakers_are_numbered_in_the_order_of_their_names() -> None:
    utterances = spoken_by("carl", "anna", "carl", "bert")
    assert utterances.speaker_names == ("anna", "bert", "carl")
    assert utterances.speakers.tolist() == [2, 0, 2, 1]
    assert utterances.duration_s == 10_000 / 16_000


def test_a_selection_numbers_its_speakers_anew() -> None:
    chosen = select(spoken_by("anna", "bert", "carl"), [2, 1])
    assert chosen.ids == ("u2", "u1")
    assert chosen.speaker_names == ("bert", "carl")
    assert chosen.speakers.tolist() == [1, 0]
    assert chosen.num_samples.tolist() == [3_000, 2_000]


def test_two_utterances_of_one_id_are_refused_and_named() -> None:
    with pytest.raises(DataError, match=r"2 utterance ids come more than once \(a, b\)"):
        build_utterances(
            ids=["a", "b", "a", "c", "b", "a"], paths=["/x"] * 6, speaker_of=["s"] * 6, num_samples=np.ones(6, np.int64)
        )


def test_sets_that_share_an_id_are_not_joined() -> None:
    with pytest.raises(DataError, match=r"1 utterance ids are in both sets \(u0\)"):
        join(spoken_by("anna"), spoken_by("bert"))


@settings(max_examples=50, deadline=None)
@given(speakers=st.lists(st.sampled_from("edcba"), min_size=1, max_size=20), data=st.data())
def test_a_selection_keeps_who_said_what(speakers: list[str], data: st.DataObject) -> None:
    whole = replace(spoken_by(*speakers), is_resampled=True)
    indices = data.draw(st.permutations(range(len(speakers))))[: data.draw(st.integers(1, len(speakers)))]
    chosen = select(whole, indices)
    assert [chosen.speaker_names[s] for s in chosen.speakers] == [speakers[i] for i in indices]
    assert chosen.speaker_names == tuple(sorted({speakers[i] for i in indices}))
    assert chosen.ids == tuple(whole.ids[i] for i in indices)
    assert chosen.paths == tuple(whole.paths[i] for i in indices)
    assert (chosen.num_samples == whole.num_samples[indices]).all()
    assert chosen.is_resampled


def test_held_out_speakers_and_the_rest_together_are_the_whole() -> None:
    whole = spoken_by("anna", "bert", "anna", "carl", "dora", "dora")
    rest, held_out = hold_out_speakers(whole, num_speakers=2, seed=3)
    assert held_out.num_speakers == 2
    assert set(rest.speaker_names).isdisjoint(held_out.speaker_names)
    both = join(rest, held_out)
    assert sorted(both.ids) == sorted(whole.ids)
    assert both.speaker_names == whole.speaker_names
    assert {i: both.speaker_names[s] for i, s in zip(both.ids, both.speakers, strict=True)} == {
        i: whole.speaker_names[s] for i, s in zip(whole.ids, whole.speakers, strict=True)
    }


def test_the_seed_alone_chooses_the_held_out_speakers() -> None:
    speakers = [f"s{i:02d}" for i in range(30)]
    choices = [hold_out_speakers(spoken_by(*speakers), num_speakers=5, seed=s)[1].speaker_names for s in (1, 1, 2)]
    assert choices[0] == choices[1]
    assert choices[0] != choices[2]
    assert hold_out_speakers(spoken_by(*reversed(speakers)), num_speakers=5, seed=1)[1].speaker_names == choices[0]


def test_two_speakers_must_remain_for_training() -> None:
    with pytest.raises(DataError, match="2 of 3 speakers cannot be held out"):
        hold_out_speakers(spoken_by("anna", "bert", "carl"), num_speakers=2, seed=0)


def test_all_pairs_are_made_where_there_are_few() -> None:
    pairs = make_pairs(spoken_by("anna", "bert", "anna", "anna"), num_target=100, num_nontarget=100, seed=0)
    made = {(int(a), int(b)): bool(t) for a, b, t in zip(pairs.enrolment, pairs.test, pairs.is_target, strict=True)}
    assert len(made) == len(pairs) == 6
    assert {pair for pair, is_target in made.items() if is_target} == {(0, 2), (0, 3), (2, 3)}
    assert {tuple(sorted(pair)) for pair, is_target in made.items() if not is_target} == {(0, 1), (1, 2), (1, 3)}


@settings(max_examples=60, deadline=None)
@given(
    speakers=st.lists(st.sampled_from("abcdef"), min_size=3, max_size=40).filter(lambda s: 2 <= len(set(s)) < len(s)),
    num_target=st.integers(1, 60),
    num_nontarget=st.integers(1, 200),
    seed=st.integers(0, 5),
)
def test_pairs_are_as_many_as_asked_or_all_and_never_repeat(
    speakers: list[str], num_target: int, num_nontarget: int, seed: int
) -> None:
    utterances = spoken_by(*speakers)
    pairs = make_pairs(utterances, num_target=num_target, num_nontarget=num_nontarget, seed=seed)
    num = len(speakers)
    num_same = sum(speakers[i] == speakers[j] for i in range(num) for j in range(i))
    assert pairs.is_target.sum() == min(num_target, num_same)
    assert (~pairs.is_target).sum() == min(num_nontarget, num * (num - 1) // 2 - num_same)
    unordered = {tuple(sorted(pair)) for pair in zip(pairs.enrolment.tolist(), pairs.test.tolist(), strict=True)}
    assert len(unordered) == len(pairs)
    assert (pairs.enrolment != pairs.test).all()
    assert ((utterances.speakers[pairs.enrolment] == utterances.speakers[pairs.test]) == pairs.is_target).all()


def test_the_seed_chooses_the_pairs() -> None:
    utterances = spoken_by(*(f"s{i % 10}" for i in range(100)))
    first, same, other = (make_pairs(utterances, num_target=50, num_nontarget=50, seed=s) for s in (1, 1, 2))
    assert (first.enrolment == same.enrolment).all()
    assert (first.test == same.test).all()
    assert (first.enrolment != other.enrolment).any()


@pytest.mark.parametrize("speakers", [("anna", "bert"), ("anna", "anna")])
def test_pairs_of_one_kind_only_are_refused(speakers: tuple[str, ...]) -> None:
    with pytest.raises(DataError, match="make no pairs of both kinds"):
        make_pairs(spoken_by(*speakers), num_target=5, num_nontarget=5, seed=0)


def test_shared_speakers_are_refused_and_named() -> None:
    with pytest.raises(DataError, match=r"train and dev share 1 speakers \(bert\)"):
        check_disjoint(
            spoken_by("anna", "bert"), spoken_by("bert", "carl", prefix="v"), first_name="train", second_name="dev"
        )


def test_shared_files_are_refused_and_named() -> None:
    with pytest.raises(DataError, match=r"train and dev share 2 audio files \(/u0\.wav, /u1\.wav\)"):
        check_disjoint(spoken_by("anna", "bert"), spoken_by("carl", "dora"), first_name="train", second_name="dev")


def test_lengths_are_measured_in_order_and_progress_is_told(tmp_path: Path) -> None:
    lengths = np.random.default_rng(0).integers(1_600, 3_000, size=1_100)
    for i, length in enumerate(lengths):
        soundfile.write(tmp_path / f"{i}.wav", np.zeros(length, dtype=np.int16), 16_000)
    told: list[tuple[int, int]] = []
    measured = measure_utterances(
        [str(tmp_path / f"{i}.wav") for i in range(1_100)],
        sample_rate_hz=16_000,
        where=str,
        progress=lambda _, done, total: told.append((done, total)),
    )
    assert measured.tolist() == lengths.tolist()
    assert told == [(500, 1_100), (1_000, 1_100), (1_100, 1_100)]


def test_a_bad_file_is_reported_with_its_line(tmp_path: Path) -> None:
    soundfile.write(tmp_path / "slow.wav", np.zeros(2_000), 8_000)
    soundfile.write(tmp_path / "short.wav", np.zeros(1_599), 16_000)
    with pytest.raises(DataError, match=r"list:7: .*slow\.wav has a sample rate of 8000 Hz"):
        measure_utterances([str(tmp_path / "slow.wav")], sample_rate_hz=16_000, where=lambda i: f"list:{i + 7}")
    with pytest.raises(DataError, match=r"list:7: .*short\.wav lasts 0\.100 s, at least 0\.1 s"):
        measure_utterances([str(tmp_path / "short.wav")], sample_rate_hz=16_000, where=lambda i: f"list:{i + 7}")
