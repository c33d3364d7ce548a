"""`greensv metrics`, as it is typed, on score files as toolkits write them."""

import json
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner, Result

from greensv.cli.metrics import metrics, num_resamples
from greensv.errors import ConfigError, DataError
from greensv.speaker.scoring.bootstrap import bootstrap
from greensv.speaker.scoring.metrics import act_dcf, eer, measure_scores, min_dcf
from greensv.speaker.scoring.sorted_scores import sort_scores


def run(*arguments: object) -> Result:
    return CliRunner().invoke(metrics, [*map(str, arguments)])


@pytest.fixture
def names() -> list[str]:
    return [f"id1000{speaker}/video{number}/0000{number}.wav" for speaker in range(8) for number in range(3)]


@pytest.fixture
def files(tmp_path: Path, names: list[str]) -> tuple[Path, Path, np.ndarray, np.ndarray]:
    """Scores of all pairs in VoxCeleb's form, the score file shuffled."""
    rng = np.random.default_rng(0)
    first, second = np.triu_indices(len(names), 1)
    is_target = first // 3 == second // 3
    scores = (rng.normal(size=len(first)) + 3 * is_target - 1).round(3)
    pairs = [(names[a], names[b]) for a, b in zip(first, second, strict=True)]
    (tmp_path / "list").write_text("".join(f"{int(t)} {a} {b}\n" for t, (a, b) in zip(is_target, pairs, strict=True)))
    lines = [f"{a} {b} {score:.3f}\n" for (a, b), score in zip(pairs, scores, strict=True)]
    (tmp_path / "scores").write_text("".join(lines[i] for i in rng.permutation(len(lines))))
    return tmp_path / "scores", tmp_path / "list", scores, is_target


