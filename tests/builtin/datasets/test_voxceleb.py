import hashlib
import logging
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from greensv.builtin.datasets import voxceleb, voxceleb_tree
from greensv.builtin.datasets.voxceleb import VoxCelebDataset, VoxCelebOptions, greensv_datasets
from greensv.builtin.datasets.voxceleb_tree import PUBLISHED_LISTS, PUBLISHED_SIZES, VOXCELEB1_TEST_SPEAKERS
from greensv.config.load import validate
from greensv.errors import DataError
from greensv.speaker.dataset import Corpus, Protocol, ignore_progress
from greensv.testing.dataset_contract import DatasetContract

VOXCELEB2 = ("id00012", "id00015", "id00016", "id09272")
VOXCELEB1_DEV = ("id10001", "id11251")
VOXCELEB1_TEST = ("id10270", "id10309")
UTTERANCES = ("21Uxsk56VDQ/00001", "21Uxsk56VDQ/00002", "-_AbCd0EfGh/00001")
"""As YouTube names videos: with leading hyphens and underscores, too."""

LIST_O = (
    "1 id10270/21Uxsk56VDQ/00001.wav id10270/-_AbCd0EfGh/00001.wav\n"
    "0 id10270/21Uxsk56VDQ/00001.wav id10309/21Uxsk56VDQ/00002.wav\n"
)
LIST_E = LIST_O + "0 id10001/21Uxsk56VDQ/00001.wav id11251/21Uxsk56VDQ/00001.wav\n"
LISTS = {"veri_test2.txt": LIST_O, "list_test_all2.txt": LIST_E, "list_test_hard2.txt": LIST_E}

LAYOUTS: Mapping[str, Mapping[str, str]] = {
    "as the archives unpack": {"2": "dev/aac/*.m4a", "dev": "wav/*.wav", "test": "wav/*.wav", "lists": "."},
    "WeSpeaker": {
        "2": "voxceleb2_wav/dev/*.wav",
        "dev": "voxceleb1/dev/wav/*.wav",
        "test": "voxceleb1/test/wav/*.wav",
        "lists": "voxceleb1",
    },
    "Kiwano": {"2": "voxceleb2/wav/*.wav", "dev": "voxceleb1/wav/*.wav", "test": "voxceleb1/wav/*.wav", "lists": "."},
    "SpeechBrain": {"2": "wav/*.wav", "dev": "wav/*.wav", "test": "wav/*.wav", "lists": "meta"},
    "3D-Speaker": {
        "2": "voxceleb2/dev/wav/*.wav",
        "dev": "voxceleb1/dev/wav/*.wav",
        "test": "voxceleb1/test/wav/*.wav",
        "lists": "voxceleb1",
    },
    "all in FLAC": {"2": "vox2/flac/*.flac", "dev": "vox1/flac/*.flac", "test": "vox1/flac/*.flac", "lists": "lists"},
}


def write_tree(root: Path, write_speech: Any, layout: str) -> Path:
    places = LAYOUTS[layout]
    for part, speakers in (("2", VOXCELEB2), ("dev", VOXCELEB1_DEV), ("test", VOXCELEB1_TEST)):
        folder, suffix = places[part].rsplit("/*", 1)
        for speaker in speakers:
            for utterance in UTTERANCES:
                write_speech(root / folder / speaker / f"{utterance}{suffix}")
    (root / places["lists"]).mkdir(parents=True, exist_ok=True)
    for name, text in LISTS.items():
        (root / places["lists"] / name).write_text(text)
    return root


@pytest.fixture
def root(tmp_path: Path, write_speech: Any) -> Path:
    return write_tree(tmp_path / "data", write_speech, "WeSpeaker")


def options(**given: Any) -> VoxCelebOptions:
    return VoxCelebOptions(**{"check_lists": False, "num_dev_speakers": 2, **given})


def load(root: Path | None, **given: Any) -> Corpus:
    cache = (root or Path("/")).parent / "cache"
    return VoxCelebDataset().load(root, options(**given), cache_dir=cache, progress=ignore_progress)


def load_tests(root: Path, **given: Any) -> tuple[Protocol, ...]:
    return VoxCelebDataset().load_tests(
        root, options(**given), cache_dir=root.parent / "cache", progress=ignore_progress
    )


class TestVoxCelebInWav(DatasetContract):
    dataset = VoxCelebDataset()
    options = options()
    layout = "WeSpeaker"

    @pytest.fixture(scope="class")
    @classmethod
    def root(cls, tmp_path_factory: pytest.TempPathFactory, write_speech: Any) -> Path:
        return write_tree(tmp_path_factory.mktemp("voxceleb"), write_speech, cls.layout)


