import json
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.optimize import minimize
from sklearn.linear_model import LogisticRegression

from greensv.errors import CheckpointError, DataError
from greensv.speaker.scoring import calibration as module
from greensv.speaker.scoring.calibration import Calibration, fit_calibration, probability
from greensv.speaker.scoring.llr import cllr, min_cllr
from greensv.speaker.scoring.metrics import act_dcf, min_dcf
from greensv.speaker.scoring.sorted_scores import sort_scores


def draw(num: int = 4000, *, seed: int = 0) -> tuple[NDArray[np.float64], NDArray[np.bool_], NDArray[np.float64]]:
    """Scores like cosines, whose spread and offset depend on a quality."""
    rng = np.random.default_rng(seed)
    is_target, quality = rng.random(num) < 0.2, rng.uniform(0, 2, num)
    return 0.1 * rng.normal(size=num) + 0.3 * is_target - 0.1 * quality, is_target, quality


def prior_weighted_cllr(llrs: NDArray[np.float64], is_target: NDArray[np.bool_], prior: float) -> float:
    z = llrs + np.log(prior / (1 - prior))
    target, nontarget = np.logaddexp(0, -z[is_target]).mean(), np.logaddexp(0, z[~is_target]).mean()
    return float(prior * target + (1 - prior) * nontarget)


@pytest.mark.parametrize("prior", [0.5, 0.01, 0.9])
def test_fit_equals_scikit_learns_logistic_regression(prior: float) -> None:
    scores, is_target, quality = draw()
    found = fit_calibration(scores, is_target, {"quality": quality}, prior=prior)
    weight = np.where(is_target, prior / is_target.sum(), (1 - prior) / (~is_target).sum()) * len(scores)
    oracle = LogisticRegression(C=1e9, tol=1e-10, max_iter=10_000)
    oracle.fit(np.stack([scores, quality], axis=1), is_target, sample_weight=weight)
    assert list(found.weights) == ["score", "quality"]
    assert list(found.weights.values()) == pytest.approx(oracle.coef_[0], rel=1e-3)
    assert found.bias == pytest.approx(oracle.intercept_[0] - np.log(prior / (1 - prior)), rel=1e-3, abs=1e-3)


def test_no_other_map_has_a_lower_prior_weighted_cllr() -> None:
    scores, is_target, _ = draw()
    found = fit_calibration(scores, is_target, prior=0.05)
    least = minimize(
        lambda x: prior_weighted_cllr(x[0] * scores + x[1], is_target, 0.05), [1.0, 0.0], method="Nelder-Mead"
    )
    assert prior_weighted_cllr(found.apply(scores), is_target, 0.05) == pytest.approx(least.fun, rel=1e-4)


def test_calibrated_scores_of_other_pairs_are_likelihood_ratios() -> None:
    scores, is_target, quality = draw()
    others, other_is_target, other_quality = draw(seed=1)
    plain = fit_calibration(scores, is_target)
    informed = fit_calibration(scores, is_target, {"quality": quality})
    without, with_quality = plain.apply(others), informed.apply(others, {"quality": other_quality, "unused": others})
    uncalibrated = cllr(sort_scores(others, other_is_target))
    costs = [cllr(sort_scores(llrs, other_is_target)) for llrs in (without, with_quality)]
    assert costs[1] < 0.8 * costs[0] < 0.8 * uncalibrated
    for llrs, cost in zip((without, with_quality), costs, strict=True):
        assert cost < min_cllr(sort_scores(llrs, other_is_target)) + 0.02
        actual = act_dcf(llrs, other_is_target, p_target=0.2)
        assert actual < min_dcf(llrs, other_is_target, p_target=0.2) + 0.03


def test_separable_scores_have_a_finite_calibration() -> None:
    found = fit_calibration([1.0, 0.9, -0.5, -1.0], [True, True, False, False])
    assert np.isfinite([found.bias, *found.weights.values()]).all()
    assert (np.sign(found.apply([0.9, -0.5])) == [1, -1]).all()


