from pathlib import Path
from typing import Any

import numpy as np
import pytest

from greensv.builtin.datasets.cnceleb import CnCelebDataset, CnCelebOptions, greensv_datasets
from greensv.config.load import validate
from greensv.errors import DataError
from greensv.speaker.dataset import Corpus, Protocol, ignore_progress
from greensv.testing.dataset_contract import DatasetContract

DEV = ("id00000", "id00001", "id00002", "id00799")
EVAL = ("id00800", "id00999")
SECOND = ("id10000", "id11999")
GENRES = ("singing", "live_broadcast")

TRIALS = (
    "id00800-enroll test/id00800-singing-01-005.wav 1\n"
    "id00800-enroll test/id00800-live_broadcast-02-001.wav 1\n"
    "id00800-enroll test/id00999-singing-01-005.wav 0\n"
    "id00999-enroll test/id00999-live_broadcast-02-001.wav 1\n"
    "id00999-enroll test/id00800-singing-01-005.wav 0\n"
)


def write_tree(root: Path, write_speech: Any) -> Path:
    """As cn-celeb_v2.tar.gz and cn-celeb2_v2.tar.gz unpack, whose lists say .wav of .flac files."""
    first, second = root / "CN-Celeb_flac", root / "CN-Celeb2_flac"
    for folder, speakers in ((first, DEV + EVAL), (second, SECOND)):
        for speaker in speakers:
            for genre in GENRES:
                for number in (1, 2):
                    write_speech(folder / f"data/{speaker}/{genre}-01-{number:03d}.flac")
    for speaker in EVAL:
        write_speech(first / f"eval/enroll/{speaker}-enroll.flac")
        write_speech(first / f"eval/test/{speaker}-singing-01-005.flac")
        write_speech(first / f"eval/test/{speaker}-live_broadcast-02-001.flac")
    lists = first / "eval/lists"
    lists.mkdir()
    (lists / "trials.lst").write_text(TRIALS)
    (lists / "enroll.lst").write_text("".join(f"{s}-enroll enroll/{s}-enroll.wav\n" for s in EVAL))
    (lists / "enroll.map").write_text(
        "id00800-enroll id00800/singing-01-001.wav id00800/singing-01-002.wav id00800/live_broadcast-01-001.wav\n"
        "id00999-enroll id00999/singing-01-002.wav\n"
    )
    (lists / "test.lst").write_text("".join(f"test/{s}-singing-01-005.wav\n" for s in EVAL))
    (first / "dev").mkdir()
    (first / "dev/dev.lst").write_text("\n".join(DEV) + "\n")
    (second / "spk.lst").write_text("\n".join(SECOND) + "\n")
    return root


@pytest.fixture
def root(tmp_path: Path, write_speech: Any) -> Path:
    return write_tree(tmp_path / "data", write_speech)


def load(root: Path | None, **given: Any) -> Corpus:
    cache = (root or Path("/")).parent / "cache"
    options = CnCelebOptions(**{"num_dev_speakers": 2, **given})
    return CnCelebDataset().load(root, options, cache_dir=cache, progress=ignore_progress)


def load_tests(root: Path, **given: Any) -> tuple[Protocol, ...]:
    return CnCelebDataset().load_tests(
        root, CnCelebOptions(**given), cache_dir=root.parent / "cache", progress=ignore_progress
    )


class TestCnCeleb(DatasetContract):
    dataset = CnCelebDataset()
    options = CnCelebOptions(num_dev_speakers=2)

    @pytest.fixture(scope="class")
    @classmethod
    def root(cls, tmp_path_factory: pytest.TempPathFactory, write_speech: Any) -> Path:
        return write_tree(tmp_path_factory.mktemp("cnceleb"), write_speech)


def test_the_hook_returns_the_dataset() -> None:
    assert [dataset.name for dataset in greensv_datasets()] == ["cnceleb"]


def test_options_come_from_toml_and_mistakes_are_reported() -> None:
    record, problems = validate(CnCelebOptions, {"train": ["cnceleb1"], "tests": ["average"]})
    assert (record, problems) == (CnCelebOptions(train=("cnceleb1",), tests=("average",)), [])
    _, problems = validate(CnCelebOptions, {"tests": ["mean"], "train": []})
    assert {problem.where for problem in problems} == {"train", "tests[0]"}


def test_training_speakers_are_those_of_dev_lst_and_all_of_the_second_corpus(root: Path) -> None:
    corpus = load(root)
    assert sorted(corpus.train.speaker_names + corpus.dev.utterances.speaker_names) == [*DEV, *SECOND]
    assert len(corpus.train) + len(corpus.dev.utterances) == 6 * 4
    assert "singing-01-001" in " ".join(corpus.train.ids)
    first = load(root, train=("cnceleb1",))
    assert sorted(first.train.speaker_names + first.dev.utterances.speaker_names) == [*DEV]


