"""`greensv verify`: the score, what decides on it, and that it says where that comes from."""

import json
import math
import shutil
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
from click.testing import CliRunner, Result

from greensv.builtin.backbones.resnet import ResNet
from greensv.cli.verify import KNOWN_QUALITIES, verify
from greensv.errors import CheckpointError, ConfigError, DataError, GreensvError
from greensv.speaker.checkpoint import DevResult, annotate_checkpoint, build_network, read_checkpoint
from greensv.speaker.features import Fbank, subtract_mean
from greensv.speaker.scoring.calibration import Calibration


@pytest.fixture(autouse=True)
def in_the_folder(recordings: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(recordings)


@pytest.fixture
def checkpoint(small_checkpoint: Path, tmp_path: Path) -> Path:
    """A copy to annotate."""
    return Path(shutil.copytree(small_checkpoint, tmp_path / "checkpoint"))


def run(*arguments: object) -> Result:
    return CliRunner().invoke(verify, [str(argument) for argument in arguments], obj={"third_party": False})


def record_of(*arguments: object) -> dict[str, object]:
    result = run(*arguments, "--json", "--device", "cpu")
    assert result.exit_code == 0, result.exception
    found: dict[str, object] = json.loads(result.stdout)
    return found


def error_of(result: Result, kind: type[GreensvError]) -> str:
    assert isinstance(result.exception, kind), (result.exception, result.output)
    return str(result.exception)


def embedding_of(checkpoint: Path, path: str) -> torch.Tensor:
    info, state = read_checkpoint(checkpoint)
    samples, _ = soundfile.read(path, dtype="float32")
    with torch.inference_mode():
        features = subtract_mean(Fbank(info.features)(torch.from_numpy(samples)[None])[0])
        return build_network(ResNet(), info, state)(features, None)[0]


def test_score_is_the_cosine_and_nothing_is_decided_without_a_threshold(checkpoint: Path) -> None:
    record = record_of(checkpoint, "a.wav", "b.flac")
    expected = torch.cosine_similarity(embedding_of(checkpoint, "a.wav"), embedding_of(checkpoint, "b.flac"), dim=0)
    assert record["score"] == pytest.approx(expected.item(), abs=1e-4)
    for key in ("llr", "probability", "threshold", "threshold_from", "is_same_speaker", "calibration"):
        assert record[key] is None
    text = run(checkpoint, "a.wav", "b.flac").stdout
    assert f"Score        {record['score']:.4f}" in text
    assert "Decision     none: no threshold is known" in text
    assert "Probability  unknown" in text


@pytest.mark.parametrize(("threshold", "is_same"), [(-1.0, True), (1.5, False)])
def test_given_threshold_decides_before_all_others(threshold: float, is_same: bool, checkpoint: Path) -> None:
    annotate_checkpoint(checkpoint, dev=DevResult(eer=0.1, eer_threshold=0.2, num_target=1, num_nontarget=1))
    Calibration(bias=0, weights={"score": 1.0}, prior=0.5).save(checkpoint / "calibration.json")
    record = record_of(checkpoint, "a.wav", "b.flac", "--threshold", threshold)
    assert record["threshold"] == threshold
    assert (record["threshold_on"], record["threshold_from"]) == ("score", "option")
    assert record["is_same_speaker"] is is_same


@pytest.mark.parametrize(("threshold", "is_same"), [(-1.0, True), (1.5, False)])
def test_threshold_of_the_development_pairs_decides_where_there_is_no_other(
    threshold: float, is_same: bool, checkpoint: Path
) -> None:
    annotate_checkpoint(checkpoint, dev=DevResult(eer=0.1, eer_threshold=threshold, num_target=1, num_nontarget=1))
    record = record_of(checkpoint, "a.wav", "b.flac")
    assert (record["threshold"], record["threshold_from"]) == (threshold, "checkpoint")
    assert record["is_same_speaker"] is is_same
    text = run(checkpoint, "a.wav", "b.flac").stdout
    assert "of equal error rates on the checkpoint's development pairs" in text
    assert f"Decision     {'the same speaker' if is_same else 'different speakers'}" in text


def test_calibration_beside_the_checkpoint_gives_probability_and_bayes_threshold(checkpoint: Path) -> None:
    annotate_checkpoint(checkpoint, dev=DevResult(eer=0.1, eer_threshold=0.2, num_target=1, num_nontarget=1))
    Calibration(bias=-2.0, weights={"score": 5.0}, prior=0.5).save(checkpoint / "calibration.json")
    record = record_of(checkpoint / "model.json", "a.wav", "b.flac", "--p-target", 0.1)
    llr = 5.0 * float(record["score"]) - 2.0  # type: ignore[arg-type]
    odds = math.exp(llr) * 0.1 / 0.9
    assert record["llr"] == pytest.approx(llr, abs=1e-6)
    assert record["probability"] == pytest.approx(odds / (1 + odds), abs=1e-6)
    assert record["threshold"] == pytest.approx(math.log(9))
    assert (record["threshold_on"], record["threshold_from"]) == ("llr", "calibration")
    assert record["is_same_speaker"] is (odds >= 1)
    assert record["calibration"] == str(checkpoint / "calibration.json")
    text = run(checkpoint, "a.wav", "b.flac", "--p-target", 0.1).stdout
    assert f"Probability  {odds / (1 + odds):.1%}" in text
    assert "Bayes at p_target 0.1" in text


def test_given_calibration_is_used_with_the_qualities_it_was_fitted_on(checkpoint: Path, tmp_path: Path) -> None:
    Calibration(bias=0.0, weights={"score": 9.0}, prior=0.5).save(checkpoint / "calibration.json")
    given = tmp_path / "given.json"
    weights = {"score": 2.0, "log_duration_min": 3.0, "log_magnitude_max": 0.5}
    Calibration(bias=1.0, weights=weights, prior=0.5).save(given)
    record = record_of(checkpoint, "a.wav", "c.wav", "--calibration", given)
    magnitude = max(embedding_of(checkpoint, name).norm().item() for name in ("a.wav", "c.wav"))
    expected = 1.0 + 2.0 * float(record["score"]) + 3.0 * math.log(4_321 / 16_000) + 0.5 * math.log(magnitude)  # type: ignore[arg-type]
    assert record["llr"] == pytest.approx(expected, abs=1e-3)
    assert record["calibration"] == str(given)


def test_calibration_that_does_not_suit_is_refused(checkpoint: Path, tmp_path: Path) -> None:
    path = tmp_path / "c.json"
    arguments = (checkpoint, "a.wav", "b.flac", "--calibration", path)
    assert "no calibration" in error_of(run(*arguments), DataError)
    path.write_text("{}")
    assert "is no calibration of greensv" in error_of(run(*arguments), DataError)
    Calibration(bias=0, weights={"score": 1.0}, prior=0.5, scoring={"method": "as-norm"}).save(path)
    assert "scores by as-norm, which need a cohort" in error_of(run(*arguments), ConfigError)
    scoring = {"method": "cosine", "cohort": "train", "top_n": 0, "is_mean_subtracted": True}
    Calibration(bias=0, weights={"score": 1.0}, prior=0.5, scoring=scoring).save(path)
    assert "scores by cosine less the cohort's mean, which need a cohort" in error_of(run(*arguments), ConfigError)
    scoring = {"method": "cosine", "network_sha256": "another"}
    Calibration(bias=0, weights={"score": 1.0}, prior=0.5, scoring=scoring).save(path)
    assert "fitted on the scores of another network" in error_of(run(*arguments), ConfigError)
    Calibration(bias=0, weights={"score": 1.0, "cohort_mean_min": 1.0}, prior=0.5).save(path)
    assert f"{path} needs cohort_mean_min of each pair" in error_of(run(*arguments), DataError)


def test_calibration_beside_the_checkpoint_that_does_not_suit_is_left_with_a_warning(checkpoint: Path) -> None:
    annotate_checkpoint(checkpoint, dev=DevResult(eer=0.1, eer_threshold=0.2, num_target=1, num_nontarget=1))
    path = checkpoint / "calibration.json"
    plain = {"bias": 0.0, "prior": 0.5}
    unsuitable = [
        (Calibration(**plain, weights={"score": 1.0}, scoring={"method": "as-norm"}), "scores by as-norm"),  # type: ignore[arg-type]
        (Calibration(**plain, weights={"score": 1.0}, scoring={"network_sha256": "another"}), "another network"),  # type: ignore[arg-type]
        (Calibration(**plain, weights={"score": 1.0, "cohort_mean_min": 1.0}), "needs cohort_mean_min"),  # type: ignore[arg-type]
        (None, "is no calibration of greensv"),
    ]
    for calibration, reason in unsuitable:
        path.write_text("{}")
        if calibration is not None:
            calibration.save(path)
        result = run(checkpoint, "a.wav", "b.flac", "--threshold", -1, "--json")
        assert result.exit_code == 0, result.exception
        assert "warning: going on without the calibration beside the checkpoint" in result.stderr
        assert str(path) in result.stderr
        assert reason in result.stderr
        record = json.loads(result.stdout)
        assert (record["threshold_from"], record["calibration"], record["llr"]) == ("option", None, None)
    found = run(checkpoint, "a.wav", "b.flac")
    assert "no calibration is given, none beside the checkpoint suits" in found.stdout
    assert "development pairs" in found.stdout


def test_calibration_may_need_all_that_two_recordings_tell(checkpoint: Path) -> None:
    Calibration(bias=0, weights={"score": 1.0, **dict.fromkeys(KNOWN_QUALITIES, 0.5)}, prior=0.5).save(
        checkpoint / "calibration.json"
    )
    assert record_of(checkpoint, "a.wav", "b.flac")["threshold_from"] == "calibration"


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("nowhere.wav", "no audio file nowhere.wav"),
        ("bad-8k.wav", "8000 Hz, the network needs 16000 Hz; --resample resamples it"),
        ("bad-short.wav", "only 100 samples"),
        ("bad-nan.wav", "no numbers"),
        ("bad-empty.wav", "is empty"),
        ("bad-cut.flac", "damaged"),
        ("silent.wav", "silent.wav is silent: there is no voice in it"),
    ],
)
def test_recording_that_cannot_be_used_is_an_error(name: str, message: str, checkpoint: Path) -> None:
    for arguments in ((name, "a.wav"), ("a.wav", name)):
        assert message in error_of(run(checkpoint, *arguments, "--threshold", 0), DataError)


def test_other_sample_rate_is_resampled_when_told_so(checkpoint: Path) -> None:
    noise, _ = soundfile.read("a.wav")
    spectrum = np.fft.rfft(noise)
    spectrum[len(spectrum) // 3 :] = 0
    slow = np.fft.irfft(spectrum, 16_000)
    soundfile.write("16k.wav", slow, 16_000)
    soundfile.write("8k.wav", slow[::2], 8_000)
    assert record_of(checkpoint, "16k.wav", "8k.wav", "--resample")["score"] > 0.5


def test_missing_checkpoint_is_an_error() -> None:
    assert "nothing does not exist" in error_of(run("nothing", "a.wav", "b.flac"), CheckpointError)
