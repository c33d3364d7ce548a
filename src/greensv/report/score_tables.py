"""What was measured of scores: as one plain record for JSON, and as lines and a table for people."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rich.table import Table

    from greensv.speaker.scoring.bootstrap import Intervals
    from greensv.speaker.scoring.metrics import Metrics


def score_record(metrics: "Metrics", intervals: "Intervals | None") -> dict[str, Any]:
    """Returns the measures as plain values; of several priors the first, and all of them as `by_p_target`.

    The keys `…_low` and `…_high` are the ends of the 95 % intervals; None without intervals.
    """
    costs = [
        {
            "p_target": cost.p_target,
            "min_dcf": cost.min_dcf,
            "min_dcf_low": intervals.min_dcf[number][0] if intervals else None,
            "min_dcf_high": intervals.min_dcf[number][1] if intervals else None,
            "act_dcf": cost.act_dcf,
        }
        for number, cost in enumerate(metrics.costs)
    ]
    return {
        "eer": metrics.eer,
        "eer_low": intervals.eer[0] if intervals else None,
        "eer_high": intervals.eer[1] if intervals else None,
        "eer_threshold": metrics.eer_threshold,
        **costs[0],
        "cllr": metrics.cllr,
        "min_cllr": metrics.min_cllr,
        "num_target": metrics.num_target,
        "num_nontarget": metrics.num_nontarget,
        **({"by_p_target": costs} if len(costs) > 1 else {}),
    }


def condition_records(conditions: "Mapping[str, Metrics | None]") -> list[dict[str, Any]]:
    """Returns a record per condition; its values are None where it has pairs of one class only."""
    return [
        {"condition": name, **(score_record(metrics, None) if metrics else {"eer": None, "min_dcf": None})}
        for name, metrics in conditions.items()
    ]


def score_lines(record: Mapping[str, Any], *, interval_of: str) -> list[str]:
    """Returns a record in words, a line per measure.

    Args:
        record: of `score_record`.
        interval_of: says over what the intervals are, such as `40 speakers`; without intervals, why there are none.
    """
    interval = (
        f"no interval: {interval_of}"
        if record["eer_low"] is None
        else f"95 % over {interval_of}: {record['eer_low']:.2%} to {record['eer_high']:.2%}"
    )
    lines = [f"EER     {record['eer']:.2%}  ({interval}; threshold {record['eer_threshold']:.4f})"]
    for cost in record.get("by_p_target", [record]):
        low, high = cost["min_dcf_low"], cost["min_dcf_high"]
        spread = "" if low is None else f"; 95 %: {low:.4f} to {high:.4f}"
        lines.append(
            f"minDCF  {cost['min_dcf']:.4f}  (p_target {cost['p_target']:g}{spread})  actDCF {cost['act_dcf']:.4f}"
        )
    lines.append(f"Cllr    {record['cllr']:.4f}  (minimum {record['min_cllr']:.4f})")
    if record["cllr"] > 1 or max(cost["act_dcf"] for cost in record.get("by_p_target", [record])) > 1:
        lines.append(
            "actDCF and Cllr take scores for natural-log likelihood ratios; above 1 they would do more harm than none: "
            "calibrate them"
        )
    return lines


def condition_table(records: Sequence[Mapping[str, Any]]) -> "Table":
    """Returns a row per condition, for `condition_records`."""
    from rich.box import SIMPLE_HEAD
    from rich.table import Table
    from rich.text import Text

    table = Table(header_style="bold", box=SIMPLE_HEAD, padding=(0, 1, 0, 0))
    table.add_column("condition", overflow="fold")
    for heading in ("target", "nontarget", "EER %", "minDCF"):
        table.add_column(heading, justify="right", no_wrap=True)
    for record in records:
        if record["eer"] is None:
            table.add_row(Text(record["condition"]), "–", "–", "one class only", "–")
        else:
            table.add_row(
                Text(record["condition"]),
                f"{record['num_target']:,}",
                f"{record['num_nontarget']:,}",
                f"{100 * record['eer']:.2f}",
                f"{record['min_dcf']:.4f}",
            )
    return table