def test_concatenated_enrolment_has_one_file_per_speaker(root: Path) -> None:
    protocol, _ = load_tests(root)
    assert protocol.name == "CN-Celeb-concat"
    assert protocol.models == ()
    enrolment = protocol.utterances.paths[protocol.pairs.enrolment[0]]
    assert enrolment == str(root / "CN-Celeb_flac/eval/enroll/id00800-enroll.flac")
    assert protocol.utterances.ids[protocol.pairs.test[1]] == "test/id00800-live_broadcast-02-001.wav"
    assert protocol.pairs.is_target.tolist() == [True, True, False, True, False]


def test_averaged_enrolment_has_a_model_of_the_utterances_of_enroll_map(root: Path) -> None:
    _, protocol = load_tests(root)
    assert protocol.name == "CN-Celeb-average"
    ids = np.array(protocol.utterances.ids)
    assert [ids[model].tolist() for model in protocol.models] == [
        ["id00800/singing-01-001.wav", "id00800/singing-01-002.wav", "id00800/live_broadcast-01-001.wav"],
        ["id00999/singing-01-002.wav"],
    ]
    assert protocol.pairs.enrolment.tolist() == [0, 0, 0, 1, 1]
    assert ids[protocol.pairs.test].tolist() == [line.split()[1] for line in TRIALS.splitlines()]
    assert protocol.utterances.paths[0] == str(root / "CN-Celeb_flac/data/id00800/singing-01-001.flac")


def test_a_pair_s_condition_is_the_genre_of_its_test_utterance(root: Path) -> None:
    for protocol in load_tests(root):
        assert protocol.condition_names == ("live_broadcast", "singing")
        genres = [protocol.condition_names[code] for code in protocol.pairs.conditions]
        assert genres == ["singing", "live_broadcast", "singing", "live_broadcast", "singing"]


def test_the_root_may_be_the_first_corpus_itself(root: Path) -> None:
    corpus = load(root / "CN-Celeb_flac")
    assert len(corpus.train) + len(corpus.dev.utterances) == 24
    (root / "CN-Celeb_flac").rename(root / "renamed")
    assert len(load(root / "renamed", train=("cnceleb1",)).train) == 8


def test_a_missing_second_corpus_is_named_with_where_to_get_it_or_do_without(root: Path) -> None:
    (root / "CN-Celeb2_flac").rename(root / "elsewhere")
    with pytest.raises(DataError, match=r"no folder of cnceleb2 .*openslr\.org/82.*leave it out of `train`"):
        load(root)


@pytest.mark.parametrize("name", ["trials.lst", "enroll.lst", "enroll.map"])
def test_a_missing_list_is_found_before_any_training(root: Path, name: str) -> None:
    (root / "CN-Celeb_flac/eval/lists" / name).unlink()
    with pytest.raises(DataError, match=rf"no list .*eval/lists/{name}; .*openslr"):
        load(root)


def test_a_training_speaker_without_a_folder_is_named(root: Path) -> None:
    with (root / "CN-Celeb_flac/dev/dev.lst").open("a") as file:
        file.write("id00345\n")
    with pytest.raises(DataError, match=r"1 of 5 training speakers of cnceleb1 have no folder .*\(id00345\)"):
        load(root)


def test_a_tested_speaker_in_dev_lst_is_refused(root: Path) -> None:
    with (root / "CN-Celeb_flac/dev/dev.lst").open("a") as file:
        file.write("id00999\n")
    for call in (load, load_tests):
        with pytest.raises(DataError, match=r"evaluation and the training data cnceleb1 share 1 speakers \(id00999\)"):
            call(root)


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        (
            "enroll.lst",
            "id00800-enroll enroll/id00800-enroll.wav\n",
            r"trials\.lst:4: 'id00999-enroll' is not in .*lst",
        ),
        ("enroll.map", "id00800-enroll\n", r"enroll\.map:1: found 'id00800-enroll', expected an enrolment and its"),
        ("enroll.map", "a-enroll b.wav\n" * 2, r"enroll\.map:2: 'a-enroll' is listed twice, first in .*map:1"),
        (
            "enroll.map",
            "id00800-enroll id00800/none.wav\nid00999-enroll id00999/singing-01-002.wav\n",
            r"enroll\.map:1: no audio file .*data/id00800/none\.wav",
        ),
        (
            "trials.lst",
            TRIALS + "id00800-enroll test/id00800-vlog-01-005.wav 1\n",
            r"trials\.lst:6: no audio file .*eval/test/id00800-vlog-01-005\.wav",
        ),
    ],
)
def test_a_bad_line_of_a_list_is_named(root: Path, name: str, text: str, message: str) -> None:
    (root / "CN-Celeb_flac/eval/lists" / name).write_text(text)
    with pytest.raises(DataError, match=message):
        load_tests(root)


def test_damaged_enrolment_audio_is_named_with_the_line_of_enroll_map(root: Path) -> None:
    (root / "CN-Celeb_flac/data/id00999/singing-01-002.flac").write_bytes(b"")
    with pytest.raises(DataError, match=r"enroll\.map:2: audio file .*singing-01-002\.flac is empty"):
        load_tests(root, tests=("average",))