class TestVoxCelebInFlac(TestVoxCelebInWav):
    layout = "all in FLAC"


class TestVoxCelebInM4a(TestVoxCelebInWav):
    layout = "as the archives unpack"


class TestVoxCeleb1ForTraining(TestVoxCelebInWav):
    options = options(train=("voxceleb2", "voxceleb1-dev"), tests=("O",))
    layout = "SpeechBrain"


def test_the_hook_returns_the_dataset() -> None:
    assert [dataset.name for dataset in greensv_datasets()] == ["voxceleb"]


def test_the_published_numbers_are_those_of_the_field() -> None:
    assert {test: entry.num_target + entry.num_nontarget for test, entry in PUBLISHED_LISTS.items()} == {
        "O": 37_611,
        "E": 579_818,
        "H": 550_894,
    }
    assert PUBLISHED_SIZES == {"voxceleb2": (5_994, 1_092_009), "voxceleb1-dev": (1_211, 148_642)}
    assert (len(VOXCELEB1_TEST_SPEAKERS), min(VOXCELEB1_TEST_SPEAKERS)) == (40, "id10270")


def test_options_come_from_toml_and_mistakes_are_reported() -> None:
    record, problems = validate(VoxCelebOptions, {"train": ["voxceleb2", "voxceleb1-dev"], "tests": ["O"]})
    assert problems == []
    assert record == VoxCelebOptions(train=("voxceleb2", "voxceleb1-dev"), tests=("O",))
    assert record.num_dev_speakers == 100
    _, problems = validate(VoxCelebOptions, {"train": [], "tests": ["X"]})
    assert {problem.where for problem in problems} == {"train", "tests[0]"}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_every_layout_gives_the_same_corpus(tmp_path: Path, write_speech: Any, layout: str) -> None:
    root = write_tree(tmp_path / "data", write_speech, layout)
    corpus = load(root)
    assert sorted(corpus.train.speaker_names + corpus.dev.utterances.speaker_names) == list(VOXCELEB2)
    assert sorted(corpus.train.ids + corpus.dev.utterances.ids) == sorted(
        f"{speaker}/{utterance}" for speaker in VOXCELEB2 for utterance in UTTERANCES
    )
    assert corpus.dev_rejoins_training
    assert corpus.skipped == ()
    protocols = load_tests(root)
    assert [protocol.name for protocol in protocols] == ["VoxCeleb1-O", "VoxCeleb1-E", "VoxCeleb1-H"]
    assert protocols[0].utterances.speaker_names == VOXCELEB1_TEST
    assert protocols[0].utterances.ids[0] == "id10270/21Uxsk56VDQ/00001.wav"
    assert [len(protocol.pairs) for protocol in protocols] == [2, 3, 3]


def test_training_on_voxceleb1_together_with_its_extended_tests_is_refused(root: Path) -> None:
    for call in (load, load_tests):
        with pytest.raises(DataError, match=r"voxceleb1-dev and testing on VoxCeleb1-E and VoxCeleb1-H is refused"):
            call(root, train=("voxceleb1-dev",))


def test_training_on_voxceleb1_leaves_its_test_speakers_out(tmp_path: Path, write_speech: Any) -> None:
    root = write_tree(tmp_path / "data", write_speech, "Kiwano")
    corpus = load(root, train=("voxceleb1-dev", "voxceleb2"), tests=("O",), num_dev_speakers=2)
    speakers = {*corpus.train.speaker_names, *corpus.dev.utterances.speaker_names}
    assert speakers == {*VOXCELEB1_DEV, *VOXCELEB2}


def test_a_list_with_a_trained_speaker_is_refused(root: Path) -> None:
    (root / "voxceleb1/veri_test2.txt").write_text(LIST_E)
    with pytest.raises(DataError, match=r"VoxCeleb1-O and the training data share 2 speakers \(id10001, id11251\)"):
        load_tests(root, train=("voxceleb1-dev",), tests=("O",))


@pytest.mark.parametrize("call", [load, load_tests])
def test_a_list_that_is_not_the_published_one_is_refused_naming_both(root: Path, call: Any) -> None:
    found = hashlib.md5((root / "voxceleb1/veri_test2.txt").read_bytes()).hexdigest()
    with pytest.raises(DataError) as caught:
        call(root, check_lists=True)
    assert found in str(caught.value)
    assert "b73110731c9223c1461fe49cb48dddfc" in str(caught.value)
    assert "check_lists = false" in str(caught.value)


