import hashlib
import logging
from pathlib import Path
from typing import Any

import pytest

from greensv.builtin.datasets.commonbench import CommonBenchDataset, CommonBenchOptions, greensv_datasets
from greensv.config.load import validate
from greensv.errors import DataError
from greensv.speaker.dataset import Corpus, Protocol, ignore_progress
from greensv.testing.dataset_contract import DatasetContract

HEADER = "client_id\tpath\tsentence\tup_votes\tdown_votes\tage\tgender\taccents\tvariant\tlocale\tsegment\n"
CLIPS = {
    "en": [
        *((f"{name:0<128}", number) for number, name in enumerate("aaabbbcccddd")),
        ("e" * 128, 90),
        ("f" * 128, 91),
    ],
    "de": [("g" * 128, 1), ("g" * 128, 2), ("h" * 128, 3)],
}
"""Speaker and number of each clip by language."""
PAIRS = (
    "enrolment,test,same\n"
    "de/clips/common_voice_de_1.mp3,de/clips/common_voice_de_2.mp3,1\n"
    "de/clips/common_voice_de_1.mp3,de/clips/common_voice_de_3.mp3,0\n"
    "en/clips/common_voice_en_90.mp3,en/clips/common_voice_en_91.mp3,0\n"
)
COLUMNS = {"enrolment_column": "enrolment", "test_column": "test", "label_column": "same"}


def write_tree(root: Path, write_speech: Any) -> Path:
    """As the archives of Common Voice unpack: 48 kHz and 32 kHz, a table of validated clips and one of others."""
    for language, clips in CLIPS.items():
        rows = []
        for client_id, number in clips:
            name = f"common_voice_{language}_{number}.mp3"
            write_speech(root / language / "clips" / name, sample_rate_hz=48_000 if number % 2 else 32_000)
            # Sentences hold lone quotation marks: the tables are no CSV.
            rows.append(f'{client_id}\t{name}\tHe said "so\t2\t0\t\t\t\t\t{language}\t\n')
        validated = rows[:-2] if language == "en" else []
        (root / language / "validated.tsv").write_text(HEADER + "".join(validated))
        (root / language / "other.tsv").write_text(HEADER + "".join(rows[-2:] if language == "en" else rows))
    (root / "pairs.csv").write_text(PAIRS)
    return root


@pytest.fixture
def root(tmp_path: Path, write_speech: Any) -> Path:
    return write_tree(tmp_path / "cv", write_speech)


def options(**given: Any) -> CommonBenchOptions:
    return CommonBenchOptions(**{"num_dev_speakers": 2, "pairs": "pairs.csv", **COLUMNS, **given})


def load(root: Path, **given: Any) -> Corpus:
    return CommonBenchDataset().load(root, options(**given), cache_dir=root.parent / "cache", progress=ignore_progress)


def load_tests(root: Path, **given: Any) -> tuple[Protocol, ...]:
    return CommonBenchDataset().load_tests(
        root, options(**given), cache_dir=root.parent / "cache", progress=ignore_progress
    )


class TestCommonBench(DatasetContract):
    dataset = CommonBenchDataset()
    options = options()

    @pytest.fixture(scope="class")
    @classmethod
    def root(cls, tmp_path_factory: pytest.TempPathFactory, write_speech: Any) -> Path:
        return write_tree(tmp_path_factory.mktemp("commonbench"), write_speech)


def test_the_hook_returns_the_dataset() -> None:
    assert [dataset.name for dataset in greensv_datasets()] == ["commonbench"]


def test_options_come_from_toml_and_mistakes_are_reported() -> None:
    record, problems = validate(CommonBenchOptions, {"label_column": 3, "test_column": "b", "delimiter": "\t"})
    assert (record, problems) == (CommonBenchOptions(test_column="b", delimiter="\t"), [])
    _, problems = validate(CommonBenchOptions, {"label_column": 0, "delimiter": ",,", "languages": []})
    assert {problem.where for problem in problems} == {"label_column", "delimiter", "languages"}


def test_clips_of_the_table_are_trained_on_and_resampled(root: Path) -> None:
    corpus = load(root)
    assert corpus.train.is_resampled
    assert corpus.train.num_speakers + corpus.dev.utterances.num_speakers == 4
    assert "en/common_voice_en_0" in corpus.train.ids + corpus.dev.utterances.ids
    assert 0.3 * 16_000 < corpus.train.num_samples.min() <= corpus.train.num_samples.max() < 0.8 * 16_000


def test_the_list_s_checksum_is_in_the_protocol_s_name_and_can_be_pinned(root: Path) -> None:
    digest = hashlib.sha256(PAIRS.encode()).hexdigest()
    assert load_tests(root)[0].name == f"commonbench@sha256:{digest[:8]}"
    assert load_tests(root, sha256=digest)[0].name == load_tests(root, sha256=f"sha256:{digest[:12]}")[0].name
    for call in (load, load_tests):
        with pytest.raises(DataError, match=rf"pairs\.csv has SHA-256 {digest}, `sha256` asks for 0123"):
            call(root, sha256="0123")


def test_speakers_come_from_the_tables_and_conditions_are_languages(root: Path) -> None:
    (protocol,) = load_tests(root)
    assert protocol.utterances.num_speakers == 4
    assert protocol.condition_names == ("de", "en")
    assert protocol.pairs.conditions.tolist() == [0, 0, 1]
    assert protocol.utterances.is_resampled


