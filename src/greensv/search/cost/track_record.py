"""How good predictions were so far on this hardware: what was predicted against what was measured then."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median

from greensv.search.cost.model import NUM_STDS
from greensv.search.cost.saved import SavedCost


@dataclass(frozen=True, slots=True, kw_only=True)
class TrackRecord:
    """Predictions that have been followed by their measurement."""

    num_predictions: int
    median_error: float
    """Of the absolute differences, as a share of what was measured."""
    share_inside: float
    """Share of the measurements that lay inside the 95 % interval."""


def track_record(points: Sequence[SavedCost]) -> TrackRecord | None:
    """Returns how good the predictions of saved points were; None where nothing was predicted yet."""
    errors, inside = [], []
    for point in points:
        if point.predicted_joules and point.predicted_log_std is not None:
            errors.append(abs(point.predicted_joules / point.joules - 1))
            distance = abs(math.log(point.predicted_joules / point.joules))
            inside.append(distance <= NUM_STDS * point.predicted_log_std)
    if not errors:
        return None
    share_inside = sum(inside) / len(inside)
    return TrackRecord(num_predictions=len(errors), median_error=median(errors), share_inside=share_inside)