def test_the_published_list_passes(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    digest = hashlib.md5(LIST_O.encode()).hexdigest()
    known = {**PUBLISHED_LISTS, "O": replace(PUBLISHED_LISTS["O"], md5=digest, num_target=1, num_nontarget=1)}
    for module in (voxceleb, voxceleb_tree):
        monkeypatch.setattr(module, "PUBLISHED_LISTS", known)
    (protocol,) = load_tests(root, check_lists=True, tests=("O",))
    assert len(protocol.pairs) == 2


def test_other_lists_and_sizes_are_told(root: Path, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        load(root, tests=())
        load_tests(root, tests=("O",))
    assert "voxceleb2: found 4 speakers and 12 utterances; published are 5994 and 1092009" in caplog.text
    assert "has 1 target and 1 nontarget pairs; the published VoxCeleb1-O has 18802 and 18809" in caplog.text
    assert "used all the same (check_lists = false)" in caplog.text


def test_a_missing_list_is_named_with_its_address(root: Path) -> None:
    (root / "voxceleb1/list_test_hard2.txt").unlink()
    with pytest.raises(DataError, match=r"no list list_test_hard2\.txt .*get https://www\.robots\.ox\.ac\.uk/.*hard2"):
        load(root)
    assert len(load_tests(root, tests=("O", "E"))) == 2


def test_missing_corpora_are_named_with_where_to_get_them(tmp_path: Path, write_speech: Any) -> None:
    with pytest.raises(DataError, match=r"needs the folder of its data.*VoxCeleb is described at https://"):
        load(None)
    write_speech(tmp_path / "data/CN-Celeb_flac/data/id00012/singing-01-001.flac")
    with pytest.raises(DataError, match=r"no speaker of voxceleb2 .*id00012.* below .*https://"):
        load(tmp_path / "data", tests=())


def test_folders_can_be_named(tmp_path: Path, write_speech: Any) -> None:
    root = tmp_path / "data"
    write_tree(root / "deep/down", write_speech, "SpeechBrain")
    given = {"voxceleb1": "deep/down/wav", "voxceleb2": "deep/down/wav", "lists": "deep/down/meta"}
    assert load(root, **given).train.num_speakers == 2
    assert len(load_tests(root, **given)) == 3


def test_a_tested_file_that_is_missing_is_named_with_list_and_line(root: Path) -> None:
    (root / "voxceleb1/test/wav/id10309/21Uxsk56VDQ/00002.wav").unlink()
    with pytest.raises(DataError, match=r"veri_test2\.txt:2: no audio of 'id10309/21Uxsk56VDQ/00002\.wav'"):
        load_tests(root, tests=("O",))


def test_a_damaged_training_file_is_skipped_and_reported_a_tested_one_refused(root: Path, write_speech: Any) -> None:
    for number in range(3, 20):
        write_speech(root / f"voxceleb2_wav/dev/id00012/21Uxsk56VDQ/{number:05d}.wav")
    bad = root / "voxceleb2_wav/dev/id00012/21Uxsk56VDQ/00001.wav"
    bad.write_bytes(b"RIFF or so")
    corpus = load(root)
    assert [skipped.path for skipped in corpus.skipped] == [str(bad)]
    assert "id00012/21Uxsk56VDQ/00001" not in corpus.train.ids + corpus.dev.utterances.ids
    (root / "voxceleb1/test/wav/id10270/-_AbCd0EfGh/00001.wav").write_bytes(b"")
    with pytest.raises(DataError, match=r"veri_test2\.txt:1: audio file .*id10270/-_AbCd0EfGh/00001\.wav is empty"):
        load_tests(root)


def test_of_a_recording_in_two_formats_one_is_read(root: Path, write_speech: Any) -> None:
    for speaker in VOXCELEB2:
        for utterance in UTTERANCES:
            write_speech(root / "voxceleb2_wav/dev" / speaker / f"{utterance}.flac")
    corpus = load(root)
    assert len(corpus.train) + len(corpus.dev.utterances) == 12
    assert {Path(path).suffix for path in corpus.train.paths} == {".wav"}


def test_a_folder_of_the_test_part_of_voxceleb2_is_not_trained_on(root: Path, write_speech: Any) -> None:
    for folder in ("vox2_test_aac", "voxceleb2test/wav"):
        write_speech(root / folder / "id00017/21Uxsk56VDQ/00001.wav")
    write_speech(root / "vox2_latest/wav/id00018/21Uxsk56VDQ/00001.wav")
    corpus = load(root)
    found = {*corpus.train.speaker_names, *corpus.dev.utterances.speaker_names}
    assert found == {*VOXCELEB2, "id00018"}
