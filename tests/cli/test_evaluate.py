"""`greensv evaluate` from files to files: real audio, the real backbone, the command as it is typed."""

import json
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
from click.testing import CliRunner, Result

from greensv.builtin.backbones.resnet import ResNet
from greensv.cli.main import cli
from greensv.config import FeatureConfig
from greensv.errors import CheckpointError, ConfigError, DataError, GreensvError, PluginError
from greensv.speaker import space
from greensv.speaker.checkpoint import CheckpointInfo, build_network, read_checkpoint, save_checkpoint
from greensv.speaker.features import Fbank, subtract_mean
from greensv.speaker.metrics import bootstrap_eer, eer, min_dcf
from greensv.speaker.trial_list import read_trial_list, resolve

SPEAKERS = ("anna", "bob", "cara")


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    backbone, features, folder = ResNet(), FeatureConfig(), tmp_path_factory.mktemp("checkpoint") / "model"
    params = space.lowest(backbone.space())
    with torch.random.fork_rng():
        torch.manual_seed(1)
        network = backbone.build(params, features=features)
        with torch.no_grad():
            network(torch.randn(4, 50, 81), None)
    info = CheckpointInfo(
        backbone="resnet",
        backbone_version=backbone.version,
        params=params,
        features=features,
        embedding_dim=network.embedding_dim,
    )
    save_checkpoint(folder, network, info)
    return folder


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Three speakers of three utterances, as a Kaldi data directory, and a trial list of all pairs in Kaldi's form."""
    rng, folder = np.random.default_rng(0), tmp_path / "corpus"
    names = [(speaker, f"{speaker}-{number}") for speaker in SPEAKERS for number in range(3)]
    (folder / "audio").mkdir(parents=True)
    for number, (_, name) in enumerate(names):
        time_s = np.arange(int(rng.integers(6_000, 16_000))) / 16_000
        samples = 0.3 * np.sin(2 * np.pi * 200 * (number // 3 + 1) * time_s * (1 + 0.1 * time_s))
        soundfile.write(folder / "audio" / f"{name}.wav", samples + rng.normal(0, 0.05, len(time_s)), 16_000)
    (folder / "wav.scp").write_text("".join(f"{name} audio/{name}.wav\n" for _, name in names))
    (folder / "utt2spk").write_text("".join(f"{name} {speaker}\n" for speaker, name in names))
    lines = [
        f"{a} {b} {'target' if first == second else 'nontarget'}\n"
        for i, (first, a) in enumerate(names)
        for second, b in names[i + 1 :]
    ]
    (folder / "trials").write_text("".join(lines))
    return folder


def evaluate(checkpoint: Path, trial_list: Path, root: Path, *options: str) -> Result:
    arguments = ["--no-plugins", "evaluate", str(checkpoint), "--trial-list", str(trial_list), "--data-root", str(root)]
    return CliRunner().invoke(cli, [*arguments, "--device", "cpu", *options])


def error_of(result: Result, kind: type[GreensvError]) -> str:
    assert isinstance(result.exception, kind), result.exception
    return str(result.exception)


def test_rates_are_those_of_the_scores_and_the_scores_those_of_the_network(
    checkpoint: Path, root: Path, tmp_path: Path
) -> None:
    scores_file = tmp_path / "scores.txt"
    result = evaluate(checkpoint, root / "trials", root, "--json", "--p-target", "0.05", "--scores", str(scores_file))
    assert result.exit_code == 0, result.output
    record = json.loads(result.stdout)

    rows = [line.split() for line in scores_file.read_text().splitlines()]
    trials = read_trial_list(root / "trials")
    assert [(row[0], row[1]) for row in rows] == list(zip(trials.enrolments, trials.tests, strict=True))
    network, audio = build_network(ResNet(), *read_checkpoint(checkpoint)), {}
    for name in {name for row in rows for name in row[:2]}:
        samples, _ = soundfile.read(root / "audio" / f"{name}.wav", dtype="float32")
        with torch.no_grad():
            audio[name] = network(subtract_mean(Fbank(FeatureConfig())(torch.from_numpy(samples)[None])[0]), None)[0]
    expected = [torch.cosine_similarity(audio[a], audio[b], dim=0).item() for a, b, _ in rows]
    assert [float(row[2]) for row in rows] == pytest.approx(expected, abs=1e-4)

    assert record["eer"] == pytest.approx(eer(expected, trials.is_target), abs=1e-6)
    assert record["min_dcf"] == pytest.approx(min_dcf(expected, trials.is_target, p_target=0.05), abs=1e-6)
    assert (record["num_target"], record["num_nontarget"], record["num_utterances"]) == (9, 27, 9)
    assert (record["p_target"], record["num_speakers"]) == (0.05, 3)
    protocol = resolve(trials, root)
    interval = bootstrap_eer(expected, protocol.pairs, protocol.utterances.speakers)
    assert (record["eer_low"], record["eer_high"]) == pytest.approx(interval, abs=1e-6)


def test_table_says_the_same_in_percent(checkpoint: Path, root: Path) -> None:
    record = json.loads(evaluate(checkpoint, root / "trials", root, "--json").stdout)
    text = evaluate(checkpoint / "model.json", root / "trials", root).stdout
    assert "36 pairs (9 target) of 9 utterances" in text
    assert f"EER     {record['eer']:.2%}" in text
    assert f"95 % over 3 speakers: {record['eer_low']:.2%} to {record['eer_high']:.2%}" in " ".join(text.split())
    assert f"minDCF  {record['min_dcf']:.4f}  (p_target 0.01)" in text


def test_list_of_paths_is_scored_too_without_an_interval(checkpoint: Path, root: Path) -> None:
    by_name = json.loads(evaluate(checkpoint, root / "trials", root, "--json").stdout)
    (root / "utt2spk").unlink()
    (root / "wav.scp").unlink()
    voxceleb = [line.split() for line in (root / "trials").read_text().splitlines()]
    (root / "veri_test.txt").write_text(
        "".join(f"{int(label == 'target')} audio/{a}.wav audio/{b}.wav\n" for a, b, label in voxceleb)
    )
    by_path = json.loads(evaluate(checkpoint, root / "veri_test.txt", root, "--json").stdout)
    assert by_path["eer"] == pytest.approx(by_name["eer"], abs=1e-9)
    assert by_path["eer_low"] is by_path["num_speakers"] is None
    assert "no interval" in evaluate(checkpoint, root / "veri_test.txt", root).stdout


def test_unknown_utterance_names_list_and_line_and_writes_nothing(checkpoint: Path, root: Path, tmp_path: Path) -> None:
    with (root / "trials").open("a") as file:
        file.write("anna-0 zoe-9 nontarget\n")
    result = evaluate(checkpoint, root / "trials", root, "--scores", str(tmp_path / "scores"))
    assert "trials:37: unknown utterance 'zoe-9'" in error_of(result, DataError)
    assert not (tmp_path / "scores").exists()


def test_missing_data_root_or_list_is_an_error(checkpoint: Path, root: Path) -> None:
    assert "nowhere" in error_of(evaluate(checkpoint, root / "trials", root / "nowhere"), DataError)
    assert "no-list" in error_of(evaluate(checkpoint, root / "no-list", root), DataError)


def test_damaged_audio_names_the_file_and_leaves_old_scores_alone(checkpoint: Path, root: Path, tmp_path: Path) -> None:
    (tmp_path / "scores").write_text("old")
    (root / "audio" / "bob-1.wav").write_bytes(b"")
    result = evaluate(checkpoint, root / "trials", root, "--scores", str(tmp_path / "scores"))
    assert "bob-1.wav" in error_of(result, DataError)
    assert (tmp_path / "scores").read_text() == "old"


def test_checkpoint_that_is_not_ours_is_an_error(checkpoint: Path, root: Path, tmp_path: Path) -> None:
    assert "no greensv checkpoint" in error_of(evaluate(tmp_path, root / "trials", root), CheckpointError)
    description = json.loads((checkpoint / "model.json").read_text())
    for name in ("model.json", "model.safetensors"):
        (tmp_path / name).write_bytes((checkpoint / name).read_bytes())
    (tmp_path / "model.json").write_text(json.dumps({**description, "backbone_version": 99}))
    message = error_of(evaluate(tmp_path, root / "trials", root), CheckpointError)
    assert "saved with version 99 of backbone 'resnet'" in message
    (tmp_path / "model.json").write_text(json.dumps({**description, "backbone": "resnest"}))
    message = error_of(evaluate(tmp_path, root / "trials", root), PluginError)
    assert "no backbone named 'resnest'; did you mean 'resnet'?" in message


def test_scores_that_cannot_be_written_stop_it_before_the_work(checkpoint: Path, root: Path, tmp_path: Path) -> None:
    message = error_of(
        evaluate(checkpoint, root / "trials", root, "--scores", str(tmp_path / "no" / "scores")), ConfigError
    )
    assert "missing or not writable" in message
    message = error_of(evaluate(checkpoint, root / "trials", root, "--scores", str(tmp_path)), ConfigError)
    assert "it is a folder" in message


@pytest.mark.parametrize("p_target", ["0", "1", "two"])
def test_p_target_outside_zero_to_one_is_a_usage_error(p_target: str, checkpoint: Path, root: Path) -> None:
    assert evaluate(checkpoint, root / "trials", root, "--p-target", p_target).exit_code == 2
