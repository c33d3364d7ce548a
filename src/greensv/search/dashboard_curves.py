"""The learning curves of a study as a figure in optuna-dashboard, which has none of its own for several objectives."""

import json
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from greensv.trial_record import TrialRecord

if TYPE_CHECKING:
    import optuna

FIGURE_ID = "greensv-curves"
MAX_CURVES = 100
"""The front's are always among them; then the newest. The dashboard keeps a figure in rows of 2 kB."""


class _Figure:
    """A Plotly figure as its JSON: what the dashboard wants of one."""

    def __init__(self, data: Sequence[dict[str, Any]], layout: dict[str, Any]) -> None:
        self._json = json.dumps({"data": list(data), "layout": layout}, allow_nan=False)

    def to_json(self) -> str:
        """Returns the figure as the dashboard keeps it."""
        return self._json


def save_curves(study: "optuna.Study", records: Sequence[TrialRecord], front: Sequence[TrialRecord]) -> None:
    """Puts EER by training step of each trial on the study's first page, in place of what was there."""
    from optuna_dashboard import save_plotly_graph_object

    on_front = {record.number for record in front}
    curves = [record for record in records if record.curve]
    curves.sort(key=lambda record: (record.number in on_front, record.number))
    traces = [_trace(record, is_on_front=record.number in on_front) for record in curves[-MAX_CURVES:]]
    if traces:
        figure: Any = _Figure(traces, _layout(len(curves)))
        save_plotly_graph_object(study, figure, graph_object_id=FIGURE_ID)


def _trace(record: TrialRecord, *, is_on_front: bool) -> dict[str, Any]:
    return {
        "type": "scatter",
        "mode": "lines+markers",
        "name": f"trial {record.number}",
        "x": [int(point["step"]) for point in record.curve],
        "y": [round(100 * float(point["eer"]), 3) for point in record.curve],
        "line": {"width": 3 if is_on_front else 1},
        "opacity": 1.0 if is_on_front else 0.4,
        "showlegend": is_on_front,
    }


def _layout(num_curves: int) -> dict[str, Any]:
    shown = f", {MAX_CURVES} of {num_curves} trials" if num_curves > MAX_CURVES else ""
    return {
        "title": {"text": f"EER on the development pairs by training step{shown}; thick: the front"},
        "xaxis": {"title": {"text": "training steps"}, "type": "log"},
        "yaxis": {"title": {"text": "EER, %"}},
    }
