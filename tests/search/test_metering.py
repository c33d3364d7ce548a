"""What is known late: how far true energy may get beyond a cap."""

from typing import Any, cast

import pytest

from greensv.energy.monitoring import Monitor
from greensv.search.metering import Metering
from simulated.scripted import Gauge, ScriptedClock, ScriptedSession, open_scripted

NONE = cast(Any, None)


@pytest.mark.parametrize(("resolution_s", "late_s"), [(0.1, 1.0), (30.0, 30.0)])
def test_the_head_room_is_of_an_interval_or_of_what_the_slowest_meter_takes(resolution_s: float, late_s: float) -> None:
    clock = ScriptedClock()
    gauge = Gauge(clock)
    gauge.power_w = 100.0
    monitor = Monitor([open_scripted(ScriptedSession(gauge.samples), resolution_s=resolution_s)], clock=clock)
    monitor.poll()
    clock.advance(60.0)
    monitor.poll()
    metering = Metering(
        monitor=monitor,
        charger=NONE,
        ledger=NONE,
        study_id="a-study",
        account="search",
        cap_j=1e6,
        pue=1.5,
        choices=(),
        longest_step_s=0.5,
    )
    assert metering.head_room_j == pytest.approx(1.5 * 100.0 * (late_s + 0.5))
