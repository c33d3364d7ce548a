from pathlib import Path

import pytest

import greensv_espeak
from greensv.config.load import validate
from greensv.errors import ConfigError
from greensv.plugins import plugins_from
from greensv.speaker.dataset import ignore_progress
from greensv.testing.dataset_contract import DatasetContract
from greensv_espeak.dataset import EspeakDataset
from greensv_espeak.options import EspeakOptions

TINY = EspeakOptions(
    num_train_speakers=10,
    num_train_utterances=2,
    num_dev_speakers=3,
    num_dev_utterances=2,
    num_test_speakers=2,
    num_test_utterances=2,
    min_duration_s=0.5,
    max_duration_s=1.0,
)


class TestEspeak(DatasetContract):
    dataset = EspeakDataset()
    options = TINY


def test_the_plugin_provides_the_dataset() -> None:
    plugins = plugins_from({"espeak": greensv_espeak}, builtins=False)
    assert plugins.problems == ()
    assert [dataset.name for dataset in plugins.all("dataset")] == ["espeak"]


def test_counts_are_those_of_the_options(tmp_path: Path) -> None:
    corpus = EspeakDataset().load(None, TINY, cache_dir=tmp_path, progress=ignore_progress)
    assert (len(corpus.train), corpus.train.num_speakers) == (20, 10)
    assert (len(corpus.dev.utterances), corpus.dev.utterances.num_speakers) == (6, 3)
    assert (int(corpus.dev.pairs.is_target.sum()), len(corpus.dev.pairs)) == (3, 3 + 12)
    assert corpus.train.num_samples.max() <= 16_000
    assert corpus.train.num_samples.min() >= 8_000
    assert not corpus.dev_rejoins_training


def test_the_test_protocol_alone_has_the_test_voices(tmp_path: Path) -> None:
    (protocol,) = EspeakDataset().load_tests(None, TINY, cache_dir=tmp_path, progress=ignore_progress)
    assert protocol.name == "test"
    assert protocol.utterances.speaker_names == ("test-00000", "test-00001")
    assert [path.name[:5] for path in (tmp_path / "espeak").iterdir()] == ["test-"]


def test_options_come_from_toml_and_mistakes_are_reported() -> None:
    options, problems = validate(EspeakOptions, {"seed": 3, "max_duration_s": 5})
    assert problems == []
    assert options == EspeakOptions(seed=3, max_duration_s=5.0)
    _, problems = validate(EspeakOptions, {"num_train_speakers": 1, "voice_spread": 0, "snr": 3})
    assert sorted(problem.where for problem in problems) == ["num_train_speakers", "snr", "voice_spread"]


@pytest.mark.parametrize("name", ["duration_s", "snr_db"])
def test_a_range_that_ends_before_it_begins_is_refused(tmp_path: Path, name: str) -> None:
    options = EspeakOptions(**{f"min_{name}": 9.0, f"max_{name}": 8.0})
    for load in (EspeakDataset().load, EspeakDataset().load_tests):
        with pytest.raises(ConfigError, match=rf"min_{name} = 9\.0 exceeds max_{name} = 8\.0"):
            load(None, options, cache_dir=tmp_path, progress=ignore_progress)
