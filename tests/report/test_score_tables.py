import io

import numpy as np
from rich.console import Console

from greensv.report.score_tables import condition_records, condition_table, score_lines, score_record
from greensv.speaker.scoring.bootstrap import Intervals
from greensv.speaker.scoring.metrics import Metrics, measure_scores
from greensv.speaker.scoring.sorted_scores import sort_scores

SCORES, IS_TARGET = np.array([3.0, 1, 2, -1, 0, -3]), np.array([True, True, False, True, False, False])


def measures(*p_targets: float) -> Metrics:
    return measure_scores(sort_scores(SCORES, IS_TARGET), p_targets=p_targets)


def test_record_of_one_prior_is_flat() -> None:
    found = measures(0.05)
    record = score_record(found, Intervals(eer=(0.1, 0.4), min_dcf=((0.2, 0.9),)))
    assert record == {
        "eer": found.eer,
        "eer_low": 0.1,
        "eer_high": 0.4,
        "eer_threshold": found.eer_threshold,
        "p_target": 0.05,
        "min_dcf": found.costs[0].min_dcf,
        "min_dcf_low": 0.2,
        "min_dcf_high": 0.9,
        "act_dcf": found.costs[0].act_dcf,
        "cllr": found.cllr,
        "min_cllr": found.min_cllr,
        "num_target": 3,
        "num_nontarget": 3,
    }


def test_record_of_several_priors_lists_them_beside_the_first() -> None:
    record = score_record(measures(0.05, 0.5), None)
    assert record["p_target"] == 0.05
    assert [cost["p_target"] for cost in record["by_p_target"]] == [0.05, 0.5]
    assert record["by_p_target"][0]["min_dcf"] == record["min_dcf"]
    assert record["eer_low"] is record["min_dcf_high"] is record["by_p_target"][1]["min_dcf_low"] is None


def test_lines_say_what_the_record_holds() -> None:
    record = score_record(measures(0.05, 0.5), Intervals(eer=(0.1, 0.4), min_dcf=((0.2, 0.9), (0.3, 0.4))))
    lines = score_lines(record, interval_of="7 speakers")
    assert lines[0].startswith("EER     33.33%  (95 % over 7 speakers: 10.00% to 40.00%; threshold ")
    first, second = record["by_p_target"]
    assert lines[1] == (
        f"minDCF  {first['min_dcf']:.4f}  (p_target 0.05; 95 %: 0.2000 to 0.9000)  actDCF {first['act_dcf']:.4f}"
    )
    assert lines[2].startswith(f"minDCF  {second['min_dcf']:.4f}  (p_target 0.5; 95 %: 0.3000 to 0.4000)")
    assert lines[3] == f"Cllr    {record['cllr']:.4f}  (minimum {record['min_cllr']:.4f})"
    assert "no interval: no names" in score_lines(score_record(measures(0.05), None), interval_of="no names")[0]


def test_scores_that_do_harm_as_likelihood_ratios_are_pointed_out() -> None:
    useless = measure_scores(sort_scores(SCORES * 10, IS_TARGET))
    good = measure_scores(sort_scores(np.where(IS_TARGET, 9.0, -9.0), IS_TARGET))
    assert "calibrate them" in score_lines(score_record(useless, None), interval_of="x")[-1]
    assert len(score_lines(score_record(good, None), interval_of="x")) == 3


def test_conditions_are_a_table_with_a_row_for_those_that_have_no_error_rate() -> None:
    records = condition_records({"song [live]": measures(0.05), "play": None})
    assert records[1] == {"condition": "play", "eer": None, "min_dcf": None}
    out = Console(file=io.StringIO(), width=80)
    out.print(condition_table(records))
    text = out.file.getvalue()  # type: ignore[attr-defined]
    assert "song [live]" in text
    assert "33.33" in text
    assert "one class only" in text