@pytest.mark.parametrize(
    ("text", "given"),
    [
        (
            "1 common_voice_de_1.mp3 common_voice_de_2.mp3\n0 common_voice_de_1.mp3 common_voice_de_3.mp3\n",
            {"delimiter": " ", "label_column": 1, "enrolment_column": 2, "test_column": 3},
        ),
        (
            "de/common_voice_de_1.mp3;de/common_voice_de_2.mp3;x;same\n"
            "\n"
            "de/common_voice_de_1.wav;de/common_voice_de_3.wav;x;other\n",
            {
                "delimiter": ";",
                "label_column": 4,
                "enrolment_column": 1,
                "test_column": 2,
                "target_labels": ("same",),
                "nontarget_labels": ("other",),
            },
        ),
        (
            'same,"b",a\nTrue,"de/clips/common_voice_de_2.mp3",de/clips/common_voice_de_1.mp3\n'
            "False,de/clips/common_voice_de_3.mp3,de/clips/common_voice_de_1.mp3\n",
            {"enrolment_column": "a", "test_column": "b", "label_column": "same"},
        ),
    ],
)
def test_columns_delimiters_labels_and_names_can_be_of_any_form(root: Path, text: str, given: Any) -> None:
    (root / "pairs.csv").write_text(text)
    (protocol,) = load_tests(root, **given)
    paths = [Path(path).name for path in protocol.utterances.paths]
    assert [paths[number] for number in protocol.pairs.enrolment] == ["common_voice_de_1.mp3"] * 2
    assert [paths[number] for number in protocol.pairs.test] == ["common_voice_de_2.mp3", "common_voice_de_3.mp3"]
    assert protocol.pairs.is_target.tolist() == [True, False]


@pytest.mark.parametrize(
    ("text", "given", "message"),
    [
        (PAIRS, {"label_column": "label"}, r"pairs\.csv has no column 'label' \(found: enrolment, test, same\)"),
        (PAIRS.replace(",1\n", ",maybe\n"), {}, r"pairs\.csv:2: found '.*maybe', expected .* one of the labels '0', "),
        (PAIRS + "\nde/a.mp3,1\n", {}, r"pairs\.csv:6: found 'de/a\.mp3,1', expected two utterances"),
        (PAIRS + "de/clips/common_voice_de_1.mp3,,1\n", {}, r"pairs\.csv:5: found"),
        (PAIRS, {"enrolment_column": 1, "test_column": 2, "label_column": 3}, r"pairs\.csv:1: found 'enrolment,test"),
        ("enrolment,test,same\n", {}, r"pairs\.csv has no pairs"),
        (PAIRS.replace("de_3", "de_4"), {}, r"pairs\.csv:3: no clip 'de/clips/common_voice_de_4\.mp3' in .*https://"),
    ],
)
def test_a_bad_pair_list_is_named_with_its_line(root: Path, text: str, given: Any, message: str) -> None:
    (root / "pairs.csv").write_text(text)
    with pytest.raises(DataError, match=message):
        load_tests(root, **given)


def test_a_trained_speaker_in_the_pairs_is_refused_or_left_out(root: Path) -> None:
    with (root / "pairs.csv").open("a") as file:
        file.write("en/clips/common_voice_en_0.mp3,en/clips/common_voice_en_1.mp3,1\n")
    for call in (load, load_tests):
        with pytest.raises(DataError, match=r"pair list and the training clips share 1 speakers .*leave_out_test_sp"):
            call(root)
    with pytest.raises(DataError, match=r"2 of 3 speakers cannot be held out"):
        load(root, leave_out_test_speakers=True)
    assert len(load_tests(root, leave_out_test_speakers=True)[0].pairs) == 4


def test_clips_that_no_table_names_get_their_speakers_from_the_pairs(
    root: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (root / "de/other.tsv").unlink()
    with caplog.at_level(logging.WARNING):
        (protocol,) = load_tests(root)
    assert "no table names the speakers of 3 of 5 clips" in caplog.text
    assert sum(name.startswith("unknown:") for name in protocol.utterances.speaker_names) == 2


def test_a_clip_that_is_missing_is_skipped_and_reported(root: Path, write_speech: Any) -> None:
    (root / "en/clips/common_voice_en_3.mp3").unlink()
    corpus = load(root)
    assert [Path(skipped.path).name for skipped in corpus.skipped] == ["common_voice_en_3.mp3"]


def test_clips_converted_in_place_are_found_by_another_suffix(root: Path, write_speech: Any) -> None:
    (root / "en/clips/common_voice_en_3.mp3").unlink()
    write_speech(root / "en/clips/common_voice_en_3.flac")
    corpus = load(root)
    assert corpus.skipped == ()


def test_missing_tables_and_columns_are_named(root: Path) -> None:
    with pytest.raises(DataError, match=r"no table .*fr/validated\.tsv of the clips to train on"):
        load(root, languages=("fr",))
    with pytest.raises(DataError, match=r"pair list .*gone\.csv cannot be read: No such file"):
        load(root, pairs="gone.csv")
    (root / "en/validated.tsv").write_text("speaker\tpath\na\tb.mp3\n")
    with pytest.raises(DataError, match=r"validated\.tsv has no column 'client_id' \(found: speaker, path\)"):
        load(root)
    (root / "en/validated.tsv").write_text("client_id\tpath\na\n")
    with pytest.raises(DataError, match=r"validated\.tsv:2: 1 columns, expected 2 or more"):
        load(root)


def test_without_a_pair_list_there_is_no_test(root: Path) -> None:
    assert load_tests(root, pairs=None) == ()
    assert load(root, pairs=None).train.num_speakers == 2
