"""`greensv evaluate` from files to files: real audio, the real backbone, the command as it is typed."""

import hashlib
import json
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
from click.testing import CliRunner, Result
from numpy.typing import NDArray

from greensv.builtin.backbones.resnet import ResNet
from greensv.cli import evaluate as module
from greensv.cli.evaluation import Embedder
from greensv.cli.main import cli
from greensv.config import FeatureConfig
from greensv.errors import CheckpointError, ConfigError, DataError, GreensvError, PluginError
from greensv.speaker import space
from greensv.speaker.checkpoint import CheckpointInfo, build_network, read_checkpoint, save_checkpoint
from greensv.speaker.corpora.trial_list import read_trial_list, resolve
from greensv.speaker.dataset import Pairs, Protocol
from greensv.speaker.features import Fbank, subtract_mean
from greensv.speaker.scoring.bootstrap import bootstrap_eer
from greensv.speaker.scoring.calibration import Calibration
from greensv.speaker.scoring.metrics import act_dcf, eer, min_dcf, verify_scores

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
    assert f"minDCF  {record['min_dcf']:.4f}  (p_target 0.01; 95 %: {record['min_dcf_low']:.4f} to" in text


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


@pytest.fixture
def cohort(root: Path) -> Path:
    """A data directory of other speakers, in the same data root."""
    rng, folder = np.random.default_rng(1), root / "cohort"
    folder.mkdir()
    names = [(speaker, f"{speaker}-{number}") for speaker in ("dan", "eva", "fay", "gus") for number in range(3)]
    for number, (_, name) in enumerate(names):
        time_s = np.arange(int(rng.integers(6_000, 12_000))) / 16_000
        samples = 0.3 * np.sin(2 * np.pi * 150 * (number // 3 + 1.5) * time_s) + rng.normal(0, 0.05, len(time_s))
        soundfile.write(root / "audio" / f"{name}.wav", samples, 16_000)
    (folder / "wav.scp").write_text("".join(f"{name} audio/{name}.wav\n" for _, name in names))
    (folder / "utt2spk").write_text("".join(f"{name} {speaker}\n" for speaker, name in names))
    return folder


def embedding_of(checkpoint: Path, path: Path) -> NDArray[np.float32]:
    network = build_network(ResNet(), *read_checkpoint(checkpoint))
    samples, _ = soundfile.read(path, dtype="float32")
    with torch.no_grad():
        return network(subtract_mean(Fbank(FeatureConfig())(torch.from_numpy(samples)[None])[0]), None)[0].numpy()


def scores_in(path: Path) -> list[float]:
    return [float(line.split()[2]) for line in path.read_text().splitlines()]


def cosine(a: NDArray[np.float32], b: NDArray[np.float32]) -> float:
    return float(a @ b / np.linalg.norm(a) / np.linalg.norm(b))


@pytest.mark.parametrize("subtracted", [False, True])
def test_cohort_normalises_as_the_formula_says(
    subtracted: bool, checkpoint: Path, root: Path, cohort: Path, tmp_path: Path
) -> None:
    options = ["--cohort", str(cohort), "--top-n", "3", "--scores", str(tmp_path / "scores"), "--json"]
    result = evaluate(checkpoint, root / "trials", root, *options, *["--subtract-cohort-mean"] * subtracted)
    assert result.exit_code == 0, result.output
    assert json.loads(result.stdout)["scoring"]["num_cohort_speakers"] == 4

    embeddings = {path.stem: embedding_of(checkpoint, path) for path in (root / "audio").glob("*.wav")}
    others = [e for name, e in embeddings.items() if name.split("-")[0] in ("dan", "eva", "fay", "gus")]
    shift = np.mean(others, axis=0) if subtracted else 0
    means = [np.mean([embeddings[f"{s}-{n}"] for n in range(3)], axis=0) - shift for s in ("dan", "eva", "fay", "gus")]
    trials, expected = read_trial_list(root / "trials"), []
    for names in zip(trials.enrolments, trials.tests, strict=True):
        a, b = (embeddings[name] - shift for name in names)
        nearest = [sorted(cosine(side, mean) for mean in means)[-3:] for side in (a, b)]
        expected.append(float(np.mean([(cosine(a, b) - np.mean(n)) / np.std(n) for n in nearest])))
    assert scores_in(tmp_path / "scores") == pytest.approx(expected, rel=2e-3, abs=2e-3)


def test_top_n_of_zero_leaves_the_cosines(checkpoint: Path, root: Path, cohort: Path) -> None:
    plain = json.loads(evaluate(checkpoint, root / "trials", root, "--json").stdout)
    options = ["--cohort", str(cohort), "--top-n", "0", "--cohort-utterances", "1"]
    found = json.loads(evaluate(checkpoint, root / "trials", root, *options, "--json").stdout)
    assert found["eer_threshold"] == plain["eer_threshold"]
    assert found["scoring"]["method"] == plain["scoring"]["method"] == "cosine"


def test_cohort_of_the_speakers_compared_is_refused_before_any_embedding(
    checkpoint: Path, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    embedded: list[object] = []
    monkeypatch.setattr(Embedder, "embed", lambda *found: embedded.append(found))
    message = error_of(evaluate(checkpoint, root / "trials", root, "--cohort", str(root)), DataError)
    assert "other speakers than those compared" in message
    assert embedded == []
    assert "3 speakers (anna, bob, cara)" in message
    message = error_of(evaluate(checkpoint, root / "trials", root, "--cohort", str(root / "audio")), ConfigError)
    assert "is no cohort" in message


def test_calibration_is_fitted_written_and_applied(checkpoint: Path, root: Path, tmp_path: Path) -> None:
    files = {name: str(tmp_path / name) for name in ("cosines", "fitted", "applied", "calibration.json")}
    evaluate(checkpoint, root / "trials", root, "--scores", files["cosines"])
    fit = ["--fit-calibration", files["calibration.json"], "--calibration-prior", "0.25"]
    fitted = evaluate(checkpoint, root / "trials", root, *fit, "--scores", files["fitted"])
    assert "Calibration, fitted to these very pairs, written to" in fitted.stdout
    calibration = Calibration.load(tmp_path / "calibration.json")
    assert calibration.prior == 0.25
    assert calibration.trained_on == {"protocol": "trials", "num_target": 9, "num_nontarget": 27}
    assert calibration.qualities == (
        "log_duration_min",
        "log_duration_max",
        "log_magnitude_min",
        "log_magnitude_max",
    )
    apply = ["--calibration", files["calibration.json"], "--scores", files["applied"], "--p-target", "0.25"]
    record = json.loads(evaluate(checkpoint, root / "trials", root, *apply, "--json").stdout)
    llrs = scores_in(tmp_path / "applied")
    assert llrs == scores_in(tmp_path / "fitted") != scores_in(tmp_path / "cosines")
    is_target = read_trial_list(root / "trials").is_target
    assert record["act_dcf"] == pytest.approx(act_dcf(llrs, is_target, p_target=0.25), abs=1e-6)
    assert record["cllr"] < 1


def test_calibration_of_other_scores_is_refused(checkpoint: Path, root: Path, cohort: Path, tmp_path: Path) -> None:
    file = str(tmp_path / "calibration.json")
    evaluate(checkpoint, root / "trials", root, "--fit-calibration", file)
    result = evaluate(checkpoint, root / "trials", root, "--calibration", file, "--cohort", str(cohort), "--top-n", "3")
    message = error_of(result, ConfigError)
    assert "was fitted to other scores" in message
    assert "method 'cosine', here 'as-norm'" in message


def test_calibration_of_scores_with_another_cohort_is_refused(
    checkpoint: Path, root: Path, cohort: Path, tmp_path: Path
) -> None:
    file = str(tmp_path / "calibration.json")
    options = ["--cohort", str(cohort), "--top-n", "3", "--cohort-utterances", "2"]
    fitted = evaluate(checkpoint, root / "trials", root, *options, "--fit-calibration", file)
    assert fitted.exit_code == 0, fitted.output
    used = sorted(f"{speaker}-{number}\n" for speaker in ("dan", "eva", "fay", "gus") for number in range(2))
    scoring = Calibration.load(tmp_path / "calibration.json").scoring
    assert scoring["cohort_digest"] == hashlib.sha256("".join(used).encode()).hexdigest()[:16]
    assert scoring["cohort_utterances"] == 2

    options += ["--calibration", file]
    assert evaluate(checkpoint, root / "trials", root, *options).exit_code == 0
    options[options.index("2")] = "1"
    message = error_of(evaluate(checkpoint, root / "trials", root, *options), ConfigError)
    assert "cohort_utterances 2, here 1" in message
    options[options.index("1")] = "2"
    for name in ("wav.scp", "utt2spk"):  # the same folder, speakers and counts, but not the same recordings
        path = cohort / name
        path.write_text("".join(line for line in path.read_text().splitlines(keepends=True) if line[4] != "0"))
    message = error_of(evaluate(checkpoint, root / "trials", root, *options), ConfigError)
    assert "was fitted to scores with another cohort (cohort_digest '" in message


def test_several_priors_and_a_det_curve(checkpoint: Path, root: Path, tmp_path: Path) -> None:
    options = ["--p-target", "0.01", "--p-target", "0.3", "--det", str(tmp_path / "det.csv")]
    record = json.loads(evaluate(checkpoint, root / "trials", root, *options, "--json").stdout)
    assert [cost["p_target"] for cost in record["by_p_target"]] == [0.01, 0.3]
    assert record["min_dcf_low"] <= record["min_dcf"] <= record["min_dcf_high"]
    assert (tmp_path / "det.csv").read_text().startswith("threshold,miss,false_accept\ninf,1.0,0.0\n")


STUDY = """
name = "tests"
[dataset]
name = "kaldi"
root = "{root}"
options = {{ train = "cohort", num_dev_speakers = 2, tests = ["trials", "short"] }}
[backbones.resnet]
"""


def test_study_is_evaluated_on_all_its_tests_and_its_training_data_is_a_cohort(
    checkpoint: Path, root: Path, cohort: Path, tmp_path: Path
) -> None:
    (root / "short").write_text("anna-0 anna-1 target\nanna-0 bob-1 nontarget\n")
    (tmp_path / "study.toml").write_text(STUDY.format(root=root))
    arguments = ["--no-plugins", "evaluate", str(checkpoint), "--study", str(tmp_path / "study.toml"), "--json"]
    result = CliRunner().invoke(cli, [*arguments, "--device", "cpu", "--cohort", str(tmp_path / "study.toml")])
    assert result.exit_code == 0, result.output
    records = [json.loads(line) for line in result.stdout.splitlines()]
    assert [(record["protocol"], record["num_target"]) for record in records] == [("trials", 9), ("short", 1)]
    assert records[0]["scoring"]["num_cohort_speakers"] == 2  # two of four are held out for development


@pytest.mark.parametrize(
    "options",
    [
        [],
        ["--trial-list", "x"],
        ["--trial-list", "x", "--data-root", "x", "--study", "x"],
        ["--study", "x", "--scores", "x"],
        ["--trial-list", "x", "--data-root", "x", "--subtract-cohort-mean"],
        ["--trial-list", "x", "--data-root", "x", "--calibration", "x", "--fit-calibration", "y"],
    ],
)
def test_options_that_do_not_go_together_are_usage_errors(options: list[str], checkpoint: Path) -> None:
    assert CliRunner().invoke(cli, ["evaluate", str(checkpoint), *options]).exit_code == 2


def test_conditions_are_told_apart_and_models_are_normalised_as_means(
    checkpoint: Path, root: Path, cohort: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As the average protocol of CN-Celeb: speakers enrolled with two utterances, tested in three genres."""
    plain = resolve(read_trial_list(root / "trials"), root)
    speakers = plain.utterances.speakers
    models = tuple(np.flatnonzero(speakers == number)[:2].astype(np.int32) for number in range(3))
    tested = np.array([i for i in range(9) if i not in np.concatenate(models)], dtype=np.int32)
    enrolment, test = (side.ravel().astype(np.int32) for side in np.meshgrid(np.arange(3), np.repeat(tested, 2)))
    pairs = Pairs(
        enrolment=enrolment,
        test=test,
        is_target=speakers[[model[0] for model in models]][enrolment] == speakers[test],
        conditions=np.where(np.arange(len(test)) % 6 < 3, 0, 1).astype(np.int16),
    )
    protocol = Protocol(
        name="average",
        utterances=plain.utterances,
        pairs=pairs,
        models=models,
        condition_names=("singing", "play", "vlog"),
    )
    monkeypatch.setattr(module, "_protocols", lambda *_, **__: iter([(protocol, None)]))
    options = ["--cohort", str(cohort), "--top-n", "3"]
    record = json.loads(evaluate(checkpoint, root / "trials", root, *options, "--json").stdout)
    assert [found["condition"] for found in record["conditions"]] == ["singing", "play", "vlog"]
    assert record["conditions"][2]["eer"] is None

    embeddings = {path.stem: embedding_of(checkpoint, path) for path in (root / "audio").glob("*.wav")}
    means = [np.mean([embeddings[f"{s}-{n}"] for n in range(3)], axis=0) for s in ("dan", "eva", "fay", "gus")]
    enrolled = [np.mean([embeddings[plain.utterances.ids[i]] for i in model], axis=0) for model in models]
    scores = []
    for a, b in zip(pairs.enrolment, pairs.test, strict=True):
        sides = enrolled[a], embeddings[plain.utterances.ids[b]]
        nearest = [sorted(cosine(side, mean) for mean in means)[-3:] for side in sides]
        scores.append(np.mean([(cosine(*sides) - np.mean(n)) / np.std(n) for n in nearest]))
    assert record["eer"] == pytest.approx(eer(np.round(scores, 4), pairs.is_target), abs=1e-6)
    assert record["eer_threshold"] == pytest.approx(verify_scores(scores, pairs.is_target).eer_threshold, rel=1e-2)
    text = evaluate(checkpoint, root / "trials", root, *options).stdout
    assert "singing" in text
    assert "one class only" in text