def test_a_quality_that_never_varies_gets_no_weight() -> None:
    scores, is_target, _ = draw(500)
    found = fit_calibration(scores, is_target, {"constant": np.full(500, 3.7)})
    plain = fit_calibration(scores, is_target)
    assert found.weights["constant"] == 0
    assert found.weights["score"] == pytest.approx(plain.weights["score"], rel=1e-6)


def test_blocks_do_not_show(monkeypatch: pytest.MonkeyPatch) -> None:
    scores, is_target, quality = draw(1000)
    whole = fit_calibration(scores, is_target, {"quality": quality})
    monkeypatch.setattr(module, "_ROWS_PER_BLOCK", 64)
    parts = fit_calibration(scores, is_target, {"quality": quality})
    assert parts.bias == pytest.approx(whole.bias, rel=1e-6)
    assert parts.weights == pytest.approx(whole.weights, rel=1e-6)


def test_probability_is_bayes_rule() -> None:
    assert probability([0.0, np.log(99)], prior=0.01) == pytest.approx([0.01, 0.5])
    assert probability([-1e4, 1e4], prior=0.5).tolist() == [0, 1]


def test_saved_calibration_is_read_back_whole(tmp_path: Path) -> None:
    scores, is_target, quality = draw(500)
    saved = fit_calibration(
        scores, is_target, {"quality": quality}, prior=0.1, scoring={"method": "cosine"}, trained_on={"num_target": 9}
    )
    saved.save(tmp_path / "calibration.json")
    found = Calibration.load(tmp_path / "calibration.json")
    assert found == saved
    assert found.qualities == ("quality",)
    assert np.array_equal(found.apply(scores, {"quality": quality}), saved.apply(scores, {"quality": quality}))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "no JSON"),
        ("[]", "it does not say"),
        ('{"format": "greensv-checkpoint"}', "it does not say"),
        ('{"format": "greensv-calibration", "format_version": 9}', "of calibration format 9"),
        ('{"format": "greensv-calibration", "format_version": 1, "bias": 0}', "is damaged .*weights"),
        (
            '{"format": "greensv-calibration", "format_version": 1, "bias": 0, "prior": 0.5, "weights": {"x": 1}}',
            "no weight of the score",
        ),
    ],
)
def test_files_that_are_no_calibration_say_so(text: str, message: str, tmp_path: Path) -> None:
    (tmp_path / "file.json").write_text(text)
    with pytest.raises(DataError, match=message):
        Calibration.load(tmp_path / "file.json")


def test_missing_file_and_missing_folder_are_errors(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"no calibration .*--fit-calibration"):
        Calibration.load(tmp_path / "none.json")
    (tmp_path / "file").write_text("")
    with pytest.raises(CheckpointError, match="cannot be written"):
        Calibration(bias=0, weights={"score": 1}, prior=0.5).save(tmp_path / "file" / "calibration.json")


def test_saved_text_is_strict_json(tmp_path: Path) -> None:
    Calibration(bias=0.5, weights={"score": 2}, prior=0.5).save(tmp_path / "c.json")
    assert json.loads((tmp_path / "c.json").read_text())["weights"] == {"score": 2}


def test_missing_quality_is_named() -> None:
    with pytest.raises(DataError, match="needs cohort_mean_min of each pair, found score"):
        Calibration(bias=0, weights={"score": 1, "cohort_mean_min": 1}, prior=0.5).apply([1.0])


def test_values_that_cannot_be_fitted_are_errors() -> None:
    scores, is_target, quality = draw(100)
    with pytest.raises(DataError, match="higher scores speak against"):
        fit_calibration(-scores, is_target)
    with pytest.raises(DataError, match="quality of pair 4 is not finite"):
        fit_calibration(scores, is_target, {"quality": np.where(np.arange(100) == 3, np.nan, quality)})
    with pytest.raises(DataError, match="between 0 and 1"):
        fit_calibration(scores, is_target, prior=1.0)
    with pytest.raises(DataError, match="none of them target"):
        fit_calibration(scores, np.zeros(100, dtype=bool))