def test_json_holds_every_measure_with_intervals_over_the_speakers_of_voxcelebs_names(files: tuple) -> None:
    scores_file, trial_list, scores, is_target = files
    result = run(scores_file, "--trial-list", trial_list, "--p-target", "0.05", "--json")
    assert result.exit_code == 0, result.output
    record = json.loads(result.stdout)
    expected = measure_scores(sort_scores(scores, is_target), p_targets=(0.05,))
    assert record["eer"] == eer(scores, is_target)
    assert record["min_dcf"] == min_dcf(scores, is_target, p_target=0.05)
    assert record["act_dcf"] == act_dcf(scores, is_target, p_target=0.05)
    assert (record["cllr"], record["min_cllr"]) == (expected.cllr, expected.min_cllr)
    first, second = np.triu_indices(24, 1)
    intervals = bootstrap(scores, is_target, (first // 3, second // 3), p_targets=(0.05,), num_resamples=1000)
    assert (record["eer_low"], record["eer_high"]) == intervals.eer
    assert (record["min_dcf_low"], record["min_dcf_high"]) == intervals.min_dcf[0]
    assert (record["num_target"], record["num_nontarget"], record["num_speakers"]) == (24, 252, 8)
    assert (record["num_duplicates"], record["num_contradictory"]) == (0, 0)
    assert "by_p_target" not in record


def test_text_says_the_same_and_several_priors_have_a_line_each(files: tuple) -> None:
    scores_file, trial_list, _, _ = files
    options = ["--trial-list", trial_list, "--p-target", "0.01", "--p-target", "0.5"]
    record = json.loads(run(scores_file, *options, "--json").stdout)
    assert [cost["p_target"] for cost in record["by_p_target"]] == [0.01, 0.5]
    text = run(scores_file, *options).stdout
    assert "276 pairs (24 target) of 24 utterances" in text
    assert f"EER     {record['eer']:.2%}  (95 % over 8 speakers: {record['eer_low']:.2%} to" in text
    for cost in record["by_p_target"]:
        assert f"minDCF  {cost['min_dcf']:.4f}  (p_target {cost['p_target']:g}; 95 %: " in text
    assert f"Cllr    {record['cllr']:.4f}  (minimum {record['min_cllr']:.4f})" in text


def test_duplicated_and_contradictory_pairs_count_and_are_told(tmp_path: Path) -> None:
    (tmp_path / "list").write_text("a b target\na c nontarget\na c nontarget\nb c target\nb c nontarget\n")
    (tmp_path / "scores").write_text("a b 0.9\nb c 0.5\na c 0.1\n")
    record = json.loads(run(tmp_path / "scores", "--trial-list", tmp_path / "list", "--json").stdout)
    assert (record["num_duplicates"], record["num_contradictory"]) == (1, 2)
    assert (record["num_target"], record["num_nontarget"]) == (2, 3)
    assert record["eer"] == eer([0.9, 0.1, 0.1, 0.5, 0.5], [True, False, False, True, False])
    text = run(tmp_path / "scores", "--trial-list", tmp_path / "list").stdout
    assert "1 pairs are listed again and 2 with both labels" in text


def test_names_that_tell_no_speaker_need_utt2spk_for_an_interval(tmp_path: Path) -> None:
    (tmp_path / "list").write_text("a b target\nc d target\na c nontarget\nb d nontarget\n")
    (tmp_path / "scores").write_text("a b 0.9\nc d 0.4\na c 0.5\nb d 0.1\n")
    command = [tmp_path / "scores", "--trial-list", tmp_path / "list"]
    record = json.loads(run(*command, "--json").stdout)
    assert record["eer_low"] is record["num_speakers"] is record["min_dcf_high"] is None
    assert "no interval: the names do not tell the speakers, give --speakers" in run(*command).stdout
    (tmp_path / "utt2spk").write_text("a x\nb x\nc y\nd y\n")
    record = json.loads(run(*command, "--speakers", tmp_path / "utt2spk", "--json").stdout)
    assert record["num_speakers"] == 2
    assert record["eer_low"] <= record["eer"] <= record["eer_high"]
    (tmp_path / "utt2spk").write_text("a x\nb y\nc y\nd y\n")
    text = run(*command, "--speakers", tmp_path / "utt2spk").stdout
    assert "no interval: 2 labels of the list contradict the speakers" in text


def test_det_curve_is_written(files: tuple, tmp_path: Path) -> None:
    scores_file, trial_list, scores, is_target = files
    result = run(scores_file, "--trial-list", trial_list, "--det", tmp_path / "det.json")
    assert f"DET curve written to {tmp_path / 'det.json'}" in result.stdout
    assert json.loads((tmp_path / "det.json").read_text())["eer"] == eer(scores, is_target)
    result = run(scores_file, "--trial-list", trial_list, "--det", tmp_path / "det.doc")
    assert isinstance(result.exception, ConfigError)


def test_equal_scores_are_measured_and_told(tmp_path: Path) -> None:
    (tmp_path / "list").write_text("a b target\na c nontarget\n")
    (tmp_path / "scores").write_text("a b 0.5\na c 0.5\n")
    result = run(tmp_path / "scores", "--trial-list", tmp_path / "list")
    assert "EER     50.00%" in result.stdout
    assert "All scores are equal" in result.stdout


def test_bad_scores_and_priors_are_errors(files: tuple, tmp_path: Path) -> None:
    scores_file, trial_list, _, _ = files
    (tmp_path / "nan").write_text(scores_file.read_text().replace(" 0", " nan 0", 1))
    assert isinstance(run(tmp_path / "nan", "--trial-list", trial_list).exception, DataError)
    assert "no file" in str(run(tmp_path / "none", "--trial-list", trial_list).exception)
    assert run(scores_file, "--trial-list", trial_list, "--p-target", "1").exit_code == 2
    assert run(scores_file).exit_code == 2


def test_intervals_of_very_many_pairs_take_fewer_resamples() -> None:
    assert (num_resamples(100), num_resamples(2_000_000), num_resamples(10**8)) == (1000, 500, 200)
